"""What a replay comes to: the rows, the results and the weights of two runs beside each other."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from dltrain.run.record import Row, measures
from dltrain.verbs._replay_differences import Difference

IDENTICAL, NOISE, DIFFERENT = "identical", "within noise", "different"
CHECK_FAILED = 70
NOT_COMPARED = "images_per_second"
RESULTS = ("status", "steps", "best", "weights_sha256")
# Shares of the loss by which threads, devices and precisions part the runs; docs/replay.md has the measurements.
FIRST_LOSS, MOST_OF_FIRST = 2e-3, 0.1  # for each of its steps, for all of them
LAST_LOSS = 0.1
DEVIATIONS = 4  # of the difference of two binomial counts
Key = tuple[str, int]


@dataclass(frozen=True)
class Outcome:
    """A run as it is compared: its rows, and its summary as far as there is one."""

    rows: list[Row]
    summary: dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """Which of the three it is and why, the first row or result that differs, and how far the ends are apart."""

    word: str
    reason: str
    rows: int
    equal_rows: int
    first: dict[str, Any] | None = None
    ends: list[dict[str, Any]] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """That of a check."""
        return CHECK_FAILED if self.word == DIFFERENT else 0

    def content(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "exit_code": self.exit_code}


def judge(
    then: Outcome,
    now: Outcome,
    differences: Sequence[Difference],
    *,
    num_examples: Mapping[str, int],
    until: int | None,
) -> Verdict:
    """Compare a run with its replay, up to the step `until` of a run that did not end; `num_examples` by split."""
    old, new = _by_place(then.rows), _by_place(now.rows)
    if until is not None:  # a run may have been stopped among the evaluations of its last step
        new = {key: row for key, row in new.items() if key in old or key[1] < until}
    apart = list(_apart(old, new))
    results = list(_results_apart(then.summary, now.summary, ended=until is None))
    first = next(iter([*apart, *results]), None)
    counts: dict[str, Any] = {
        "rows": len(old),
        "equal_rows": len(old) - len({(each["split"], each["step"]) for each in apart}),
    }
    if first is None:
        weights = (
            ", the results and the weights are"
            if "weights_sha256" in then.summary
            else " (weights cannot be compared) is"
        )
        return Verdict(IDENTICAL, f"every row{weights} the same to the bit", **counts)
    ends = list(_ends(old, new, num_examples))
    if reason := _beyond_noise(apart, old, new, ends, differences):
        return Verdict(DIFFERENT, reason, **counts, first=first, ends=ends)
    causes = ", ".join(each.what for each in differences) or "nothing that is known"
    return Verdict(
        NOISE, f"what differs ({causes}) rounds sums otherwise, and no more", **counts, first=first, ends=ends
    )


def _by_place(rows: Sequence[Row]) -> dict[Key, Row]:
    return {(row["split"], row["step"]): row for row in rows}


def _apart(old: Mapping[Key, Row], new: Mapping[Key, Row]) -> Iterator[dict[str, Any]]:
    """The first value of each row that is not the same, in the order of the record."""
    for place in {**old, **new}:
        where = dict(zip(("split", "step"), place, strict=True))
        if place not in old or place not in new:
            yield {**where, "key": "row", "then": place in old, "now": place in new}
            continue
        before, after = ({k: v for k, v in rows[place].items() if k != NOT_COMPARED} for rows in (old, new))
        for key in {**before, **after}:
            if before.get(key) != after.get(key):
                yield {**where, "key": key, "then": before.get(key), "now": after.get(key)}
                break


def _results_apart(then: Row, now: Row, *, ended: bool) -> Iterator[dict[str, Any]]:
    """What of the summaries is not the same, as far as the first one has it."""
    for key in RESULTS:
        if key in then and (ended or key != "status") and then[key] != now.get(key):
            yield {"key": key, "then": then[key], "now": now.get(key)}


def _ends(old: Mapping[Key, Row], new: Mapping[Key, Row], num_examples: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    """How far the last evaluations are apart, and how far noise may bring them."""
    last = {split: place for place in old if (split := place[0]) != "train" and place in new}
    for split, place in last.items():
        before, after = measures(old[place]), measures(new[place])
        key = "accuracy" if before.get("accuracy") is not None else "loss"
        then, now = before[key], after.get(key)
        if then is not None and now is not None:
            allowed = _deviation(then, now, num_examples[split]) if key == "accuracy" else LAST_LOSS * abs(then)
            yield {"split": split, "key": key, "then": then, "now": now, "allowed": allowed}


def _deviation(first: float, second: float, examples: int) -> float:
    """How far noise may part two accuracies of one expectation; rounding parts runs about as far as seeds do."""
    mean = (first + second) / 2
    return DEVIATIONS * math.sqrt(2 * mean * (1 - mean) / examples)


def _beyond_noise(
    apart: Sequence[dict[str, Any]],
    old: Mapping[Key, Row],
    new: Mapping[Key, Row],
    ends: Sequence[dict[str, Any]],
    differences: Sequence[Difference],
) -> str | None:
    """Why it is more than sums that are rounded otherwise."""
    if shaping := [each for each in differences if each.shapes]:
        return f"because of {'; '.join(map(str, shaping))}"
    causes = "; ".join(map(str, differences))
    because = (
        f"perhaps because of {causes}"
        if causes
        else "nothing known differs: the cause is outside of what the folder knows"
    )
    if any(each["key"] == "row" for each in apart):
        return f"not the same rows; {because}"
    if any(not _near(old[place].get("lr"), new[place].get("lr"), 1e-6) for place in old):
        return f"not the same learning rates; {because}"
    beginning = next((place for place in old if place[0] == "train"), ("train", 0))
    allowed = min(FIRST_LOSS * beginning[1], MOST_OF_FIRST)
    if beginning in old and not _near(old[beginning]["loss"], new[beginning]["loss"], allowed):
        return f"the first train losses are more than {allowed:.1%} apart; {because}"
    far = [each for each in ends if abs(each["then"] - each["now"]) > each["allowed"]]
    if far:
        return f"{far[0]['split']} {far[0]['key']} is more than {far[0]['allowed']:.4g} apart; {because}"
    return None


def _near(first: float | None, second: float | None, share: float) -> bool:
    """Whether two numbers are so near to each other as a share of the first; nothing is near nothing alone."""
    if first is None or second is None:
        return first is second
    return abs(first - second) <= share * abs(first)
