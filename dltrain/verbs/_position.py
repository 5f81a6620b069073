"""Where a run stands, apart from what the engine holds."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from dltrain.train import Event, Row


@dataclass
class Position:
    """Plain values that JSON can hold; a checkpoint has them all, and what is to come depends on nothing else here.

    `pending` are the splits still to be evaluated at the step, `losses` those of all steps where a check of learning
    asks for them, `epoch_rows` those of an epoch's end, `lineage` says where and how the run went on after an
    interruption.
    """

    step: int = 0
    epoch: float = 0.0
    saves: int = 0
    rollbacks: int = 0
    skipped_in_epoch: int = 0
    skipped_before: int = 0
    seconds: float = 0.0
    pending: list[str] = field(default_factory=list)
    last_rows: dict[str, Row] = field(default_factory=dict)
    epoch_rows: list[Row] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    lineage: list[dict[str, Any]] = field(default_factory=list)

    def take(self, event: Event) -> None:
        """Move on to an event."""
        self.step, self.epoch, self.pending = event.step, event.epoch, list(event.pending)
        row = event.row
        if row is None:
            return
        if row["loss"] is not None:
            self.last_rows[row["split"]] = row
        if row["split"] == "train":
            self._count_skipped(row.get("nonfinite_steps", 0), epoch_ends=event.epoch == int(event.epoch))
        if event.epoch == int(event.epoch) and event.step:
            self.epoch_rows.append(row)

    def unlearned(self, batches: int) -> str | None:
        """Of so many batches that take turns, which one's loss did not fall from its first time to its last."""
        for number in range(batches):
            losses = self.losses[number::batches]
            if len(losses) < 2 or not losses[-1] < losses[0]:
                path = " -> ".join(f"{loss:.4f}" for loss in (losses[0], losses[-1]))
                return f"check failed: training did not lower the loss of batch {number + 1}: {path}"
        return None

    @property
    def skipped(self) -> int:
        """Steps so far whose loss or gradient was not finite, as far as rows tell."""
        return self.skipped_before + self.skipped_in_epoch

    def _count_skipped(self, steps: int, *, epoch_ends: bool) -> None:
        """An epoch's last train row counts those of the whole epoch, the others those since the row before."""
        if epoch_ends:
            self.skipped_before, self.skipped_in_epoch = self.skipped_before + steps, 0
        else:
            self.skipped_in_epoch += steps

    def state_dict(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Stand where a state says."""
        for each in fields(self):
            setattr(self, each.name, state[each.name])
