"""Optuna's search: what it is asked and told. Source: Akiba et al. 2019, Optuna, KDD.

A study may be worked on by several processes and machines; each has a sweep folder of its own.
"""

import contextlib
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dltrain.config.compose import parse
from dltrain.config.errors import ConfigError
from dltrain.sweep.space import combinations, distribution, size

LOST = "lost"  # marks a trial that nobody is at any more
SAME = "same as"  # marks one that was told the result of another
ALIVE_SECONDS, LOST_SECONDS = 60.0, 600.0  # a sweep says that it is alive so often; silent so long, it is not
MINUTES_WAITED = 1.0  # for a database that another process writes to


class Search:
    """The trials of a study, of which this sweep has asked for some."""

    def __init__(self, words: Sequence[str], config: Any) -> None:
        """Open a study that is shared. `begin` comes next.

        Raises ConfigError where optuna is missing, there is nothing to choose, or the study is about something else.
        """
        _optuna()
        parsed = [parse(text) for text in words]
        self.fixed = [text for text, word in zip(words, parsed, strict=True) if not word.is_sweep_override()]
        self.space = {word.key_or_group: distribution(word) for word in parsed if word.is_sweep_override()}
        if not self.space:
            raise ConfigError("a search needs something to choose, such as optim.lr='tag(log,interval(1e-4,1))'")
        self.config, self.most, self.shared = config, config.sweep.trials, config.sweep.storage is not None
        self.grid = list(combinations(self.space)) if config.sweep.sampler == "grid" else []
        self.study: Any = self._open(config.sweep.storage) if self.shared else None
        self.sweep, self.ours, self.reported = "", set[int](), dict[int, int]()
        self.twins: dict[int, list[int]] = {}
        self.alive_at = -ALIVE_SECONDS

    def begin(self, folder: Path, *, identity: str = "", jobs: Iterable[int | None] = ()) -> None:
        """Work for the sweep in a folder, which has jobs for some trials; `identity` tells its trials from others'."""
        self.study = self.study or self._open(f"sqlite:///{folder.resolve() / 'study.db'}")
        self.sweep, self.ours = identity, {number for number in jobs if number is not None}
        seed = zlib.crc32(f"{self.config.seed} {folder.name} {len(self.study.trials)}".encode())
        samplers = _optuna().samplers
        kind = samplers.TPESampler if self.config.sweep.sampler == "tpe" else samplers.RandomSampler
        self.study.sampler = kind(seed=seed)
        self.show_life()
        for values in self.grid:  # optuna's own sampler of grids ends a study, which only works within its own loop
            self.study.enqueue_trial(values, skip_if_exists=True)

    def _open(self, storage: str) -> Any:
        study = _optuna().create_study(
            study_name=self.config.sweep.study or "sweep",
            storage=_storage(storage),
            direction="minimize" if self.config.trainer.monitor.endswith("loss") else "maximize",
            load_if_exists=True,
            pruner=_pruner(self.config.sweep.pruner),
        )
        _agree(study, "trainer.monitor", self.config.trainer.monitor)
        _agree(study, "what is chosen", ", ".join(sorted(f"{key}: {each}" for key, each in self.space.items())))
        return study

    def _trials(self) -> list[Any]:
        """Those that count."""
        trials = self.study.get_trials(deepcopy=False)
        return [trial for trial in trials if LOST not in trial.user_attrs]

    def left(self) -> int:
        """How many trials the study still wants."""
        from optuna.trial import TrialState

        self._give_up_lost()
        trials = self._trials()
        waiting: int = sum(trial.state == TrialState.WAITING for trial in trials)
        left = max(0, int(self.most) - len(trials) + waiting)
        return min(left, waiting if self.grid else self._untried(trials))

    def _untried(self, trials: Sequence[Any]) -> int:
        """How many combinations no trial has had; many where there is no end of them."""
        return size(self.space) - len({tuple(map(trial.params.get, self.space)) for trial in trials if trial.params})

    @property
    def repeated(self) -> int:
        """How many trials have the result of another one."""
        return sum(SAME in trial.user_attrs for trial in self._trials())

    @property
    def total(self) -> int:
        """How many trials are to run, at most: each combination once."""
        return min(int(self.most) - self.repeated, size(self.space))

    @property
    def elsewhere(self) -> int:
        """How many trials other sweeps have run, or run."""
        return sum(trial.number not in self.ours and SAME not in trial.user_attrs for trial in self._trials())

    @property
    def is_exhausted(self) -> bool:
        """Whether the study ends before it has its trials, since each combination had one."""
        return len(self._trials()) < int(self.most) and self.left() == 0

    def ask(self) -> Iterator[tuple[int, list[str]]]:
        """Number and overrides of the next trial, as long as the study wants more."""
        while self.left():
            trial = self.study.ask(self.space)
            self.ours.add(trial.number)
            trial.set_user_attr("sweep", self.sweep)
            yield trial.number, [*self.fixed, *(f"{key}={value}" for key, value in trial.params.items())]

    def same_as(self, number: int, key: str) -> int | None:
        """The earlier trial with the same configuration, by its key, whose result a trial gets now or when it ends."""
        from optuna.trial import TrialState

        self._trial(number).set_user_attr("key", key)
        for other in self._trials():
            done = other.state in (TrialState.COMPLETE, TrialState.PRUNED)
            ours = other.state == TrialState.RUNNING and other.number in self.ours
            if other.number != number and other.user_attrs.get("key") == key and (done or ours):
                self._trial(number).set_user_attr(SAME, other.number)
                self.twins.setdefault(other.number, []).append(number)
                if done:
                    self._tell_twins(other.number, other.value, other.state)
                return int(other.number)
        return None

    def tell(self, number: int, value: float | None, *, pruned: bool = False) -> None:
        """A trial has ended: with the best value it had, or without one."""
        from optuna.trial import TrialState

        state = TrialState.PRUNED if pruned else TrialState.FAIL if value is None else TrialState.COMPLETE
        # It may have been told before the sweep was killed, or have been given up meanwhile.
        self.study.tell(number, value if state == TrialState.COMPLETE else None, state=state, skip_if_finished=True)
        self._tell_twins(number, value, state)

    def _tell_twins(self, number: int, value: float | None, state: Any) -> None:
        for twin in self.twins.pop(number, []):
            self.tell(twin, value, pruned=state.name == "PRUNED")

    def show_life(self) -> None:
        """Let others of a shared study know that this sweep is alive."""
        if self.shared and time.monotonic() - self.alive_at >= ALIVE_SECONDS:
            self.alive_at = time.monotonic()
            self.study.set_user_attr(f"alive {self.sweep}", time.time())

    def _give_up_lost(self) -> None:
        """End the trials that nobody is at, so that they count no longer."""
        from optuna.trial import TrialState

        for trial in self._trials():
            if trial.state == TrialState.RUNNING and self._is_lost(trial):
                with contextlib.suppress(RuntimeError):  # it was told just now
                    self._trial(trial.number).set_user_attr(LOST, True)
                    self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)

    def _is_lost(self, trial: Any) -> bool:
        """Whether a trial under way has no job here, or its sweep has not shown life for long."""
        sweep = trial.user_attrs.get("sweep")
        if sweep == self.sweep or not self.shared:
            return trial.number not in self.ours
        seen = self.study.user_attrs.get(f"alive {sweep}") or trial.datetime_start.timestamp()
        return bool(time.time() - seen > LOST_SECONDS)

    def _trial(self, number: int) -> Any:
        return _optuna().trial.Trial(self.study, self.study.get_trials(deepcopy=False)[number]._trial_id)

    def should_prune(self, number: int, rows: Sequence[Mapping[str, Any]], monitor: str) -> bool:
        """Report the validation rows of a trial under way; whether it had better end."""
        split, _, metric = monitor.partition("_")
        values = [row[metric] for row in rows if row["split"] == split and row.get(metric) is not None]
        if len(values) == self.reported.get(number, 0):
            return False
        trial, done = self._trial(number), len(self.study.trials[number].intermediate_values)
        for step, value in enumerate(values[done:], start=done + 1):
            with contextlib.suppress(RuntimeError):  # of a trial that was told meanwhile
                trial.report(value, step)
        self.reported[number] = len(values)
        return bool(trial.should_prune())


