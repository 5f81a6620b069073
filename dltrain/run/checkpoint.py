"""Checkpoints: a folder a step, published by one rename and never changed after. No pickle."""

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dltrain.run import faults
from dltrain.run.folder import RunError, writing

MANIFEST = "manifest.json"


def flatten(optimizer: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's state_dict, made with named parameters, as tensors under `parameter.key` and plain values."""
    names = [name for group in optimizer["param_groups"] for name in group["param_names"]]
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}
    for index, state in optimizer["state"].items():
        for key, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"{names[index]}.{key}"] = value
            else:
                values[f"{names[index]}.{key}"] = value
    return tensors, values


def unflatten(tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> dict[str, Any]:
    """The names and the state of an optimizer's state_dict, from what `flatten` made of it."""
    entries = {key: value for key, value in {**tensors, **values}.items() if "." in key}
    names = sorted({key.rpartition(".")[0] for key in entries})
    state: dict[int, dict[str, Any]] = {index: {} for index in range(len(names))}
    for key, value in entries.items():
        name, _, short = key.rpartition(".")
        state[names.index(name)][short] = value
    return {"param_groups": [{"params": list(state), "param_names": names}], "state": state}


def save(parent: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> Path:
    """Publish `parent/step-NNNNNNNN` with one safetensors file a name in `tensors`, state.json and a manifest.

    Every file is on disk before the rename, and the rename before this returns. A checkpoint of the step that is there
    already stays, unless it is damaged. Raises WriteError, leaving no draft.
    """
    target = parent / folder_name(step)
    if not (target.exists() and is_sound(target)):
        publish(target, tensors, state)
    return target


def publish(target: Path, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
    """Make a checkpoint under its name, in place of one that is there. Raises WriteError, leaving no draft."""
    parent = target.parent
    text = json.dumps(state, indent=2, allow_nan=False) + "\n"
    with writing(target, needed=_bytes(tensors) + len(text)):
        parent.mkdir(exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=parent))
        faults.reach("save: draft")
        try:
            for name, group in tensors.items():
                _save_tensors(group, draft / f"{name}.safetensors")
                faults.reach("save: tensors")
            (draft / "state.json").write_text(text)
            (draft / MANIFEST).write_bytes(_manifest(_facts_of_all(sorted(draft.iterdir()))))
            faults.reach("save: manifest")
            for path in [*draft.iterdir(), draft]:
                path.chmod(0o755 if path is draft else 0o644)
                _fsync(path)
            faults.reach("save: synced")
            grave = _bury(target) if target.exists() else None
            draft.rename(target)
            faults.reach("save: renamed")
            _fsync(parent)
            if grave:
                shutil.rmtree(grave)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise


def verify(checkpoint: Path) -> None:
    """Compare every byte with the manifest. Raises RunError (66) naming the file that differs."""
    try:
        text = (checkpoint / MANIFEST).read_bytes()
        files = json.loads(text)["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{checkpoint / MANIFEST} is missing or damaged") from error
    if text != _manifest(files):
        raise RunError(f"{checkpoint / MANIFEST} is damaged: its own SHA-256 differs")
    present = {path.name for path in checkpoint.iterdir()} - {MANIFEST}
    if present != set(files):
        raise RunError(f"{checkpoint}: {', '.join(sorted(present ^ set(files)))} is missing or does not belong there")
    for name, expected in files.items():
        try:
            found = _facts(checkpoint / name)
        except OSError as error:
            raise RunError(f"{checkpoint / name} cannot be read: {error.strerror}") from error
        if found != expected:
            raise RunError(f"{checkpoint / name} is damaged: its size or SHA-256 differs")


def is_sound(checkpoint: Path) -> bool:
    """Whether a checkpoint verifies."""
    try:
        verify(checkpoint)
    except RunError:
        return False
    return True


def load(checkpoint: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Tensors by file name and the state of a verified checkpoint."""
    verify(checkpoint)
    tensors = {path.stem: _load_tensors(path) for path in sorted(checkpoint.glob("*.safetensors"))}
    return tensors, json.loads((checkpoint / "state.json").read_text())


def folder_name(step: int) -> str:
    """The name of a step's checkpoint."""
    return f"step-{step:08d}"


def number(checkpoint: Path) -> int:
    """The step of a checkpoint."""
    return int(checkpoint.name.removeprefix("step-"))


def steps(parent: Path) -> list[Path]:
    """The checkpoints of a run, the oldest first."""
    return sorted((path for path in parent.glob("step-*") if path.name[5:].isdigit() and path.is_dir()), key=number)


def prune(parent: Path, keep: Collection[int]) -> None:
    """Delete all checkpoints but those of the steps to keep, and what a killed run left half-done.

    Raises WriteError.
    """
    with writing(parent):
        for path in steps(parent):
            if number(path) not in keep:
                shutil.rmtree(_bury(path))
        for path in [*parent.glob(".deleted-*"), *parent.glob(".step-*")]:
            shutil.rmtree(path)


def is_weights_only(checkpoint: Path) -> bool:
    """Whether a checkpoint holds the best weights alone, from which no run can go on."""
    return not (checkpoint / "optim.safetensors").is_file()


def weights_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the raw little-endian bytes of every tensor, sorted by name."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(_raw(tensors[name]))
    return digest.hexdigest()


def _bytes(tensors: Mapping[str, Mapping[str, Tensor]]) -> int:
    """The size of tensors on disk, about."""
    return sum(tensor.nbytes for group in tensors.values() for tensor in group.values())


def _raw(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()


def _save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write contiguous tensors; one of several names only under the first of them, the others being metadata."""
    first: dict[Any, str] = {}
    aliases: dict[str, str] = {}
    for name, tensor in sorted(tensors.items()):
        place = (tensor.device, tensor.data_ptr() or name, tensor.dtype, tensor.shape, tensor.stride())
        if first.setdefault(place, name) != name:
            aliases[name] = first[place]
    try:
        save_file({name: _own(tensors[name]) for name in first.values()}, path, metadata=aliases or None)
    except SafetensorError as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        code = int(number[1]) if number else errno.EIO
        raise OSError(code, os.strerror(code) if number else str(error)) from error


def _load_tensors(path: Path) -> dict[str, Tensor]:
    with safe_open(path, "pt") as file:
        tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors | {alias: tensors[name] for alias, name in (file.metadata() or {}).items()}


def _own(tensor: Tensor) -> Tensor:
    """The tensor on the CPU, contiguous, in memory that no other shares."""
    tensor = tensor.detach().cpu().contiguous()
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


def _manifest(files: Any) -> bytes:
    """The text of a manifest, which ends with the SHA-256 of what it says."""
    own = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    return (json.dumps({"files": files, "sha256": own}, indent=2) + "\n").encode()


def _facts_of_all(paths: list[Path]) -> dict[str, Any]:
    """Size and SHA-256 by file name; hashing lets go of the interpreter, so threads share it."""
    with ThreadPoolExecutor() as pool:
        return {path.name: facts for path, facts in zip(paths, pool.map(_facts, paths), strict=True)}


def _facts(path: Path) -> dict[str, Any]:
    if not path.is_file():  # a pipe would be waited for
        raise OSError(errno.EINVAL, "it is no regular file")
    with path.open("rb") as file:
        return {"bytes": os.fstat(file.fileno()).st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _bury(path: Path) -> Path:
    """Rename a folder that must not be found half-deleted; returns what is to be deleted."""
    grave = path.with_name(f".deleted-{path.name}")
    if grave.exists():  # of a run that was killed here
        shutil.rmtree(grave)
    path.rename(grave)
    faults.reach("prune: renamed")
    return grave


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
