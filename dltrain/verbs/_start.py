"""From a configuration to a run under way: in a new folder, or in the one of a run that was interrupted."""

import json
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from dltrain import loggers
from dltrain.build import Run, build
from dltrain.components import make
from dltrain.config import stored
from dltrain.config.compose import Composition
from dltrain.config.errors import ConfigError
from dltrain.config.tree import container, spoken
from dltrain.engine import Ranks, call_roll, joined, select
from dltrain.engine.device import describe, threads
from dltrain.loggers.several import Loggers
from dltrain.models.summary import summarize
from dltrain.run import looks, recovery
from dltrain.run.console import Console
from dltrain.run.environment import INITIAL_WEIGHTS, environment, with_earlier
from dltrain.run.folder import RunError, create, default_name, read_json, replacing, write_json, writing
from dltrain.run.lock import Lock
from dltrain.run.signals import end_with_the_parent, hear_once, heed_no_more
from dltrain.run.silent import SilentConsole
from dltrain.sweep.launcher import KILL_AFTER_SECONDS
from dltrain.verbs import _nodes
from dltrain.verbs._continuation import Continuation, continuation
from dltrain.verbs._introduction import introduce
from dltrain.verbs._keeper import Keeper
from dltrain.verbs._launch import check_devices
from dltrain.verbs._listed import name_of
from dltrain.verbs._parting import cause, parting
from dltrain.verbs._session import DIVERGED, Session


def train(composition: Composition, *, parent: Path, name: str | None = None, allow_changes: bool = False) -> int:
    """Train in a new run folder, or go on in the one of that name; returns the exit code.

    Raises what `build`, `create` and `go_on` raise.
    """
    with together(composition) as ranks:
        _nodes.check(parent, ranks)
        there = _nodes.begun(parent, composition, ranks) if name is None else parent / name
        if there is not None and ranks.once(there.exists):
            return _go_on(there, composition, ranks, allow_changes=allow_changes)
        sinks = sinks_of(composition.config)
        run = build(composition.config, ranks=ranks)
        _nodes.check_data(run)
        wanted = name or default_name(composition.choices["model"], composition.choices["optim"])
        with Lock() as lock:
            place = partial(new_folder, parent=parent, name=wanted, numbered=name is None)
            folder = ranks.once(lambda: place(run, composition, lock))
            return train_in(folder, run, composition, sinks)


@contextmanager
def together(composition: Composition) -> Iterator[Ranks]:
    """The ranks that train a composition together: those that torchrun has started, or this process alone."""
    config = composition.config
    roll = call_roll(timeout=config.trainer.collective_timeout)
    if roll is not None:
        hear_once()  # a signal goes to all of them, and once more from whoever started them
        if "TORCHELASTIC_RUN_ID" in os.environ and multiprocessing.parent_process() is None:
            check_devices(config.device.name, int(os.environ["LOCAL_WORLD_SIZE"]))
            end_with_the_parent(config.trainer.grace_seconds + KILL_AFTER_SECONDS)
    with parting(roll), joined(select(config.device.name), roll) as ranks:
        if (count := config.device.count) not in (1, ranks.size):
            raise ConfigError(f"device.count={count}: torchrun has started {ranks.size}")
        yield ranks
        if roll is not None:
            heed_no_more()  # a rank that only waits for the others to end has nothing to interrupt


def new_folder(run: Run, composition: Composition, lock: Lock, *, parent: Path, name: str, numbered: bool) -> Path:
    """Make and lock the folder of a run that begins. Raises WriteError, and RunError (73) where the name is taken."""

    def fill(folder: Path) -> None:
        lock.take(folder)
        stored.write(folder / "config.yaml", composition)
        write_json(folder / "environment.json", surroundings(run))

    try:
        return create(parent, name, fill, numbered=numbered)
    except FileExistsError as error:
        raise RunError(f"name={name}: {error} was made by another run just now", exit_code=73) from error


def go_on(folder: Path, composition: Composition, *, allow_changes: bool = False) -> int:
    """Go on with the run of a folder, from its newest sound checkpoint; returns the exit code.

    Raises ConfigError where the configuration would have made the steps taken so far other ones, and RunError where
    another process is at it (73), or there are checkpoints and none to go on from (66).
    """
    with together(composition) as ranks:
        _nodes.check(folder, ranks)
        return _go_on(folder, composition, ranks, allow_changes=allow_changes)


def _go_on(folder: Path, composition: Composition, ranks: Ranks, *, allow_changes: bool) -> int:
    if not (folder / "config.yaml").is_file():
        raise ConfigError(f"{folder} is there already, and is no run; choose another name")
    with Lock() as lock:
        ranks.once(lambda: lock.take(folder))
        if _nodes.restarts(ranks) and _nodes.status(folder) == "diverged":
            ranks.once(lambda: print(f"{folder} has diverged, and would again: nothing was trained"))
            return DIVERGED
        changes = stored.changes(container(stored.read(folder / "config.yaml").config), container(composition.config))
        _check(folder, changes, allow_changes=allow_changes)
        if (code := _exit_code_of_complete(folder, changes)) is not None:
            ranks.once(lambda: print(f"{folder} is complete: nothing was trained"))
            return code
        point, passed_over = recovery.newest(folder, allow_lost_rows=allow_changes)
        if point is None and _is_completed(folder):
            raise RunError(f"{folder} holds weights alone, as sweep.keep=weights asks: it cannot be trained longer")
        sinks = sinks_of(composition.config)
        run = build(composition.config, restored=point is not None, ranks=ranks)
        _nodes.check_data(run)
        going_on = continuation(run, point, passed_over, allow_changes=allow_changes)
        ranks.once(lambda: _renew(folder, run, composition, changed=bool(changes)))
        return train_in(folder, run, composition, sinks, going_on)


