"""A short run of training steps alone: a row a step; nothing is evaluated, no weights are kept."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from dltrain.build import Run, build
from dltrain.config import stored
from dltrain.config.compose import Composition
from dltrain.config.errors import ConfigError
from dltrain.config.tree import container, spoken
from dltrain.engine.device import describe, threads
from dltrain.engine.step import Batch
from dltrain.models.summary import summarize
from dltrain.run.console import Console
from dltrain.run.environment import environment
from dltrain.run.folder import create, default_name, write_json
from dltrain.run.record import Record
from dltrain.train import Batches, Row, fit
from dltrain.verbs._introduction import introduce

FAILED = 70


def changed(composition: Composition, values: Mapping[str, Any]) -> tuple[Composition, list[str]]:
    """The composition with other values at the dotted keys that it has, and what these replaced, in words."""
    plain, replaced = container(composition.config), list[str]()
    for key, value in values.items():
        group, _, name = key.rpartition(".")
        node = plain[group] if group else plain
        before = node.get(name)
        if name in node and before != value:
            node[name] = value
            replaced += [f"{key}={spoken(_named(before))}"] if _named(before) not in (None, _named(value)) else []
    config = OmegaConf.create(plain)
    OmegaConf.set_readonly(config, True)
    choices = {key: value["name"] for key, value in values.items() if isinstance(value, dict)}
    return Composition(config, {**composition.choices, **choices}, composition.notes), replaced


def _named(value: Any) -> Any:
    """A choice by its name, anything else as it is."""
    return value["name"] if isinstance(value, dict) else value


class Trial:
    """Steps of a run that `fit` takes one by one, each row being in the record when it is yielded."""

    def __init__(self, run: Run, folder: Path, console: Console) -> None:
        self.run, self.folder, self.console = run, folder, console
        self.record = Record(folder)

    def steps(self, count: int) -> Iterator[Row]:
        """Train for up to so many steps, over as many epochs as that takes. Raises WriteError, at the end."""
        batches = self.run.batches["train"]
        self.console.start(steps=count)
        try:
            for event in fit(self.run.engine, OneEpoch(batches, count + 1), epochs=1, log_every=1):
                assert event.row is not None
                row = {**event.row, "epoch": event.step / len(batches)}
                self.record.add(row)
                self.console.step()
                yield row
                if event.step == count:
                    break
            self.record.write()
        finally:
            self.record.close()
            self.console.stop()


class OneEpoch:
    """So many batches of as many epochs as that takes, as one epoch: its last row alone would be of all its steps."""

    def __init__(self, batches: Batches, count: int) -> None:
        self.batches, self.count = batches, count

    def __len__(self) -> int:
        return self.count

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """One epoch of the batches after another."""
        for number in range(-(-self.count // len(self.batches))):
            yield from self.batches.epoch(number)


@contextmanager
def trial(composition: Composition, *, verb: str, notes: Sequence[str] = ()) -> Iterator[Trial]:
    """A run in a new folder below OUTPUTS/VERB, introduced on the console.

    Raises what `build` and `create` raise, and ConfigError where there is something of the chosen name.
    """
    config = composition.config
    run = build(config)

    def fill(folder: Path) -> None:
        stored.write(folder / "trial.yaml", composition)  # not config.yaml, by which a run is known that can go on
        facts = {"device": describe(run.engine.device), "threads": threads()}
        write_json(folder / "environment.json", environment(**facts, data_fingerprint=run.data_fingerprint))

    wanted = config.name or default_name(composition.choices["model"], composition.choices["optim"])
    try:
        folder = create(Path(config.outputs_dir) / verb, wanted, fill, numbered=config.name is None)
        with closing(Console(folder / "train.log")) as console:
            console.noun = run.facts.noun
            introduce(console, composition, run, summarize(run.model, run.served.blank(2)).layers, notes)
            yield Trial(run, folder, console)
    except FileExistsError as error:
        raise ConfigError(f"name={config.name}: {error} is there already; choose another name") from error
    finally:
        for batches in run.batches.values():
            batches.close()
