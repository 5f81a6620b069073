"""Known files: the cache, the order of looking, and downloads from a server that misbehaves."""

import dataclasses
import gzip
import hashlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from dltrain.data import fashion_mnist
from dltrain.data.dataset import DataError
from dltrain.data.download import download
from dltrain.data.fashion_mnist import DEBIAN_FOLDER, FILES, MIRRORS
from dltrain.data.idx_file import encode
from dltrain.data.known_files import KnownFile, KnownFiles

NAME = "train-labels-idx1-ubyte"
VALUES = np.random.default_rng(0).integers(0, 10, 50_000).astype(np.uint8)
PLAIN = encode(VALUES)
PACKED = gzip.compress(PLAIN, 1, mtime=0)
KNOWN = KnownFile(NAME, len(PLAIN), len(PACKED), hashlib.sha256(PLAIN).hexdigest())


@pytest.fixture(autouse=True)
def _no_network(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")


class Server(ThreadingHTTPServer):
    """Serves PACKED as `behaviour(handler, first_byte)` does, and counts what was asked for."""

    daemon_threads = True

    def __init__(self, behaviour):
        super().__init__(("127.0.0.1", 0), Handler)
        self.behaviour = behaviour
        self.asked = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        self.server.behaviour(self, int(asked[6:-1]) if asked else 0)

    def log_message(self, *_):
        pass

    def begin(self, status, length, **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()


def honest(handler, first):
    body = PACKED[first:]
    if first >= len(PACKED):
        handler.send_error(416)
    elif first:
        handler.begin(206, len(body), Content_Range=f"bytes {first}-{len(PACKED) - 1}/{len(PACKED)}")
        handler.wfile.write(body)
    else:
        handler.begin(200, len(body))
        handler.wfile.write(body)


@pytest.fixture
def serve():
    servers = []

    def start(behaviour):
        server = Server(behaviour)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        servers.append((server, thread))
        return server

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def known_files(tmp_path, *servers, **keywords):
    mirrors = tuple(server.url for server in servers)
    keywords = {"cache": tmp_path / "cache", "timeout": 5.0, **keywords}
    return KnownFiles([KNOWN], remedy="do this instead", mirrors=mirrors, **keywords)


def refusal(action, exit_code, *parts):
    with pytest.raises(DataError) as caught:
        action()
    line = str(caught.value)
    assert caught.value.exit_code == exit_code
    assert "\n" not in line
    for part in ("do this instead", *parts):
        assert str(part) in line


def test_download_is_kept_decoded_and_not_repeated(tmp_path, serve):
    server, told = serve(honest), []
    files = known_files(tmp_path, server)
    files.fetch(lambda done, total: told.append((done, total)))
    assert told[-1] == (len(PACKED), len(PACKED))
    assert (tmp_path / "cache" / NAME).read_bytes() == PLAIN
    assert not list((tmp_path / "cache").glob("*.gz"))
    decoded, digest = known_files(tmp_path, server).read(NAME)
    assert decoded.tobytes() == PLAIN
    assert digest == KNOWN.sha256
    assert server.asked == [None]


def test_download_resumes(tmp_path, serve):
    def breaks_off(handler, first):
        if first:
            return honest(handler, first)
        handler.begin(200, len(PACKED))
        return handler.wfile.write(PACKED[:1000])

    server = serve(breaks_off)
    known_files(tmp_path, server).fetch()
    assert server.asked == [None, "bytes=1000-"]


def test_download_goes_on_after_a_killed_one(tmp_path, serve):
    server = serve(honest)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / f"{NAME}.part.gz").write_bytes(PACKED[:700])
    known_files(tmp_path, server).fetch()
    assert server.asked == ["bytes=700-"]


@pytest.mark.parametrize("left", [PACKED, PACKED + b"more", b"x" * 900], ids=["whole", "longer", "other"])
def test_whatever_a_killed_download_left(tmp_path, serve, left):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / f"{NAME}.part.gz").write_bytes(left)
    files = known_files(tmp_path, serve(honest))
    files.fetch()
    assert files.read(NAME)[0].tobytes() == PLAIN