def _renew(folder: Path, run: Run, composition: Composition, *, changed: bool) -> None:
    """Make the folder that of a run under way. Raises WriteError."""
    _remember_the_test(folder, run.data_fingerprint)
    with writing(folder):
        (folder / "summary.json").unlink(missing_ok=True)
    path = folder / "environment.json"
    write_json(path, with_earlier(surroundings(run), read_json(path)))
    if changed:
        with replacing(folder / "config.yaml") as draft:
            stored.write(draft, composition)


def train_in(
    folder: Path,
    run: Run,
    composition: Composition,
    sinks: Loggers,
    going_on: Continuation | None = None,
    *,
    until: int | None = None,
) -> int:
    """Introduce a run and train it, to whatever end, at the latest after the step `until`; returns the exit code."""
    leads = run.engine.ranks.leads
    with closing(Console(folder / "train.log") if leads else SilentConsole()) as console:
        try:
            network = summarize(run.model, run.served.blank(2))
            console.noun = run.facts.noun
            introduce(console, composition, run, network.layers, going_on.notes if going_on else ())
            keeper = Keeper(run, folder, going_on.point if going_on else None, tell=console.note)
            if going_on and going_on.entry:
                keeper.position.lineage.append(going_on.entry)
            sinks = sinks if leads else Loggers()
            sinks.start(console.say, folder, name=name_of(folder), config=container(composition.config))
            session = Session(run, keeper, console, sinks, train_flops=network.train_flops)
            session.until = until if until != session.steps else None
            if roll := run.engine.ranks.roll:
                roll.place = lambda: _next(session)
            run.engine.ranks.meet()  # since decoding, reading or starting loggers may have kept one of them
            try:
                code = session.go()
            except Exception as error:
                session.fail(cause(run.engine.ranks.roll, error))
                raise
            if run.trainer.check_all:
                from dltrain.verbs._ci import check_all  # which trains, too

                code = check_all(folder, run, composition, console, code)
            return code
        finally:
            for batches in run.batches.values():
                batches.close()


def _next(session: Session) -> str:
    """Where a run is to come to next."""
    step = session.position.step
    return f"step {step + 1}" if step < session.steps else "the end"


def surroundings(run: Run) -> dict[str, Any]:
    """What environment.json says of a run."""
    facts = {"device": describe(run.engine.device), "threads": threads(), "data_fingerprint": run.data_fingerprint}
    if run.initial_weights_sha256:
        facts[INITIAL_WEIGHTS] = run.initial_weights_sha256
    if (size := run.engine.ranks.size) > 1:
        facts["ranks"] = size
    if (launch := _nodes.launch_id()) is not None:
        facts["launch"] = launch
    as_read_back: dict[str, Any] = json.loads(json.dumps(environment(**facts)))
    return as_read_back


def sinks_of(config: DictConfig) -> Loggers:
    """The loggers that a configuration asks for, to be started."""
    sinks = Loggers()
    for name, node in (config.get("logger") or {}).items():
        sinks.include(str(name), partial(make, loggers, node))
    return sinks


def _check(folder: Path, changes: dict[str, stored.Change], *, allow_changes: bool) -> None:
    """Refuse what would change the past of a run, unless that is wanted."""
    past = stored.of_the_past(changes)
    if past and not allow_changes:
        key = past[0]
        before, after = (spoken(value) for value in changes[key])
        raise ConfigError(
            f"{key}={after}: the run in {folder} has taken its steps with {before}; choose another name, "
            "or let it go on differently with dltrain resume --allow-changes"
        )


def _remember_the_test(folder: Path, fingerprint: str) -> None:
    """Count the look at the test set that ended a run, whose row goes as the run goes on."""
    summary = read_json(folder / "summary.json") or {}
    if summary.get("test") and not summary.get("watched_test"):
        looks.add(folder, by="train", split="test", step=summary["steps"], data_fingerprint=fingerprint)


def _is_completed(folder: Path) -> bool:
    return (read_json(folder / "summary.json") or {}).get("status") == "completed"


def _exit_code_of_complete(folder: Path, changes: dict[str, stored.Change]) -> int | None:
    """That of a run that is complete, also by the settings of now."""
    summary = read_json(folder / "summary.json")  # a damaged one is made anew by going on
    if summary is None or not _is_completed(folder) or "trainer.early_stop" in changes:
        return None
    _, epochs = changes.get("trainer.epochs", (0, 0))
    return None if epochs > summary.get("epochs", 0) else summary.get("exit_code", 0)
