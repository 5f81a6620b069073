"""The formats: how a trained model becomes the bytes of a file, and how the file is run without the run."""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor

from dltrain.config import schema
from dltrain.config.errors import ConfigError
from dltrain.export.graph import program_of
from dltrain.run import exported
from dltrain.trained import Trained, of_file

Runner = Callable[[np.ndarray], np.ndarray]  # stored inputs (N, ...) to the model's outputs (N, ...)

# What torch's exporters say of themselves and of torch's own recurrent layers.
CHATTER = ("The tensor attributes? self.model.recurrent", "_check_is_size will be removed")


@dataclass(frozen=True)
class Format:
    """A kind of file; `tolerance` is the largest difference allowed, as a part of the largest output.

    `make` takes a model and stored examples, of which only the shape counts.
    """

    suffix: str
    tolerance: float
    make: Callable[[Trained, Tensor], bytes]
    runner: Callable[[Path], Runner]
    of_images_alone: bool = True
    packages: tuple[str, ...] = ()


def about(trained: Trained) -> dict[str, Any]:
    """What stands beside the weights: the model and its arguments, facts, classes, preprocessing, data."""
    model = {key: value for key, value in _plain(trained.config.model).items() if key == "name" or not _of_group(key)}
    data = {key: value for key, value in _plain(trained.config.data).items() if key in ("name", "fit")}
    return {
        "model": model,
        "model_facts": trained.facts,
        "class_names": trained.class_names,
        "preprocessing": trained.preparation.state(),
        "data": data,
        "checkpoint": trained.checkpoint,
    }


def _plain(node: Any) -> dict[str, Any]:
    return {str(key): value for key, value in OmegaConf.to_container(node).items()}  # type: ignore[union-attr]


def _of_group(key: str) -> bool:
    """Whether a key says where weights came from, and not what the model is."""
    return key in schema.keys("model")


def _safetensors(trained: Trained, example: Tensor) -> bytes:
    return exported.pack(trained.model.state_dict(), about(trained))


def _run_safetensors(path: Path) -> Runner:
    restored = of_file(path)
    return lambda inputs: restored.outputs(torch.from_numpy(inputs)).numpy()


def _torch_export(trained: Trained, example: Tensor) -> bytes:
    file = io.BytesIO()
    with _quiet():
        program = program_of(trained, example)
        torch.export.save(program, file, extra_files={"class_names.json": json.dumps(trained.class_names)})
    return file.getvalue()


def _run_torch_export(path: Path) -> Runner:
    with path.open("rb") as file, _quiet():
        model = torch.export.load(file).module()

    @torch.inference_mode()
    def run(inputs: np.ndarray) -> np.ndarray:
        logits: np.ndarray = model(torch.from_numpy(inputs)).numpy()
        return logits

    return run


def _onnx(trained: Trained, example: Tensor) -> bytes:
    with _quiet():
        program = torch.onnx.export(
            program_of(trained, example), input_names=["images"], output_names=["logits"], verbose=False
        )
    assert program is not None
    program.model.metadata_props["class_names"] = json.dumps(trained.class_names)
    return bytes(program.model_proto.SerializeToString())


def _run_onnx(path: Path) -> Runner:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3  # errors; its warnings are about its own optimizations
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])

    def run(inputs: np.ndarray) -> np.ndarray:
        (logits,) = session.run(["logits"], {"images": inputs})
        return np.asarray(logits)

    return run


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' chatter; their errors are raised as ever."""
    log = logging.getLogger("torch.export")  # which shows a traceback of what it then raises
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for words in CHATTER:
                warnings.filterwarnings("ignore", message=words)
            yield
    finally:
        log.setLevel(level)


FORMATS = {
    "safetensors": Format("safetensors", 1e-6, _safetensors, _run_safetensors, of_images_alone=False),
    "torch_export": Format("pt2", 1e-6, _torch_export, _run_torch_export),
    "onnx": Format("onnx", 1e-5, _onnx, _run_onnx, packages=("onnx", "onnxscript", "onnxruntime")),
}


def check_installed(name: str) -> None:
    """Raises ConfigError where packages that a format needs are missing."""
    if missing := [package for package in FORMATS[name].packages if find_spec(package) is None]:
        raise ConfigError(f"--format {name} needs {' and '.join(missing)}: pip install {' '.join(missing)}")
