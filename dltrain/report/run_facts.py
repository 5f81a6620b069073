"""What a run was and what came of it, in words and figures for the head of its page."""

import json
import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dltrain.report.page import clipped, spaced
from dltrain.run.console import number, quantity
from dltrain.run.folder import read_json
from dltrain.run.lock import held

Row = dict[str, Any]
SPLITS = {"test": "test", "val": "validation", "train": "training"}
NO_PART_OF_IT = ("name=", "outputs_dir=", "sweep.", "hydra/")
FILES = (
    "config.yaml", "metrics.jsonl", "summary.json", "environment.json", "train.log", "curves.png", "path.png",
    "predictions-test.csv", "predictions-val.csv",
)  # fmt: skip
TONES = {"completed": "good", "running": "busy", "interrupted": "warn", "unfinished": "warn"}
LONGEST_VALUE = 2000


@dataclass(frozen=True)
class Sources:
    """What a run's folder holds; `origin` is what the head of its configuration tells."""

    folder: Path
    config: dict[str, Any]
    origin: dict[str, Any]
    rows: list[Row]
    summary: Row | None
    environment: dict[str, Any]

    @property
    def examples(self) -> dict[str, int]:
        """How many a figure of a part that was held out is over."""
        counts = (self.summary or {}).get("examples") or {}
        return {} if self.is_path else {split: int(counts[split]) for split in ("val", "test") if split in counts}

    @property
    def is_path(self) -> bool:
        """Whether the run is the path of a point on a landscape, over which a mean says nothing."""
        return (self.config.get("data") or {}).get("name") == "function"

    @property
    def last(self) -> dict[str, Row]:
        """The newest row of each split."""
        return {row["split"]: row for row in self.rows}


def status(sources: Sources) -> dict[str, str]:
    """The state of a run, what that means, and what to do about it."""
    summary, again = sources.summary or {}, f"dltrain resume {_name(sources)}"
    no_word = "unknown" if (sources.folder / "summary.json").is_file() else "unfinished"
    word = str(summary.get("status") or ("running" if held(sources.folder) else no_word))
    words = {
        "completed": "Trained to its end.",
        "running": f"Under way, {_reached(sources)}. To draw this page anew: dltrain report {_name(sources)}",
        "interrupted": f"Stopped by a signal {_reached(sources)}. To go on: {again}",
        "unfinished": f"Ended without a word, {_reached(sources)}: it was killed. To go on: {again}",
        "unknown": "How it ended cannot be read.",
        "diverged": "It ran away.",
    }
    cause = clipped(str(summary.get("cause") or ""))
    told = [words.get(word, ""), cause and f"{cause[0].upper()}{cause[1:]}.", _checked(sources)]
    return {"word": word, "told": " ".join(filter(None, told)), "tone": TONES.get(word, "bad")}


def _checked(sources: Sources) -> str:
    """What a check of the code says, whose few steps make no result."""
    if not (sources.config.get("trainer") or {}).get("must_learn"):
        return ""
    stages = (read_json(sources.folder / "ci.json") or {}).get("stages") or []
    each = ", ".join(f"{stage['stage']} {stage['status']}" for stage in stages)
    words = "It is a check that training works, and its accuracy says nothing."
    return f"{words} Stages: {each}." if each else words


def _reached(sources: Sources) -> str:
    """How far a run has come."""
    if sources.summary:
        return f"at step {sources.summary['steps']:,} (epoch {sources.summary['epochs']:.3g})"
    if not sources.rows:
        return "before the first row of its record"
    return f"up to step {sources.rows[-1]['step']:,} (epoch {sources.rows[-1]['epoch']:.3g}) by its record"


def _name(sources: Sources) -> str:
    """A run as the command line names it."""
    folder = sources.folder.resolve()
    name = f"{folder.parent.name}/{folder.name}" if (folder.parent / "sweep.jsonl").is_file() else folder.name
    outputs = str(sources.config.get("outputs_dir", "outputs"))
    return shlex.join([name, *([f"outputs_dir={outputs}"] if outputs != "outputs" else [])])


def results(sources: Sources) -> list[dict[str, Any]]:
    """The figure of each split that was read: accuracy, or whatever chooses the best weights."""
    summary = sources.summary or {}
    found: list[dict[str, Any]] = []
    for split, word in SPLITS.items():
        numbers = summary.get(split) or (None if summary else sources.last.get(split))
        if not numbers or (split == "train" and sources.is_path):
            continue
        measure = "accuracy" if numbers.get("accuracy") is not None else "loss"
        value, count = numbers.get(measure), sources.examples.get(split)
        interval = wilson(value, count) if value is not None and measure == "accuracy" and count else None
        others = [(key, numbers[key]) for key in ("loss", "perplexity") if key in numbers and key != measure]
        found.append(
            {
                "split": split,
                "label": f"{word} {measure}",
                "measure": measure,
                "value": None if value is None else float(value),
                "count": count,
                "interval": interval,
                "others": [(key, float(other)) for key, other in others if other is not None],
                "note": _note(split, summary),
            }
        )
    return found


