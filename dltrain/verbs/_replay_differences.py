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
from dltrain.run.environment import INITIAL_WEIGHTS
from dltrain.run.folder import read_json
from dltrain.verbs._execution import ALONE, execution
from dltrain.verbs._start import surroundings

NO_CAUSE = ("command", "git.changed", "git.diff")  # of which git.diff_sha256 tells
SHAPING = ("data_fingerprint", INITIAL_WEIGHTS)
NAMES = {
    "data_fingerprint": "data: the fingerprint",
    INITIAL_WEIGHTS: "the weights that it began with",
    "git.diff_sha256": "uncommitted changes",
}


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


@dataclass(frozen=True)
class Comparison:
    """Then and now: what differs, what the folder cannot tell, what changed without mattering, what was compared."""

    differences: list[Difference]
    unknown: list[str]
    notes: list[str]
    known: list[str]


def compare(folder: Path, run: Run) -> Comparison:
    """What the folder of a run knows of its time, beside what is now."""
    state, environment = _newest_state(folder), read_json(folder / "environment.json")
    began = run.initial_weights_sha256 and INITIAL_WEIGHTS not in (environment or {})
    summary = read_json(folder / "summary.json") or {}
    unknown = {
        "whether config.yaml was edited: there is no checkpoint with the configuration": state is None,
        "versions and machine: there is no environment.json": environment is None,
        "the weights that it began with: there is no digest of them": bool(began),
        "the weights: there is no summary.json with their digest": "weights_sha256" not in summary,
    }
    parts = _parts(environment or {}, state or {})
    found = list(_of_config(folder, run, state["config"]) if state else ())
    facts = {difference.what: difference for difference in _of_environment(run, parts, state or {})}
    lineage = summary.get("resumed") or (state or {}).get("position", {}).get("lineage", [])
    resumed = [(difference, free) for entry in lineage for difference, free in _of_part(entry)]
    return Comparison(
        differences=[*found, *facts.values(), *(difference for difference, free in resumed if not free)],
        unknown=[what for what, is_so in unknown.items() if is_so],
        notes=[f"{difference}, which has shaped no step" for difference, free in resumed if free],
        known=[*(["configuration"] if state else []), *_known(parts)],
    )


def _known(parts: Iterable[dict[str, Any]]) -> list[str]:
    """The kinds of facts that every part of a run has."""
    kinds = {
        "data": "data_fingerprint",
        "weights to begin with": INITIAL_WEIGHTS,
        "code": "git.commit",
        "versions": "python",
        "machine": "platform",
    }
    return [kind for kind, fact in kinds.items() if all(part.get(fact) for part in parts)]


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


def _parts(environment: dict[str, Any], state: dict[str, Any]) -> list[dict[str, Any]]:
    """The facts of each part of a run."""
    parts = [_facts(each) for each in (*environment.get("earlier", []), environment)]
    if "data_fingerprint" not in parts[-1] and state:
        parts[-1]["data_fingerprint"] = state.get("data_fingerprint")
    return parts


def _of_environment(run: Run, parts: list[dict[str, Any]], state: dict[str, Any]) -> Iterator[Difference]:
    """Data, versions and machine; where the parts of a run had several, all of them."""
    yield from _otherwise(_facts(execution(run)), [_facts({**ALONE, **state.get("execution", {})})])
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
            yield Difference(NAMES.get(key, key), then, value, shapes=key in SHAPING)


def _of_part(entry: dict[str, Any]) -> Iterator[tuple[Difference, bool]]:
    """What was otherwise before a resumption, and whether it was free to be, the steps being the same to the bit."""
    where, changed = f"resumed at step {entry['step']}", entry.get("changes", {})
    past, exact = stored.of_the_past(changed), entry.get("bit_exact", True)
    for key, (then, now) in changed.items():
        yield Difference(f"{where}: {key}", then, now, shapes=key in past), exact and not past
    if not exact and not past:
        yield Difference(where, "perhaps other bits than without the interruption", "one go"), False
