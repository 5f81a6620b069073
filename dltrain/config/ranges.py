"""What a value may be, beyond its type."""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal


@dataclass(frozen=True)
class Range:
    """Bounds of a number, themselves allowed, except `above` and `below`."""

    minimum: float = float("-inf")
    maximum: float = float("inf")
    above: float = float("-inf")
    below: float = float("inf")

    def refusal(self, value: float) -> str | None:
        """Why a number is out of bounds."""
        for holds, words in (
            (value >= self.minimum, f"at least {self.minimum}"),
            (value <= self.maximum, f"at most {self.maximum}"),
            (value > self.above, f"above {self.above}"),
            (value < self.below, f"below {self.below}"),
        ):
            if not holds:
                return f"must be {words}"
        return None


@dataclass(frozen=True)
class Form:
    """What a text must look like, and how to say it."""

    pattern: str
    words: str

    def refusal(self, value: str) -> str | None:
        """Why a text has another form."""
        return None if re.fullmatch(self.pattern, value) else f"must be {self.words}"


class Steps:
    """A count of steps (int), or a fraction of all of them (float)."""

    def refusal(self, value: float) -> str | None:
        """Why a number is neither."""
        fits = value >= 0 if isinstance(value, int) else 0 <= value < 1
        return None if fits else "must be a count of steps, or a fraction below 1 of all steps"


Count = Annotated[int, Range(minimum=1)]
Positive = Annotated[float, Range(above=0)]
NotNegative = Annotated[float, Range(minimum=0)]
RunName = Annotated[
    str,
    Form(r"(?!-)[A-Za-z0-9._-]{1,80}(?<!^\.)(?<!^\.\.)", "1 to 80 letters, digits, '.', '_' or '-', the first no '-'"),
]
Interval = Annotated[
    str,
    Form(r"auto|[1-9]\d* (step|epoch|minute)s?", 'auto, or such as "500 steps", "2 epochs", "10 minutes"'),
]
Share = Annotated[float, Range(minimum=0, maximum=1)]
Decay = Annotated[float, Range(minimum=0, below=1)]
# Ranges of components' own keys, so that what is impossible is refused before torch is imported.
OWN: dict[str, Any] = {
    "model.hidden_sizes": list[Count],
    "model.dropout": Decay,
    "model.embedding": Count | Literal["one_hot"],
    "model.layers": list[Any],
    "optim.momentum": Decay,
    "optim.betas": list[Decay],
    "data.target": int | str,
    "loss.label_smoothing": Share,
    "data.num_train": Count,
    "data.num_test": Count,
    "init.std": NotNegative,
    "init.value": Annotated[float, Range(minimum=-3.4e38, maximum=3.4e38)],
    "augment.padding": Annotated[int, Range(minimum=0, maximum=1024)],
    "augment.flip_probability": Share,
    "augment.erase_probability": Share,
    "augment.mix_probability": Share,
    "augment.alpha": Positive,
}
