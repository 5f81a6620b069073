"""What a run saves, and how it goes on from there."""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from torch import Tensor

from dltrain.build import Run
from dltrain.run import checkpoint, recovery
from dltrain.run.folder import RunError
from dltrain.run.record import Record
from dltrain.run.saver import Saver
from dltrain.run.silent import SilentRecord, SilentSaver
from dltrain.schedules import Plateau
from dltrain.train import Monitor
from dltrain.verbs._execution import execution, random_digests
from dltrain.verbs._position import Position

ROLLED_BACK_RATE = 0.5


class Keeper:
    """The record and the checkpoints of a run, and the state that is neither the model's nor the optimizer's.

    With the `point` of a checkpoint, all stands as it says, and what came after it is forgotten; without one, the run
    is at its beginning. `tell` hears of every checkpoint that was saved. Of several ranks the first one writes. Raises
    RunError and WriteError.
    """

    def __init__(
        self, run: Run, folder: Path, point: recovery.Point | None = None, *, tell: Callable[[str], object]
    ) -> None:
        self.run, self.folder, self.tell = run, folder, tell
        trainer = run.trainer
        leads = run.engine.ranks.leads
        saver, record = (Saver, Record) if leads else (SilentSaver, SilentRecord)
        self.saver = saver(folder, every=trainer.checkpoint_every, keep=trainer.keep, keep_every=trainer.keep_every)
        self.monitor = Monitor(trainer.monitor)
        self.position = Position()
        self.best_weights: dict[str, Tensor] | None = None
        self.initial_rates = list(run.engine.initial_rates)
        self.begun = time.perf_counter()
        self.record = record(folder, keep=point[1]["record_bytes"] if point else 0)
        self.saver.forget_after(point[1]["step"] if point else -1)
        if point:
            self.restore(point)

    @property
    def seconds(self) -> float:
        """Those spent on the run, in all of its processes, apart from what was lost."""
        return self.position.seconds + time.perf_counter() - self.begun

    def save(self) -> None:
        """Save the best weights where no checkpoint holds them, then everything. Raises WriteError.

        Not after a step that was not finite, unless such steps are skipped by wish: the last checkpoint is good.
        """
        engine = self.run.engine
        if not engine.is_finite() or (engine.has_skipped() and self.run.trainer.on_divergence != "skip"):
            return
        state = engine.state_dict()  # to which all ranks come
        engine.ranks.once(lambda: self._write(state))

    def _write(self, state: dict[str, Any]) -> None:
        step = self.position.step
        self.record.sync()
        optimizer, values = checkpoint.flatten(state["optim"])
        tensors = {"model": state["model"], "optim": {**optimizer, **state["precision"]}}
        if state["ema"] is not None:
            tensors["ema"] = state["ema"]
        if self.monitor.step != step:
            self.save_best()
        self.position.saves += 1
        rest = {"optim": values, "totals": state["totals"], **self._progress()}
        if self.saver.save(step, tensors, {**self._usage(step), **rest}):
            self.tell(f"saved {self.saver.newest}")

    def save_best(self) -> None:
        """Save the best weights, where there are any. Raises WriteError."""
        if self.best_weights is not None and self.monitor.step is not None:
            self.saver.save_best(self.monitor.step, self.best_weights, self._usage(self.monitor.step))

    def restore(self, point: recovery.Point) -> None:
        """Stand where a checkpoint says. Raises RunError where it says less than is needed."""
        try:
            self._restore(*point)
        except KeyError as error:
            raise RunError(
                f"{self.folder}: the checkpoint of step {point[1]['step']} is of another version of dltrain: "
                f"it has no {error.args[0]}"
            ) from error

    def _restore(self, tensors: recovery.Tensors, state: dict[str, Any]) -> None:
        engine_state = {
            "model": tensors["model"],
            "ema": tensors.get("ema"),
            "optim": checkpoint.unflatten(tensors["optim"], state["optim"]),
            "precision": tensors["optim"],
            "totals": state["totals"],
        }
        self.run.engine.load_state_dict(engine_state)
        if self.run.engine.splits:
            self.run.engine.set_microbatch(state["microbatch"])
        if isinstance(self.run.schedule, Plateau):
            self.run.schedule.load_state_dict(state["schedule"])
        self.position.load_state_dict(state["position"])
        self.monitor.load_state_dict(state["monitor"])
        step = self.monitor.step
        self.best_weights = None if step is None else recovery.best_weights(self.folder, step)
        self.begun = time.perf_counter()
        self._set_rates()

    def roll_back(self) -> float:
        """Return to the last checkpoint, to go on at a lower rate; returns what is left of the rate."""
        rollbacks = self.position.rollbacks + 1
        point, _ = recovery.newest(self.folder)
        if point is None:
            raise RunError(f"{self.folder}: there is no checkpoint to roll back to")
        self.restore(point)
        self.record.rewind(point[1]["record_bytes"])
        self.position.rollbacks = rollbacks
        self.run.engine.ranks.meet()
        return self._set_rates()

    def _set_rates(self) -> float:
        factor = ROLLED_BACK_RATE**self.position.rollbacks
        self.run.engine.initial_rates = [rate * factor for rate in self.initial_rates]
        return factor

    def _usage(self, step: int) -> dict[str, Any]:
        """What it takes to use the weights of a step."""
        return {
            "step": step,
            "epoch": step / len(self.run.batches["train"]),
            "best": self.monitor.best(),
            "model_facts": self.run.model_facts,
            "class_names": list(self.run.facts.class_names),
            "preprocessing": self.run.preparation.state(),
        }

    def _progress(self) -> dict[str, Any]:
        """What it takes to go on, apart from the engine's state, and to notice where something differs then."""
        schedule = self.run.schedule
        return {
            "position": {**self.position.state_dict(), "seconds": self.seconds},
            "monitor": self.monitor.state_dict(),
            "schedule": schedule.state_dict() if isinstance(schedule, Plateau) else None,
            "microbatch": self.run.engine.microbatch,
            "record_bytes": self.record.length,
            "saves": self.position.saves,
            "config": (config := OmegaConf.to_container(self.run.config)),
            "config_sha256": hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest(),
            "data_fingerprint": self.run.data_fingerprint,
            "execution": execution(self.run),
            "random": random_digests(self.run, self.position.step),
        }
