"""Checkpoints: a folder a step, published by one rename and never changed after. No pickle."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dltrain.run.folder import RunError

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


def save(parent: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> Path:
    """Publish `parent/step-NNNNNNNN` with one safetensors file a name in `tensors`, state.json and a manifest.

    Every file is on disk before the rename, and the rename before this returns. Raises OSError, leaving no draft.
    """
    target = parent / f"step-{step:08d}"
    if target.exists():
        return target
    parent.mkdir(exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=parent))
    try:
        for name, group in tensors.items():
            save_file(_unshared(group), draft / f"{name}.safetensors")
        (draft / "state.json").write_text(json.dumps(state, indent=2, allow_nan=False) + "\n")
        _write_manifest(draft)
        for path in [*draft.iterdir(), draft]:
            _fsync(path)
        draft.chmod(0o755)
        draft.rename(target)
        _fsync(parent)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return target


def verify(checkpoint: Path) -> None:
    """Compare every byte with the manifest. Raises RunError (66) naming the file that differs."""
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text())
        own = manifest.pop("sha256")
        files = manifest["files"]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise RunError(f"{checkpoint / MANIFEST} is missing or damaged") from error
    if own != _digest(json.dumps(manifest, sort_keys=True).encode()):
        raise RunError(f"{checkpoint / MANIFEST} is damaged: its own SHA-256 differs")
    present = {path.name for path in checkpoint.iterdir()} - {MANIFEST}
    if present != set(files):
        raise RunError(f"{checkpoint}: {', '.join(sorted(present ^ set(files)))} is missing or does not belong there")
    for name, expected in files.items():
        content = (checkpoint / name).read_bytes()
        if len(content) != expected["bytes"] or _digest(content) != expected["sha256"]:
            raise RunError(f"{checkpoint / name} is damaged: its size or SHA-256 differs")


def load(checkpoint: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Tensors by file name and the state of a verified checkpoint."""
    verify(checkpoint)
    tensors = {path.stem: load_file(path) for path in sorted(checkpoint.glob("*.safetensors"))}
    return tensors, json.loads((checkpoint / "state.json").read_text())


def steps(parent: Path) -> list[Path]:
    """The checkpoints of a run, the oldest first."""
    return sorted(parent.glob("step-*")) if parent.is_dir() else []


def prune(parent: Path, *, keep: int, protect: set[int]) -> None:
    """Delete all but the newest `keep` and those of the protected steps."""
    for path in steps(parent)[:-keep]:
        if int(path.name.removeprefix("step-")) not in protect:
            grave = path.with_name(f".deleted-{path.name}")
            path.rename(grave)
            shutil.rmtree(grave)


def weights_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the raw little-endian bytes of every tensor, sorted by name."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(_raw(tensors[name]))
    return digest.hexdigest()


def _raw(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()


def _unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors, one that stands under several names only once, under its first."""
    kept: dict[Any, str] = {}
    for name in sorted(tensors):
        tensor = tensors[name]
        kept.setdefault((tensor.data_ptr() or id(tensor), tensor.shape, tensor.stride()), name)
    return {name: tensors[name].detach().cpu().contiguous() for name in sorted(kept.values())}


def _write_manifest(folder: Path) -> None:
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": _digest(path.read_bytes())}
        for path in sorted(folder.iterdir())
    }
    manifest = {"files": files}
    own = _digest(json.dumps(manifest, sort_keys=True).encode())
    (folder / MANIFEST).write_text(json.dumps({**manifest, "sha256": own}, indent=2) + "\n")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
