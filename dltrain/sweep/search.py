"""Optuna's search: what it is asked and told. Source: Akiba et al. 2019, Optuna, KDD.

A study may be worked on by several processes and machines; each has a sweep folder of its own.
"""

import contextlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from dltrain.config.compose import parse
from dltrain.config.errors import ConfigError

LOST = "lost"  # marks a trial that ended with its process, before its job was recorded
MINUTES_WAITED = 1.0  # for a database that another process writes to


class Search:
    """The trials of a study, of which this sweep has asked for some."""

    def __init__(self, words: Sequence[str], config: Any, folder: Path, *, identity: str = "") -> None:
        """`identity` tells this sweep's trials from others'.

        Raises ConfigError where optuna is missing, there is nothing to choose, or the study is about something else.
        """
        optuna: Any = _optuna()
        samplers = optuna.samplers
        parsed = [parse(text) for text in words]
        self.fixed = [text for text, word in zip(words, parsed, strict=True) if not word.is_sweep_override()]
        self.space = {word.key_or_group: distribution(word) for word in parsed if word.is_sweep_override()}
        if not self.space:
            raise ConfigError("a search needs something to choose, such as optim.lr='tag(log,interval(1e-4,1))'")
        self.most, self.sweep = config.sweep.trials, identity
        self.study = optuna.create_study(
            study_name=config.sweep.study or "sweep",
            storage=_storage(config.sweep.storage or f"sqlite:///{folder.resolve() / 'study.db'}"),
            direction="minimize" if config.trainer.monitor.endswith("loss") else "maximize",
            load_if_exists=True,
            pruner=_pruner(config.sweep.pruner),
        )
        self._agree("trainer.monitor", config.trainer.monitor)
        self._agree("what is chosen", ", ".join(sorted(f"{key}: {each}" for key, each in self.space.items())))
        seed = zlib.crc32(f"{config.seed} {folder.name} {len(self.study.trials)}".encode())
        kind = samplers.TPESampler if config.sweep.sampler == "tpe" else samplers.RandomSampler
        self.study.sampler = kind(seed=seed)
        self.grid = config.sweep.sampler == "grid"
        if self.grid:  # optuna's own sampler of grids ends a study, which only works within its own loop
            for values in product(*(_values(key, each) for key, each in self.space.items())):
                self.study.enqueue_trial(dict(zip(self.space, values, strict=True)), skip_if_exists=True)
        self.reported: dict[int, int] = {}

    def _agree(self, what: str, value: str) -> None:
        """Refuse a study that others have begun with something else."""
        known = self.study.user_attrs.get(what, value)
        if known != value:
            raise ConfigError(f"{what} is {value}, and was {known} where the study {self.study.study_name!r} began")
        self.study.set_user_attr(what, value)

    def left(self) -> int:
        """How many trials the study still wants."""
        from optuna.trial import TrialState

        trials = [trial for trial in self.study.trials if LOST not in trial.user_attrs]
        waiting: int = sum(trial.state == TrialState.WAITING for trial in trials)
        left = max(0, int(self.most) - len(trials) + waiting)
        return min(left, waiting) if self.grid else left

    def ask(self) -> Iterator[tuple[int, list[str]]]:
        """Number and overrides of the next trial, as long as the study wants more."""
        while self.left():
            trial = self.study.ask(self.space)
            trial.set_user_attr("sweep", self.sweep)
            yield trial.number, [*self.fixed, *(f"{key}={value}" for key, value in trial.params.items())]

    def tell(self, number: int, value: float | None, *, pruned: bool = False) -> None:
        """A trial has ended: with the best value it had, or without one."""
        from optuna.trial import TrialState

        if self.study.trials[number].state != TrialState.RUNNING:
            return  # told before the sweep was killed
        if pruned:
            self.study.tell(number, state=TrialState.PRUNED)
        elif value is None:
            self.study.tell(number, state=TrialState.FAIL)
        else:
            self.study.tell(number, value)

    def forget_lost(self, known: Sequence[int | None]) -> None:
        """End the trials that this sweep asked for and has no job of."""
        from optuna.trial import TrialState

        for trial in self.study.trials:
            ours = trial.user_attrs.get("sweep") == self.sweep
            if ours and trial.state == TrialState.RUNNING and trial.number not in known:
                optuna_trial = _optuna().trial.Trial(self.study, trial._trial_id)
                optuna_trial.set_user_attr(LOST, True)
                self.study.tell(trial.number, state=TrialState.FAIL)

    def should_prune(self, number: int, rows: Sequence[Mapping[str, Any]], monitor: str) -> bool:
        """Report the validation rows of a trial under way; whether it had better end."""
        split, _, metric = monitor.partition("_")
        values = [row[metric] for row in rows if row["split"] == split and row.get(metric) is not None]
        if len(values) == self.reported.get(number, 0):
            return False
        known = self.study.trials[number]
        trial, done = _optuna().trial.Trial(self.study, known._trial_id), len(known.intermediate_values)
        for step, value in enumerate(values[done:], start=done + 1):
            with contextlib.suppress(RuntimeError):  # of a trial that was told meanwhile
                trial.report(value, step)
        self.reported[number] = len(values)
        return bool(trial.should_prune())


def distribution(word: Override) -> Any:
    """What optuna chooses from, for an override with Hydra's interval, range, choice or a list of values.

    `int(interval(...))` are whole numbers, `tag(log,interval(...))` are spread evenly over their logarithms.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value: Any = word.value()
    with _worded(word.key_or_group):
        if isinstance(value, IntervalSweep):
            kind: Any = IntDistribution if isinstance(value.start, int) else FloatDistribution
            return kind(value.start, value.end, log="log" in value.tags)
        texts = [str(each) for each in word.sweep_string_iterator()]
        if not isinstance(value, RangeSweep) or len(texts) == 1:
            return CategoricalDistribution(texts)
        number = float if any("." in text or "e" in text for text in texts) else int
        kind = FloatDistribution if number is float else IntDistribution
        ends = sorted(map(number, (texts[0], texts[-1])))
        return kind(*ends, step=abs(number(value.step)))


@contextlib.contextmanager
def _worded(key: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"{key}: {' '.join(str(error).split())}") from error


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ConfigError("hydra/sweeper=optuna needs optuna: pip install 'dltrain[optuna]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _storage(text: str) -> Any:
    """A journal is a file that several machines may append to; a database is one of SQLAlchemy's."""
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    kind, _, rest = text.partition(":")
    if not (kind == "journal" and rest) and "://" not in text:
        raise ConfigError(f"sweep.storage={text}: must be such as sqlite:///study.db or journal:study.log")
    try:
        if kind == "journal":
            return JournalStorage(JournalFileBackend(rest))
        return RDBStorage(text, engine_kwargs={"connect_args": {"timeout": 60 * MINUTES_WAITED}})
    except Exception as error:
        raise ConfigError(f"sweep.storage={text}: {str(error).splitlines()[0]}") from error


def _values(key: str, each: Any) -> list[Any]:
    """All values of a distribution that has a list of them."""
    if hasattr(each, "choices"):
        return list(each.choices)
    if each.step is None or each.log:
        raise ConfigError(f"{key}: sweep.sampler=grid needs values or a range, not an interval")
    count = round((each.high - each.low) / each.step) + 1
    return [each.low + place * each.step for place in range(count)]


def _pruner(name: str) -> Any:
    from optuna import pruners

    kinds = {
        "none": pruners.NopPruner,
        "median": lambda: pruners.MedianPruner(n_startup_trials=4),
        "asha": pruners.SuccessiveHalvingPruner,
    }
    return kinds[name]()
