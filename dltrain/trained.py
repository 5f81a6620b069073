"""`dltrain.load(RUN)`: a finished run in Python, from its folder alone."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from dltrain import initializers, models
from dltrain.components import make
from dltrain.data.preparation import Pixels, Preparation, Tokens, restored
from dltrain.run import checkpoint as saved
from dltrain.run import exported
from dltrain.run.folder import find
from dltrain.run.record import Row, read_rows
from dltrain.run.weights import chosen, evaluated

COLDEST = 1e-6  # temperature below which logits would overflow; 0 is apart


@dataclass(repr=False)
class Trained:
    """A trained model with what is needed to use it."""

    model: nn.Module
    config: DictConfig
    rows: list[Row]
    class_names: list[str]
    preparation: Preparation
    facts: dict[str, Any]
    checkpoint: dict[str, Any]  # its `step`, and whether the weights are `averaged` ones

    def __repr__(self) -> str:
        classes = f", classes {', '.join(self.class_names)}" if self.class_names else ""
        return f"<{self.config.model.name}, trained: {len(self.rows)} rows{classes}>"

    @torch.inference_mode()
    def predict(self, inputs: Tensor | np.ndarray) -> Tensor:
        """What the model makes of inputs that are as the data set's were.

        Images are uint8 (N, H, W) or (N, C, H, W) of any size, vectors (N, features). Where there are classes these
        are probabilities (N, classes), else numbers (N, outputs) in the unit of the data set's targets. Texts are
        tokens int64 (N, T) of any length, by their places in `class_names`, the vocabulary, and lead to probabilities
        (N, vocabulary, T) of each next one.
        Raises ValueError for inputs of another type, shape or number of channels.
        """
        outputs = self.outputs(inputs)
        return outputs.softmax(1) if self.class_names else outputs

    @torch.inference_mode()
    def outputs(self, inputs: Tensor | np.ndarray) -> Tensor:
        """The same before the softmax: logits (N, classes) or, of texts, (N, vocabulary, T), or numbers."""
        kinds = {Pixels: self._pixels, Tokens: self._tokens}
        stored = kinds.get(type(self.preparation), self._vectors)(inputs)
        outputs = torch.cat([self.model(self.preparation.inputs(part)) for part in stored.split(256)])
        return self.preparation.outputs(outputs)

    @torch.inference_mode()
    def generate(self, prompt: str, *, length: int = 100, temperature: float = 1.0, seed: int = 0) -> str:
        """The prompt and `length` more tokens, each drawn from what the model makes of the window before it.

        A temperature below 1 favours the likely tokens; 0 always takes the likeliest. The text is a function of the
        arguments. Raises ValueError where no text was learned, and for tokens that are not in the vocabulary.
        """
        if not isinstance(self.preparation, Tokens):
            raise ValueError(f"{self.config.model.name} on {self.config.data.name} has learned no text")
        if length < 0 or not (temperature == 0 or COLDEST <= temperature < math.inf):
            raise ValueError(f"length and temperature must be 0 or more, not {length} and {temperature}")
        if not 0 <= seed < 2**63:
            raise ValueError(f"seed must be from 0 to 2^63 - 1, not {seed}")
        (window,) = self.facts["input_shape"]
        numbers = self._numbers(self.preparation.split(prompt))
        generator = torch.Generator().manual_seed(seed)
        for _ in range(length):
            logits = self.model(torch.tensor([numbers[-window:]]))[0, :, -1]
            numbers.append(_drawn(logits, temperature, generator))
        return self.preparation.join([self.class_names[number] for number in numbers])

    def _numbers(self, tokens: list[str]) -> list[int]:
        """The places of tokens in the vocabulary."""
        places = {token: place for place, token in enumerate(self.class_names)}
        if unknown := [token for token in dict.fromkeys(tokens) if token not in places]:
            known = ", ".join(map(repr, self.class_names[:40])) + (", ..." if len(self.class_names) > 40 else "")
            raise ValueError(f"the training text has no {' or '.join(map(repr, unknown))}; it has {known}")
        if not tokens:
            raise ValueError("the prompt is empty, and there must be something to go on from")
        return [places[token] for token in tokens]

    def _tokens(self, inputs: Tensor | np.ndarray) -> Tensor:
        tokens = torch.as_tensor(inputs)
        if tokens.ndim != 2 or tokens.dtype != torch.int64:
            raise ValueError(f"tokens must be int64 (N, T), not {tokens.dtype} {tuple(tokens.shape)}")
        return tokens

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


def load(run: str | Path, *, outputs_dir: str | Path = "outputs", checkpoint: str = "best") -> Trained:
    """The model of a run folder, of a name below `outputs_dir`, or of a safetensors file that `dltrain export` wrote.

    A run has the weights of its best step where there is one, `checkpoint` being best, last or a step's number; a file
    has its own, and no rows.
    Raises RunError where there is no such run, or where no checkpoint or not the file verifies.
    """
    if Path(run).suffix == ".safetensors" and Path(run).is_file():
        return of_file(Path(run))
    folder = find(run, outputs_dir)
    groups, state = saved.load(chosen(folder, checkpoint))
    config = OmegaConf.load(folder / "config.yaml")
    assert isinstance(config, DictConfig)
    weights = {"step": state["step"], "averaged": "ema" in groups}
    return _made(config, evaluated(groups), {**state, "checkpoint": weights}, rows=read_rows(folder))


def of_file(path: Path) -> Trained:
    """The model of an exported safetensors file. Raises RunError."""
    tensors, about = exported.read(path)
    return _made(OmegaConf.create({key: about[key] for key in ("model", "data")}), tensors, about, rows=[])


def _made(config: DictConfig, tensors: dict[str, Tensor], about: dict[str, Any], *, rows: list[Row]) -> Trained:
    model: nn.Module = make(models, config.model, **about["model_facts"])
    model.load_state_dict(tensors)
    initializers.freeze(model, OmegaConf.select(config, "init.freeze", default=[]))  # older runs froze nothing
    return Trained(
        model=model.eval(),
        config=config,
        rows=rows,
        class_names=about["class_names"],
        preparation=restored(about["preprocessing"]),
        facts=about["model_facts"],
        checkpoint=about["checkpoint"],
    )


def _drawn(logits: Tensor, temperature: float, generator: torch.Generator) -> int:
    """The number of a token, by logits (vocabulary,)."""
    if temperature == 0:
        return int(logits.argmax())
    return int(torch.multinomial((logits.double() / temperature).softmax(0), 1, generator=generator))
