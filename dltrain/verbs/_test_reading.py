"""The test set, read at the end of training: its row, and evaluation-test.json beside the run."""

from dataclasses import dataclass
from pathlib import Path

from dltrain.run import looks
from dltrain.run.folder import write_json
from dltrain.train import Row
from dltrain.verbs._decisions import Decisions
from dltrain.verbs._evaluation import Outcome, Trial, score
from dltrain.verbs._evaluation_content import content
from dltrain.verbs._keeper import Keeper


@dataclass(frozen=True)
class Reading:
    """The row, and what came of every example."""

    row: Row
    trial: Trial
    outcome: Outcome

    def write(self, folder: Path) -> None:
        """Keep what `dltrain eval` would say, once the row is in the record. Raises WriteError."""
        if self.outcome.is_finite:
            found = content(self.trial, self.outcome, looks=looks.count(folder))
            write_json(folder / "evaluation-test.json", found)


def read_test(keeper: Keeper, decisions: Decisions, *, watched: bool) -> Reading:
    """Evaluate the best weights, where a validation split chose them, or else the last ones.

    A test set that was `watched` has chosen them, if anything has. Raises Interrupted once a signal is received.
    """
    run, position, best = keeper.run, keeper.position, None if watched else keeper.best_weights
    chosen, step = "last", position.step
    if best is not None and keeper.monitor.step is not None:
        run.engine.strategy.load_weights(run.engine.evaluated, best)
        chosen, step = "best", keeper.monitor.step
    averaged = run.engine.evaluated is not run.engine.model
    trial = Trial(run, run.batches["test"], "test", step, chosen, averaged, run.data_fingerprint)
    outcome = score(trial, decisions)
    row = {"split": "test", "step": position.step, "epoch": position.epoch, **outcome.row}
    return Reading(row, trial, outcome)
