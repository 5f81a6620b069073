"""Getting one file over https, resumed where an earlier attempt ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO, cast
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

CHUNK = 1 << 16
LOWEST_RATE = 1 << 10
RANGE_NOT_SATISFIABLE = 416
PARTIAL_CONTENT = 206
LOOPBACK = ("127.0.0.1", "::1", "localhost")

# What a network, a server or a disk may do to a download.
FAILURES = (OSError, HTTPException)


def download(
    url: str, path: Path, *, limit: int, timeout: float, progress: Callable[[int], None] | None = None
) -> None:
    """Make `path` as long as the file at `url`, which may be no longer than `limit` bytes.

    `timeout` in seconds bounds each wait; a rate below 1 kB/s ends it too. `progress(bytes_so_far)` is told.
    Raises one of FAILURES and leaves what has arrived, to be resumed.
    """
    done = path.stat().st_size if path.exists() else 0
    request = Request(_checked(url), headers={"Range": f"bytes={done}-"} if done else {})
    try:
        response = cast(HTTPResponse, build_opener(_CheckedRedirects).open(request, timeout=timeout))
    except HTTPError as error:
        with error:
            # Nothing is left to send: the caller's checksum decides whether this is the whole file.
            if error.code == RANGE_NOT_SATISFIABLE:
                return
            raise OSError(f"the server answers {error.code} {error.reason}") from None
    with response:
        resumed = response.status == PARTIAL_CONTENT
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
            raise OSError("the server sends another range than asked for")
        with path.open("ab" if resumed else "wb") as file:
            _copy(response, file, done=done if resumed else 0, limit=limit, timeout=timeout, progress=progress)


def _copy(
    response: HTTPResponse,
    file: IO[bytes],
    *,
    done: int,
    limit: int,
    timeout: float,
    progress: Callable[[int], None] | None,
) -> None:
    promised = response.headers.get("Content-Length", "")
    total = done + int(promised) if promised.isdigit() else None
    if total is not None and total > limit:
        raise OSError(f"the server announces {total:,} bytes, {limit:,} are allowed")
    began, first = time.monotonic(), done
    while chunk := response.read1(CHUNK):
        done += len(chunk)
        if done > limit:
            raise OSError(f"the server sends more than the {limit:,} bytes allowed")
        if time.monotonic() - began > timeout + (done - first) / LOWEST_RATE:
            raise OSError("the server is slower than 1 kB/s")
        file.write(chunk)
        if progress is not None:
            progress(done)
    if total is not None and done < total:
        raise OSError(f"the connection ended after {done:,} of {total:,} bytes")


def _checked(url: str) -> str:
    """Only https, on which nobody between can lie; plain http on this machine alone."""
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK):
        return url
    raise OSError(f"{url} is not https")


class _CheckedRedirects(HTTPRedirectHandler):
    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        try:
            _checked(newurl)
        except OSError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)