def _agree(study: Any, what: str, value: str) -> None:
    """Refuse a study that others have begun with something else."""
    known = study.user_attrs.get(what, value)
    if known != value:
        raise ConfigError(f"{what} is {value}, and was {known} where the study {study.study_name!r} began")
    study.set_user_attr(what, value)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ConfigError("hydra/sweeper=optuna needs optuna: pip install optuna") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _storage(text: str) -> Any:
    """A journal is a file that several machines may append to; a database is one of SQLAlchemy's."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    kind, _, rest = text.partition(":")
    if not (kind == "journal" and rest) and "://" not in text:
        raise ConfigError(f"sweep.storage={text}: must be such as sqlite:///study.db or journal:study.log")
    try:
        if kind == "journal":
            return JournalStorage(JournalFileBackend(rest))
        return _database(text)
    except Exception as error:
        raise ConfigError(f"sweep.storage={text}: {str(error).splitlines()[0]}") from error


def _database(url: str, *, attempts: int = 6) -> Any:
    """Open a database, whose tables other processes may be making at this moment."""
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import DBAPIError

    try:
        return RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60 * MINUTES_WAITED}})
    except DBAPIError:  # optuna makes them in several steps, and in each of them it may find itself second
        if attempts == 1:
            raise
        time.sleep(0.1)
        return _database(url, attempts=attempts - 1)


def _pruner(name: str) -> Any:
    from optuna import pruners

    kinds = {
        "none": pruners.NopPruner,
        "median": lambda: pruners.MedianPruner(n_startup_trials=4),
        "asha": pruners.SuccessiveHalvingPruner,
    }
    return kinds[name]()
