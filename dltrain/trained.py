"""`dltrain.load(RUN)`: a finished run in Python, from its folder alone."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from dltrain import models
from dltrain.components import make
from dltrain.data.batches import Batches
from dltrain.run import checkpoint
from dltrain.run.folder import RunError, find
from dltrain.run.record import Row, read_rows


@dataclass(repr=False)
class Trained:
    """A trained model with what is needed to use it."""

    model: nn.Module
    config: DictConfig
    rows: list[Row]
    class_names: list[str]
    preprocessing: dict[str, Any]
    in_channels: int

    def __repr__(self) -> str:
        return f"<{self.config.model.name}, trained: {len(self.rows)} rows, classes {', '.join(self.class_names)}>"

    @torch.inference_mode()
    def predict(self, images: Tensor | np.ndarray) -> Tensor:
        """Probabilities (N, classes) of images uint8 (N, H, W) or (N, C, H, W) of any size.

        Raises ValueError for images of another type, shape or number of channels.
        """
        pixels = torch.as_tensor(images)
        pixels = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels
        if pixels.ndim != 4 or pixels.dtype != torch.uint8:
            raise ValueError(
                f"images must be uint8 (N, H, W) or (N, C, H, W), not {pixels.dtype} {tuple(pixels.shape)}"
            )
        if pixels.shape[1] != self.in_channels:
            raise ValueError(f"images must have {self.in_channels} channels, not {pixels.shape[1]}")
        batches = Batches(
            pixels,
            torch.zeros(len(pixels), dtype=torch.int64),
            batch_size=256,
            image_size=self.preprocessing["image_size"],
            mean=torch.tensor(self.preprocessing["mean"]),
            deviation=torch.tensor(self.preprocessing["deviation"]),
        )
        return torch.cat([self.model(inputs).softmax(1) for inputs, _ in batches.epoch(0)])


def load(run: str | Path, *, outputs_dir: str | Path = "outputs") -> Trained:
    """The model of a run folder, or of a name below `outputs_dir`, with its best weights where there are best ones.

    Raises RunError where there is no such run, or where no checkpoint of it verifies.
    """
    folder = find(run, outputs_dir)
    path = _chosen(folder / "checkpoints")
    tensors, state = checkpoint.load(path)
    config = OmegaConf.load(folder / "config.yaml")
    assert isinstance(config, DictConfig)
    model: nn.Module = make(models, config.model, **state["model_facts"])
    model.load_state_dict(tensors.get("ema", tensors["model"]))
    return Trained(
        model=model.eval(),
        config=config,
        rows=read_rows(folder),
        class_names=state["class_names"],
        preprocessing=state["preprocessing"],
        in_channels=state["model_facts"]["in_channels"],
    )


def _chosen(parent: Path) -> Path:
    """The checkpoint of the best step, else the newest, of those that verify."""
    sound = [path for path in reversed(checkpoint.steps(parent)) if checkpoint.is_sound(path)]
    if not sound:
        raise RunError(f"{parent} holds no checkpoint that verifies")
    best = json.loads((sound[0] / "state.json").read_text())["best"]
    named = parent / checkpoint.folder_name(best["step"]) if best else sound[0]
    return named if named in sound else sound[0]
