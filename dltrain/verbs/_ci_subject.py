"""What the stages of `trainer=ci` look at, and how they say no."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from dltrain.build import Run
from dltrain.config.compose import Composition
from dltrain.data.function import FunctionFacts
from dltrain.trained import Trained, load
from dltrain.verbs._evaluation import Outcome, Trial, prepare, score

SCRATCH = ".ci"  # a folder within the run's, for as long as a stage lasts
CLOSE = {"fp64": 1e-6, "fp32": 1e-4, "bf16": 5e-2, "fp16": 1e-2}  # of outputs and losses, by precision


class CheckError(Exception):
    """What is not as it must be, in one line."""


@dataclass
class Subject:
    """The run that was just trained, in its folder."""

    folder: Path
    run: Run
    composition: Composition

    @property
    def exact(self) -> bool:
        """Whether the same computation gives the same bits."""
        return self.run.engine.device.type == "cpu" or bool(self.run.config.device.deterministic)

    @property
    def close(self) -> float:
        """How near numbers must come that are computed in another way."""
        return CLOSE[self.run.engine.precision.name]

    @cached_property
    def outcomes(self) -> dict[str, tuple[Trial, Outcome]]:
        """What the run's best weights make of its splits but train, read back from the folder alone.

        None of a function, each step of which is an evaluation.
        """
        if isinstance(self.run.facts, FunctionFacts):
            return {}
        return {split: self._outcome(split) for split in self.run.batches if split != "train"}

    @cached_property
    def trained(self) -> Trained:
        """The model read back, as its users have it."""
        return load(self.folder)

    def _outcome(self, split: str) -> tuple[Trial, Outcome]:
        trial = prepare(self.folder, split=split, which="best", data=[], device=None)
        limited = trial.run.batches[split]
        limited.prepare = trial.batches.prepare
        trial = replace(trial, batches=limited)
        return trial, score(trial)


def require(holds: bool, words: str) -> None:
    """Raise CheckError with these words where something does not hold."""
    if not holds:
        raise CheckError(words)


def near(first: float, second: float, close: float) -> bool:
    """Whether two numbers are the same but for so much, of the larger of the first one and 1."""
    return abs(first - second) <= close * max(1.0, abs(first))
