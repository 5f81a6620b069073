"""Check a new model: can it learn one batch by heart? Exit 70 if not: `dltrain overfit [OVERRIDES] [--steps N]`."""

import argparse
from dataclasses import asdict

from dltrain.verbs import _trial_words

STEPS, FEWEST, BATCH_SIZE = 2000, 5, 16


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The most steps to take."""
    _trial_words.add_flags(parser, steps=STEPS)


def main(words: list[str], flags: argparse.Namespace) -> int:
    """Train on one batch of the training part, plainly, and say whether it is known in the end, or why not."""
    composition = _trial_words.composed(words, flags, verb="overfit", least=FEWEST)

    from dltrain.run.folder import write_json
    from dltrain.verbs._overfit import PLAIN, overfit, said
    from dltrain.verbs._trial import FAILED, changed, trial

    config = composition.config
    small = {"trainer.max_batch_size": config.trainer.max_batch_size or BATCH_SIZE}
    composition, replaced = changed(composition, {**PLAIN, **small})
    with trial(composition, verb="overfit") as test:
        if replaced:
            test.console.say(f"off for this check: {', '.join(replaced)}")
        outcome = overfit(test, steps=flags.steps)
        write_json(test.folder / "overfit.json", {"passed": outcome.passed, **asdict(outcome)})
        for line in said(outcome):
            test.console.say(line)
        test.console.say(f"folder  {test.folder}")
    return 0 if outcome.passed else FAILED
