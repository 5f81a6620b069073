"""A model in one safetensors file: weights, and in its metadata all that is needed to make and feed it again."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from dltrain.run.folder import RunError

VERSION = "1"
KEYS = ("model", "model_facts", "class_names", "preprocessing", "data", "checkpoint")


def pack(tensors: Mapping[str, Any], about: Mapping[str, Any]) -> bytes:
    """The file's bytes; `about` has plain values under all of `KEYS`, each of which becomes JSON of its own."""
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    metadata = {key: json.dumps(about[key], allow_nan=False) for key in KEYS}
    packed: bytes = save(own, {"format": "pt", "dltrain_export": VERSION, **metadata, "sha256": _digest(own, metadata)})
    return packed


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors by name and what `pack` was told. Raises RunError (66) unless every bit is as it was written."""
    try:
        with safe_open(path, "pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            tensors: dict[str, Any] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path} is no safetensors file that can be read: {error}") from error
    if metadata.get("dltrain_export") != VERSION:
        found = metadata.get("dltrain_export", "none")
        raise RunError(f"{path} is no export of format version {VERSION}: its dltrain_export is {found!r}")
    texts = {key: metadata.get(key, "") for key in KEYS}
    if metadata.get("sha256") != _digest(tensors, texts):
        raise RunError(f"{path} is damaged: the SHA-256 of its weights and metadata differs")
    return tensors, {key: json.loads(text) for key, text in texts.items()}


def _digest(tensors: Mapping[str, Any], texts: Mapping[str, str]) -> str:
    """SHA-256 (hex) over the texts, and the name, type, shape and bytes of every tensor, sorted by name."""
    digest = hashlib.sha256("\0".join(texts[key] for key in KEYS).encode())
    for name, tensor in sorted(tensors.items()):
        values = tensor.numpy()
        digest.update(f"\0{name} {values.dtype.str} {values.shape}\0".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
