"""What differs between a run's time and now: its configuration, its data, versions and machine."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dltrain.build import Run
from dltrain.config import stored
from dltrain.config.plain import settings
from dltrain.config.tree import container, leaves, spoken
from dltrain.run import checkpoint
from dltrain.run.folder import read_json
from dltrain.verbs._execution import execution
from dltrain.verbs._start import surroundings

NO_CAUSE = ("command", "git.changed", "git.diff")  # of which git.diff_sha256 tells


@dataclass(frozen=True)
class Difference:
    """Something that was otherwise then; what `shapes` the steps makes others than another order of sums would."""

    what: str
    then: Any
    now: Any
    shapes: bool = False

    def __str__(self) -> str:
        return f"{self.what}: {_text(self.now)} now, {_text(self.then)} then"


def _text(value: Any) -> str:
    return "none" if value is None else spoken(value)


def find_differences(folder: Path, run: Run) -> tuple[list[Difference], list[str]]:
    """The differences that the folder of a run knows of, and what it cannot tell."""
    state, environment = _newest_state(folder), read_json(folder / "environment.json")
    summary = read_json(folder / "summary.json") or {}
    unknown = {
        "whether config.yaml was edited: there is no checkpoint with the configuration": state is None,
        "versions and machine: there is no environment.json": environment is None,
        "the weights: there is no summary.json with their digest": "weights_sha256" not in summary,
    }
    found = list(_of_config(folder, run, state["config"]) if state else ())
    facts = {difference.what: difference for difference in _of_environment(run, environment or {}, state or {})}
    lineage = summary.get("resumed") or (state or {}).get("position", {}).get("lineage", [])
    return [*found, *facts.values(), *_of_lineage(lineage)], [what for what, is_so in unknown.items() if is_so]


def _newest_state(folder: Path) -> dict[str, Any] | None:
    """The state of the newest checkpoint that has the run's configuration."""
    paths = reversed(checkpoint.steps(folder / "checkpoints"))
    states = (read_json(path / "state.json") for path in paths)
    return next((state for state in states if state and "config" in state), None)


def _of_config(folder: Path, run: Run, before: dict[str, Any]) -> Iterator[Difference]:
    """The keys that are not as the checkpoint has them, without those that are newer than the run."""
    known = {**dict(leaves(before)), **settings(folder / "config.yaml")}
    changed = stored.changes(before, container(run.config))
    past = stored.of_the_past(changed)
    for key, (then, now) in changed.items():
        if key in known:
            yield Difference(key, then, now, shapes=key in past)


def _of_environment(run: Run, environment: dict[str, Any], state: dict[str, Any]) -> Iterator[Difference]:
    """Data, versions and machine; where the parts of a run had several, all of them."""
    yield from _otherwise(_facts(execution(run)), [_facts({"ranks": 1, **state.get("execution", {})})])
    parts = [_facts(each) for each in (*environment.get("earlier", []), environment)]
    if "data_fingerprint" not in parts[-1] and state:
        parts[-1]["data_fingerprint"] = state.get("data_fingerprint")
    yield from _otherwise(_facts(surroundings(run)), parts)


def _facts(environment: dict[str, Any]) -> dict[str, Any]:
    flat = {key.removeprefix("packages."): value for key, value in leaves(environment)}
    return {key: value for key, value in flat.items() if key not in NO_CAUSE}


def _otherwise(now: dict[str, Any], parts: Iterable[dict[str, Any]]) -> Iterator[Difference]:
    """The facts in which a part differs from now, of those that a part knows."""
    for key, value in now.items():
        values = [part[key] for part in parts if key in part]
        if any(each != value for each in values):
            then = values[0] if len(values) == 1 else " and ".join(dict.fromkeys(map(_text, values)))
            what = {"data_fingerprint": "data: the fingerprint", "git.diff_sha256": "uncommitted changes"}.get(key, key)
            yield Difference(what, then, value, shapes=key == "data_fingerprint")


def _of_lineage(lineage: Iterable[dict[str, Any]]) -> Iterator[Difference]:
    """What was otherwise in the parts before a resumption that was not to the bit."""
    for entry in lineage:
        where = f"resumed at step {entry['step']}"
        changed = entry.get("changes", {})
        past = stored.of_the_past(changed)
        for key, (then, now) in changed.items():
            yield Difference(f"{where}: {key}", then, now, shapes=key in past)
        if not entry.get("bit_exact", True) and not past:
            yield Difference(where, "perhaps other bits than without the interruption", "one go")