def _note(split: str, summary: Row) -> str:
    """What is to be known of a split's figure."""
    best = summary.get("best")
    if best and best["split"] == split:
        return f"best {spaced(best['metric'])} {number(best['value'])} at step {best['step']:,}"
    if split == "test" and summary.get("watched_test"):
        return "watched while training, as the course notes do: no held-out estimate"
    if split == "test" and best and best["step"] < summary["steps"]:
        return f"by the best weights, of step {best['step']:,}"
    return ""


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share of `count` independent examples. Source: Wilson 1927, the score interval."""
    z = 1.959963984540054
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def facts(sources: Sources) -> list[tuple[str, str]]:
    """What was run, in a line each."""
    choices, summary = sources.origin.get("choices", {}), sources.summary or {}
    told = {key: str(choices.get(key, "")) for key in ("model", "data", "optim", "schedule")}
    if parameters := summary.get("parameters"):
        told["model"] += f", {parameters:,} parameters"
    examples = (summary.get("examples") or {}) if not sources.is_path else {}
    if counts := [f"{examples[split]:,} {word}" for split, word in reversed(SPLITS.items()) if split in examples]:
        told["examples"] = ", ".join(counts)
    if isinstance(rate := (sources.config.get("optim") or {}).get("lr"), int | float):
        told["optim"] += f", rate {rate:g}"
    told |= {"seed": str(sources.config.get("seed", ""))}
    where = [str(summary.get(key) or sources.environment.get(key, "")) for key in ("device", "precision")]
    several = f"{ranks} ranks" if (ranks := summary.get("ranks") or sources.environment.get("ranks") or 1) > 1 else ""
    told |= {"device": ", ".join(filter(None, [*where, several]))}
    if summary:
        told["length"] = f"{summary['epochs']:.3g} epochs, {summary['steps']:,} steps in {duration(summary['seconds'])}"
    return [(key, value) for key, value in told.items() if value]


def duration(seconds: float) -> str:
    """Seconds in words: 6.2 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def repeat(sources: Sources) -> str | None:
    """The command line that trains this run once more, under another name."""
    words = sources.origin.get("command")
    if words is None:
        return None
    kept = [str(word) for word in words if not str(word).startswith(NO_PART_OF_IT)]
    keys = [word.partition("=")[0] for word in kept]
    last = [word for place, word in enumerate(kept) if "=" not in word or keys[place] not in keys[place + 1 :]]
    return shlex.join(["dltrain", *last])


def speed(sources: Sources) -> list[tuple[str, str]]:
    """How fast it went, what it took, and what held it up."""
    summary = sources.summary
    if summary is None:
        return []
    rows = [("examples a second", "too few steps to tell")]
    if (rate := summary["images_per_second"]) is not None:
        rows = [("examples a second", f"{rate:,.0f}"), ("arithmetic", quantity(summary["flops_per_second"], "FLOP/s"))]
        rows.append(("waiting for data", f"{100 * summary['waiting_for_data']:.0f} %"))
    rows.append(("memory at most", quantity(summary["peak_memory_bytes"], "B")))
    if (start := summary["seconds_to_first_step"]) is not None:
        rows.append(("first step after", duration(start)))
    return [*rows, *([("bottleneck", str(summary["bottleneck"]))] if summary["bottleneck"] else [])]


def settings(sources: Sources) -> dict[str, Any] | None:
    """Every key with its value and its default, and those that differ."""
    if not sources.config:
        return None
    defaults = sources.origin.get("defaults")
    rows = []
    for key, value in _leaves(sources.config):
        differs = defaults is not None and key in defaults
        default = defaults[key] if defaults is not None and differs else value
        rows.append({"key": key, "value": _spoken(value), "default": _spoken(default), "differs": differs})
    own = [row for row in rows if row["differs"] and row["key"] not in ("name", "outputs_dir")]
    return {"rows": rows, "differing": own, "known": defaults is not None, **_choices(sources)}


def _choices(sources: Sources) -> dict[str, Any]:
    return {"choices": list(sources.origin.get("choices", {}).items())}


def no_evaluation(sources: Sources) -> str:
    """How to have the run evaluated."""
    if sources.is_path:
        return "None: every step on a landscape is an evaluation, and the record holds them."
    tested = "test" in sources.examples or not sources.summary
    return f"None yet; to measure: dltrain eval {_name(sources)}{'' if tested else ' --split val'}"


def files(folder: Path) -> list[str]:
    """What the folder holds besides, to be opened from the page."""
    return [name for name in FILES if (folder / name).is_file()]


def _leaves(node: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs = ((f"{prefix}{key}", value) for key, value in node.items())
    return [
        leaf
        for key, value in pairs
        for leaf in (_leaves(value, f"{key}.") if isinstance(value, dict) and value else [(key, value)])
    ]


def _spoken(value: Any) -> str:
    """A value as the command line writes it."""
    return clipped(value if isinstance(value, str) else json.dumps(value, default=str), LONGEST_VALUE)
