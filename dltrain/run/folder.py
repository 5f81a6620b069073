"""Run folders: made atomically, never shared by two runs."""

import difflib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class WriteError(Exception):
    """A file or folder cannot be written: no right, no room."""

    exit_code = 74


@contextmanager
def writing(path: Path, *, needed: int | None = None) -> Iterator[None]:
    """Word an OSError: raises WriteError that names the path, the bytes `needed`, where told, and those free."""
    try:
        yield
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or error} ({_room(path, needed)})") from error


def _room(path: Path, needed: int | None) -> str:
    existing = next(parent for parent in path.resolve().parents if parent.is_dir())
    free = f"{shutil.disk_usage(existing).free:,} bytes free"
    return free if needed is None else f"{needed:,} bytes needed, {free}"


class RunError(Exception):
    """A run folder is missing, damaged or not fit for what was asked."""

    def __init__(self, message: str, *, exit_code: int = 66) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def default_name(model: str, optim: str) -> str:
    """DATE-TIME-MODEL-OPTIM."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{model}-{optim}"


def create(parent: Path, name: str, fill: Callable[[Path], None], *, numbered: bool) -> Path:
    """Make the folder `parent/name` with what `fill` writes into it, by one rename.

    Where the name is taken, `numbered` tries name-2, name-3, ...; otherwise FileExistsError. Raises WriteError.
    """
    with writing(parent):
        parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=parent))
    try:
        with writing(parent):
            draft.chmod(0o755)
            fill(draft)
        assert any(draft.iterdir()), "an empty folder would be replaced by the next one of its name"
        return _publish(draft, parent / name, numbered=numbered)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _publish(draft: Path, wanted: Path, *, numbered: bool) -> Path:
    """Rename onto a name nobody has: a rename never replaces a folder that holds something."""
    number = 1
    while True:
        target = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            if not target.exists():
                draft.rename(target)
                return target
        except OSError as error:
            if not target.exists():
                raise WriteError(f"cannot write {target}: {error.strerror or error}") from error
        if not numbered:
            raise FileExistsError(str(target))
        number += 1


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of it.

    Raises WriteError, and ValueError for a NaN or Inf.
    """
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    with replacing(path, needed=len(text)) as draft:
        draft.write_text(text)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None where there is none, or a damaged one."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


@contextmanager
def replacing(path: Path, *, needed: int | None = None) -> Iterator[Path]:
    """A draft to write that takes a file's place once it is on the disk. Raises WriteError, leaving no draft."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with writing(path, needed=needed):
        try:
            yield draft
            with draft.open("rb") as file:
                os.fsync(file.fileno())
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


def find(name: str | Path, outputs_dir: str | Path = "outputs") -> Path:
    """The run folder of a path, or of a name below the outputs directory. Raises RunError."""
    outputs = Path(outputs_dir)
    for folder in (Path(name), outputs / "runs" / name, outputs / "sweeps" / name):
        if (folder / "config.yaml").is_file():
            return folder
    for folder in (Path(name), outputs / "sweeps" / name):
        if (folder / "sweep.jsonl").is_file():
            raise RunError(f"{folder} is a sweep: name one of its jobs, such as {name}/0", exit_code=78)
        if folder.name.isdigit() and (folder.parent / "sweep.jsonl").is_file():
            raise RunError(f"{folder} is no run: that job was refused or has not begun, or there is none", exit_code=78)
    for folder in (Path(name), outputs / "runs" / name):
        if (folder / "summary.json").is_file():
            raise RunError(f"{folder} is damaged: its config.yaml is missing")
    where = f"{outputs / 'runs'} or {outputs / 'sweeps'}"
    known = [path.name for kind in ("runs", "sweeps") for path in (outputs / kind).glob("[!.]*")]
    near = difflib.get_close_matches(str(name), known, n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise RunError(f"no run {str(name)!r}: neither a run folder nor a name below {where}{hint}", exit_code=78)