FETCHING = """
import sys
from pathlib import Path
import dltrain.data
from dltrain.cli import main
from dltrain.data.known_files import KnownFile, KnownFiles
known, cache, url = {!r}, Path({!r}), {!r}
files = KnownFiles([KnownFile(*known)], remedy="", cache=cache, mirrors=(url,), timeout=60)
dltrain.data.fashion_mnist = lambda *, root=None: files
sys.argv = ["dltrain", "data", "fetch"]
sys.exit(main())
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 143)])
def test_a_signal_ends_a_download_that_is_resumed_later(tmp_path, serve, number, code):
    half, sent = len(PACKED) // 2, threading.Event()

    def halting(handler, first):
        if first:
            honest(handler, first)
            return
        handler.begin(200, len(PACKED))
        handler.wfile.write(PACKED[:half])
        sent.set()
        time.sleep(1)

    server = serve(halting)
    program = FETCHING.format(dataclasses.astuple(KNOWN), str(tmp_path / "cache"), server.url)
    process = subprocess.Popen(
        [sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert sent.wait(30)
    part = tmp_path / "cache" / f"{NAME}.part.gz"
    while not part.exists():
        time.sleep(0.01)
    os.killpg(process.pid, number)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (code, "dltrain: interrupted\n")
    known_files(tmp_path, server).fetch()
    assert server.asked[-1] is None or server.asked[-1].startswith("bytes=")
    assert not part.exists()


def test_server_without_ranges_starts_over(tmp_path, serve):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / f"{NAME}.part.gz").write_bytes(b"x" * 900)
    files = known_files(tmp_path, serve(lambda handler, first: honest(handler, 0)))
    files.fetch()
    assert files.read(NAME)[0].tobytes() == PLAIN


def lies(handler, first):
    other = gzip.compress(encode(VALUES[::-1]))
    handler.begin(200, len(other))
    handler.wfile.write(other)


def page(handler, first):
    handler.begin(200, 12)
    handler.wfile.write(b"<html></html"[:12])


def endless(handler, first):
    handler.begin(200, 1 << 40)


def unannounced(handler, first):
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(b"x" * (len(PLAIN) + 1))


def stalls(handler, first):
    handler.begin(200, len(PACKED))
    handler.wfile.write(PACKED[:10])
    time.sleep(0.5)


def wrong_range(handler, first):
    handler.begin(206, 3, Content_Range="bytes 0-2/3")
    handler.wfile.write(b"abc")


def elsewhere(handler, first):
    handler.begin(302, 0, Location="http://example.invalid/")


def absent(handler, first):
    handler.send_error(404)


def silent(handler, first):
    handler.close_connection = True


BAD_SERVERS = {
    lies: "SHA-256",
    page: "gzip",
    endless: "announces",
    unannounced: "more than",
    stalls: "timed out",
    wrong_range: "another range",
    elsewhere: "not https",
    absent: "404",
    silent: "",
}


@pytest.mark.parametrize("behaviour", BAD_SERVERS, ids=lambda behaviour: behaviour.__name__)
def test_bad_server_is_said_in_one_line(tmp_path, serve, behaviour):
    if behaviour is wrong_range:
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache" / f"{NAME}.part.gz").write_bytes(b"x")
    files = known_files(tmp_path, serve(behaviour), timeout=0.1)
    refusal(files.fetch, 69, NAME, files.cache, BAD_SERVERS[behaviour])
    assert not (tmp_path / "cache" / NAME).exists()


def test_next_mirror_is_asked(tmp_path, serve):
    files = known_files(tmp_path, serve(lies), serve(honest))
    files.fetch()
    assert files.read(NAME)[0].tobytes() == PLAIN


def test_trickle_is_given_up(tmp_path, serve):
    def trickles(handler, first):
        handler.begin(200, 1000)
        for _ in range(20):
            handler.wfile.write(b"x")
            time.sleep(0.02)

    with pytest.raises(OSError, match="slower"):
        download(f"{serve(trickles).url}x", tmp_path / "x", limit=1000, timeout=0.1)


@pytest.mark.parametrize("url", ["http://example.invalid/x", "ftp://127.0.0.1/x", "file:///etc/hostname"])
def test_only_https(tmp_path, url):
    with pytest.raises(OSError, match="not https"):
        download(url, tmp_path / "x", limit=10, timeout=1.0)
    assert all(mirror.startswith("https://") and mirror.endswith("/") for mirror in MIRRORS)


def test_two_downloads_at_once_ask_once(tmp_path, serve):
    def slow(handler, first):
        time.sleep(0.1)
        honest(handler, first)

    server = serve(slow)
    threads = [threading.Thread(target=known_files(tmp_path, server).fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "cache" / NAME).read_bytes() == PLAIN
    assert server.asked == [None]


def test_cache_comes_first_then_folders(tmp_path):
    folder = tmp_path / "system"
    folder.mkdir()
    (folder / f"{NAME}.gz").write_bytes(PACKED)
    files = known_files(tmp_path, folders=[folder])
    assert files.find(NAME) == folder / f"{NAME}.gz"
    files.read(NAME)
    assert files.find(NAME) == tmp_path / "cache" / NAME
    (folder / f"{NAME}.gz").unlink()
    assert files.read(NAME)[0].tobytes() == PLAIN


DAMAGES = {
    "cut": lambda data: data[:-1],
    "altered": lambda data: data[:-1] + b"x",
    "header altered": lambda data: b"x" + data[1:],
    "empty": lambda data: b"",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_cache_is_said_and_made_again(tmp_path, damage, caplog):
    folder = tmp_path / "system"
    folder.mkdir()
    (folder / f"{NAME}.gz").write_bytes(PACKED)
    known_files(tmp_path, folders=[folder]).read(NAME)
    kept = tmp_path / "cache" / NAME
    kept.write_bytes(damage(PLAIN))
    with caplog.at_level(logging.WARNING, "dltrain"):
        assert known_files(tmp_path, folders=[folder]).read(NAME)[0].tobytes() == PLAIN
    assert caplog.text.count(str(kept)) == 1
    assert kept.read_bytes() == PLAIN


def test_damaged_cache_is_downloaded_again(tmp_path, serve, caplog):
    files = known_files(tmp_path, serve(honest))
    files.fetch()
    (tmp_path / "cache" / NAME).write_bytes(PLAIN[:-1] + b"x")
    assert files.read(NAME)[0].tobytes() == PLAIN
    assert (tmp_path / "cache" / NAME).read_bytes() == PLAIN


@pytest.mark.parametrize("where", ["folder", "mirror"])
def test_unwritable_cache_is_no_error(tmp_path, serve, where):
    (tmp_path / "file").write_text("a file where a folder is wanted")
    cache = tmp_path / "file" / "cache"
    if where == "folder":
        (tmp_path / f"{NAME}.gz").write_bytes(PACKED)
        files = known_files(tmp_path, cache=cache, folders=[tmp_path])
    else:
        files = known_files(tmp_path, serve(honest), cache=cache)
    files.fetch()
    assert files.read(NAME)[0].tobytes() == PLAIN


def test_folder_with_other_bytes_is_refused(tmp_path):
    (tmp_path / f"{NAME}.gz").write_bytes(gzip.compress(encode(VALUES[::-1])))
    files = known_files(tmp_path, cache=None, folders=[tmp_path])
    refusal(lambda: files.read(NAME), 66, tmp_path / f"{NAME}.gz", "SHA-256")


def test_given_root_is_looked_into_alone(tmp_path):
    with pytest.raises(DataError, match=f"^{tmp_path}: train-images-idx3-ubyte.gz is missing") as caught:
        fashion_mnist(root=str(tmp_path)).facts()
    assert caught.value.exit_code == 66


def test_fashion_mnist_itself(tmp_path):
    if not DEBIAN_FOLDER.is_dir():
        pytest.skip("dataset-fashion-mnist is not installed")
    dataset = fashion_mnist()
    facts = dataset.facts()
    assert not (tmp_path / "user").exists()
    parts = dataset.load()
    assert facts.num_examples == {part: len(examples.targets) for part, examples in parts.items()}
    assert parts["train"].inputs.shape == (60_000, 1, 28, 28)
    assert np.bincount(parts["test"].targets).tolist() == [1000] * 10
    again = fashion_mnist()
    assert {again.source.find(file.name).parent for file in FILES} == {tmp_path / "user/dltrain/fashion_mnist"}
    again.load()
    assert again.fingerprint() == dataset.fingerprint()
