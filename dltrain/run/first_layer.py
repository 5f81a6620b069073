"""The weights of a run that see its images: read by themselves, without torch."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from dltrain.run.folder import RunError

CHECKPOINT = re.compile(r"step-\d+")


def first_layer(folder: Path) -> tuple[str, int, np.ndarray] | None:
    """The name of the first layer's weights over images, the step, and the weights float32 (units, channels, h, w).

    Of the best weights where there are such, else the newest; the averaged ones where there are such. None where there
    is no checkpoint yet, or the inputs are no images. Raises RunError (66) where they cannot be read.
    """
    checkpoint = _newest(folder / "checkpoints")
    if checkpoint is None:
        return None
    path = next((p for name in ("ema", "model") if (p := checkpoint / f"{name}.safetensors").is_file()), checkpoint)
    try:
        facts = json.loads((checkpoint / "state.json").read_text())["model_facts"]
        shape = [int(size) for size in facts["input_shape"]]
        with safe_open(path, "np") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
            name = _first(shapes, shape) if len(shape) == 3 else None
            if name is None:
                return None
            weights = np.asarray(file.get_tensor(name), np.float32)
    except (OSError, ValueError, LookupError, TypeError, SafetensorError) as error:
        raise RunError(f"{checkpoint} cannot be read: {' '.join(str(error).split())}") from error
    return (
        name,
        int(checkpoint.name[5:]),
        weights.reshape(len(weights), *(weights.shape[1:] if weights.ndim == 4 else shape)),
    )


def _newest(parent: Path) -> Path | None:
    """The checkpoint that the hints name, the best first; else the one of the highest step."""
    hints = [(parent / hint).read_text().strip() for hint in ("best", "latest") if (parent / hint).is_file()]
    named = [name for name in hints if CHECKPOINT.fullmatch(name) and (parent / name).is_dir()]
    there = sorted(path.name for path in parent.glob("step-*") if CHECKPOINT.fullmatch(path.name))
    return parent / [*reversed(there), *reversed(named)][-1] if named or there else None


def _first(shapes: Mapping[str, Any], inputs: list[int]) -> str | None:
    """Of a convolution over the input's channels, else of a linear layer over its pixels, the first by name."""
    over_channels = [name for name, size in shapes.items() if len(size) == 4 and size[1] == inputs[0] and size[2] > 1]
    over_pixels = [name for name, size in shapes.items() if len(size) == 2 and size[1] == math.prod(inputs)]
    return min(over_channels or over_pixels, key=_in_order, default=None)


def _in_order(name: str) -> list[tuple[int, str]]:
    """Numbers within names in their order."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
