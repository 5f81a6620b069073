"""Find a learning rate: `dltrain lr-find [OVERRIDES] [--from RATE] [--to RATE] [--steps N]`."""

import argparse
from typing import Any

from dltrain.config.errors import ConfigError
from dltrain.verbs import _trial_words

FIRST, LAST, STEPS, FEWEST = 1e-7, 10.0, 100, 20


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The first and the last rate, and the steps from one to the other."""
    parser.add_argument("--from", dest="first", type=float, default=FIRST, metavar="RATE", help="the first rate")
    parser.add_argument("--to", dest="last", type=float, default=LAST, metavar="RATE", help="the last rate")
    _trial_words.add_flags(parser, steps=STEPS)


def main(words: list[str], flags: argparse.Namespace) -> int:
    """Train while the rate grows by the same factor each step, until the loss runs away; suggest a rate, and say why.

    Everything else is as configured; nothing but training batches is looked at.
    """
    if not 0 < flags.first < flags.last < float("inf"):
        raise ConfigError(f"--from {flags.first:g} --to {flags.last:g}: must be rates above 0 that rise")
    composition = _trial_words.composed(words, flags, verb="lr-find", least=FEWEST)

    from dltrain.report.range_test import draw_range_test
    from dltrain.run.folder import write_json, writing
    from dltrain.run.range_test import Runaway, judge
    from dltrain.verbs._trial import trial

    _check_optimizer(composition)
    with trial(composition, verb="lr-find") as test:
        engine, runaway = test.run.engine, Runaway()
        engine.schedule = growth(flags.first, flags.last, flags.steps, base=engine.initial_rates[0])
        rows = []
        for row in test.steps(flags.steps):
            rows.append(row)
            if runaway.over(row["loss"]):
                break
        verdict = judge(rows)
        places = ("steepest", "least", "diverged", "suggestion", "reason")
        asked = {"from": flags.first, "to": flags.last, "steps": len(rows)}
        write_json(test.folder / "lr-find.json", {**asked, **{key: getattr(verdict, key) for key in places}})
        with writing(test.folder):
            picture, _ = draw_range_test(test.folder)
        for line in told(verdict, words):
            test.console.say(line)
        test.console.say(f"picture  {picture}")
    return 0


def _check_optimizer(composition: Any) -> None:
    """Refuse an optimizer that finds the length of its steps itself, before anything is made."""
    from dltrain import optim
    from dltrain.components import find
    from dltrain.engine import searches

    optimizer_class: Any = find(optim, composition.config.optim.name, "optim")
    if searches(optimizer_class):
        raise ConfigError(f"optim={composition.choices['optim']}: it searches for the length of every step itself")


def growth(first: float, last: float, steps: int, *, base: float) -> Any:
    """A schedule from the rate `first` at step 0 to `last` at the last of so many, as multiples of the rate `base`."""
    return lambda step: first / base * (last / first) ** (step / (steps - 1))


def told(verdict: Any, words: list[str]) -> list[str]:
    """The verdict and the command that uses it."""
    if verdict.suggestion is None:
        return [f"no suggestion: {verdict.reason}"]
    import shlex

    rest = [word for word in words if not word.startswith(("optim.lr=", "name="))]
    command = shlex.join(["dltrain", *rest, f"optim.lr={verdict.suggestion:g}"])
    return [f"suggestion: optim.lr={verdict.suggestion:g}", verdict.reason, f"to train with it: {command}"]
