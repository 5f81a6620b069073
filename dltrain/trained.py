"""`dltrain.load(RUN)`: a finished run in Python, from its folder alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from dltrain import initializers, models
from dltrain.components import make
from dltrain.data.preparation import Pixels, Preparation, restored
from dltrain.run import checkpoint
from dltrain.run.folder import find
from dltrain.run.record import Row, read_rows
from dltrain.run.weights import chosen, evaluated


@dataclass(repr=False)
class Trained:
    """A trained model with what is needed to use it."""

    model: nn.Module
    config: DictConfig
    rows: list[Row]
    class_names: list[str]
    preparation: Preparation
    facts: dict[str, Any]

    def __repr__(self) -> str:
        classes = f", classes {', '.join(self.class_names)}" if self.class_names else ""
        return f"<{self.config.model.name}, trained: {len(self.rows)} rows{classes}>"

    @torch.inference_mode()
    def predict(self, inputs: Tensor | np.ndarray) -> Tensor:
        """What the model makes of inputs that are as the data set's were.

        Images are uint8 (N, H, W) or (N, C, H, W) of any size, vectors (N, features). Where there are classes these
        are probabilities (N, classes), else numbers (N, outputs) in the unit of the data set's targets.
        Raises ValueError for inputs of another type, shape or number of channels.
        """
        stored = self._pixels(inputs) if isinstance(self.preparation, Pixels) else self._vectors(inputs)
        outputs = torch.cat([self.model(self.preparation.inputs(part)) for part in stored.split(256)])
        return outputs.softmax(1) if self.class_names else self.preparation.outputs(outputs)

    def _vectors(self, inputs: Tensor | np.ndarray) -> Tensor:
        vectors = torch.as_tensor(inputs, dtype=torch.float32)
        shape = tuple(self.facts["input_shape"])
        if vectors.shape[1:] != shape:
            raise ValueError(f"inputs must be (N, {', '.join(map(str, shape))}), not {tuple(vectors.shape)}")
        return vectors

    def _pixels(self, images: Tensor | np.ndarray) -> Tensor:
        pixels = torch.as_tensor(images)
        pixels = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels
        if pixels.ndim != 4 or pixels.dtype != torch.uint8:
            raise ValueError(
                f"images must be uint8 (N, H, W) or (N, C, H, W), not {pixels.dtype} {tuple(pixels.shape)}"
            )
        if pixels.shape[1] != (channels := self.facts["in_channels"]):
            raise ValueError(f"images must have {channels} channels, not {pixels.shape[1]}")
        return pixels


def load(run: str | Path, *, outputs_dir: str | Path = "outputs") -> Trained:
    """The model of a run folder, or of a name below `outputs_dir`, with its best weights where there are best ones.

    Raises RunError where there is no such run, or where no checkpoint of it verifies.
    """
    folder = find(run, outputs_dir)
    tensors, state = checkpoint.load(chosen(folder))
    config = OmegaConf.load(folder / "config.yaml")
    assert isinstance(config, DictConfig)
    model: nn.Module = make(models, config.model, **state["model_facts"])
    model.load_state_dict(evaluated(tensors))
    initializers.freeze(model, OmegaConf.select(config, "init.freeze", default=[]))  # older runs froze nothing
    return Trained(
        model=model.eval(),
        config=config,
        rows=read_rows(folder),
        class_names=state["class_names"],
        preparation=restored(state["preprocessing"]),
        facts=state["model_facts"],
    )
