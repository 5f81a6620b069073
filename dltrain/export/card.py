"""The model card: what was exported of a run, how to use it, and what its numbers do and do not say."""

import re
import shlex
from pathlib import Path
from typing import Any

from dltrain.data.preparation import Features, Pixels
from dltrain.export.usage import usage
from dltrain.run import looks
from dltrain.run.folder import read_json
from dltrain.trained import Trained

PUNCTUATION = re.compile(r"([!-+./:-@\[-`{-~])")  # all of ASCII but the comma and the hyphen
LIMITS = (*(f"limit_{split}_batches" for split in ("train", "val", "test")), "overfit_batches")
Entry = dict[str, Any]


def card(folder: Path, trained: Trained, entries: list[Entry]) -> str:
    """Markdown about all exports of a run, which `exports.json` lists; `trained` has the weights of the last one."""
    model, name = (escaped(each.name) for each in (trained.config.model, trained.config.data))
    parts = [
        f"# {model} on {name}: exports of the run {escaped(folder.resolve().name)}",
        _files(trained, entries),
        "## How to use it",
        *(f"`{entry['file']}`:\n\n```python\n{usage(trained, entry)}```" for entry in entries),
        f"## What goes in and comes out\n\n{_inputs(trained, entries[-1])}",
        _classes(trained),
        f"## Data\n\n{_data(folder, trained, entries)}",
        f"## Results\n\n{_results(folder, trained)}",
        f"## Training\n\n{_training(folder, trained)}",
        f"## Limits\n\n{_limits(folder, trained)}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def escaped(text: object) -> str:
    """A text that Markdown shows as it is, in one line."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in str(text))
    return PUNCTUATION.sub(r"\\\1", shown)


def table(columns: list[str], rows: list[list[object]]) -> str:
    """A Markdown table of cells that are escaped already."""
    lines: list[list[Any]] = [[*columns], ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _files(trained: Trained, entries: list[Entry]) -> str:
    rows: list[list[object]] = []
    for entry in entries:
        parity, weights = entry["parity"], entry["checkpoint"]
        step = f"step {weights['step']}{', averaged' if weights['averaged'] else ''}"
        found = f"{parity['largest']:.2g} ({parity['allowed']:.2g} allowed)"
        compared = f"{parity['examples']} of {parity['split']}{'' if entry['data']['same'] else ' of other data'}"
        rows.append([entry["file"], step, f"{entry['bytes']:,}", entry["sha256"], compared, found])
    columns = ["file", "weights", "bytes", "SHA-256", "compared on", "largest difference"]
    alone = all(entry["data"]["same"] for entry in entries)
    whose = "the run's data" if alone else "the run's data where the table names no other"
    labels = " and every label of it" if trained.class_names else ""
    same = f"Each file was loaded and run by itself, in float32 on a CPU, on examples of {whose}, and gave"
    return f"{table(columns, rows)}\n\n{same} the run's outputs up to the difference shown{labels}."


def _inputs(trained: Trained, entry: Entry) -> str:
    sizes, prepared = "x".join(map(str, entry["input"]["shape"])), trained.preparation
    if isinstance(prepared, Pixels):
        kind = "grey levels" if entry["input"]["shape"][0] == 1 else "red, green and blue"
        size = f"{prepared.image_size}x{prepared.image_size}"
        same = sizes.endswith(f"x{size}")
        resized = "" if same else f", then resized to {size} pixels, bilinear and antialiased"
        return (
            f"Images uint8 (N, {sizes.replace('x', ', ')}), {kind} from 0 to 255; any N. Bring pictures to this size "
            f"first, as the lines above do: only the safetensors file takes others. Inside the file they are "
            f"standardized, {_standardized(prepared)}{resized}. Out come logits (N, {len(trained.class_names)}); their "
            f"softmax is the probability of each class."
        )
    if isinstance(prepared, Features):
        return (
            f"Vectors float32 (N, {sizes}) in the data's own units, which are standardized by the means and deviations "
            "that the run took from its data; numbers come out in the target's unit, classes as probabilities."
        )
    return "Tokens int64 (N, T) by their places in the vocabulary; out come probabilities of each next one."


def _standardized(pixels: Pixels) -> str:
    if pixels.mean.numel() == pixels.mean.shape[0]:
        means, deviations = (", ".join(f"{v:.4g}" for v in each.flatten()) for each in (pixels.mean, pixels.deviation))
        return f"minus {means}, divided by {deviations} (by channel)"
    return "each pixel minus its mean and divided by its deviation over the training images"


def _classes(trained: Trained) -> str:
    if not trained.class_names:
        return ""
    rows: list[list[object]] = [[place, escaped(name)] for place, name in enumerate(trained.class_names)]
    return f"## Classes\n\n{table(['place', 'class'], rows)}"


def _data(folder: Path, trained: Trained, entries: list[Entry]) -> str:
    """What the run was trained with, as an export that found it again tells, else as the run does."""
    node, told = trained.config.data, (read_json(folder / "environment.json") or {}).get("data_fingerprint")
    own = next((entry["data"] for entry in reversed(entries) if entry["data"]["same"]), None)
    if own is None:
        found = "no file was compared on its examples as they were in training"
        return f"{escaped(node.name)}; {found}. SHA-256 of the decoded data then: `{told}`."
    counts = {part: count for part, count in own["examples"].items() if count}
    if _validates_by_training(trained):
        counts.pop("val", None)
    sizes = ", ".join(f"{count:,} {part}" for part, count in counts.items())
    return f"{escaped(node.name)}: {sizes} examples. SHA-256 of the decoded data: `{own['fingerprint']}`."


def _validates_by_training(trained: Trained) -> bool:
    return bool(trained.config.data.val_size == "train")


def _results(folder: Path, trained: Trained) -> str:
    """What was measured of the exported weights alone: rows of their step, and evaluations of them."""
    step = trained.checkpoint["step"]
    found = {row["split"]: ("the run's record", row) for row in trained.rows if row["step"] == step}
    summary = read_json(folder / "summary.json") or {}
    counts = dict(summary.get("examples") or {})
    if "train" in found and not float(found["train"][1]["epoch"]).is_integer():
        counts.pop("train", None)  # the row is over the examples since the row before
    if (summary.get("best") or {"step": summary.get("steps")})["step"] != step:
        found.pop("test", None)  # which is of the best weights, whatever step it was read at
    elif summary.get("test"):
        found["test"] = ("`summary.json`", summary["test"])
    for path in sorted(folder.glob("evaluation-*.json")):
        told = read_json(path)
        if told and told["checkpoint"]["step"] == step and told["data"]["same"]:
            found[told["split"]] = (f"`{path.name}`", told["metrics"])
            counts[told["split"]] = told["examples"]
    rows: list[list[object]] = [
        [split, key.replace("_", " "), f"{value:.4f}", f"{counts[split]:,}" if split in counts else "-", source]
        for split, (source, numbers) in found.items()
        for key, value in numbers.items()
        if key not in ("step", "epoch", "lr", "images_per_second") and isinstance(value, float)
    ]
    if not rows:
        return f"None was measured with these weights, of step {step}; `dltrain eval` does it."
    return f"Of the weights of step {step}, the train split as it was during training:\n\n" + table(
        ["split", "measure", "value", "examples", "from"], rows
    )


def _training(folder: Path, trained: Trained) -> str:
    with_choices = (folder / "config.yaml").read_text().partition("\n")[0].lstrip("# ")
    summary = read_json(folder / "summary.json") or {}
    known = {
        "choices": with_choices,
        "command": shlex.join((read_json(folder / "environment.json") or {}).get("command", [])[1:]),
        "seed": trained.config.seed,
        **{key: summary.get(key) for key in ("status", "parameters", "epochs", "steps", "device", "precision")},
    }
    rows: list[list[object]] = [[key, escaped(value)] for key, value in known.items() if value not in (None, "")]
    return f"{table(['', ''], rows)}\n\n`config.yaml` of the run has every setting."


def _limits(folder: Path, trained: Trained) -> str:
    summary = read_json(folder / "summary.json") or {}
    precision = summary.get("precision", "fp32")
    lines = [
        f"One run with one seed ({trained.config.seed}): another one gives other numbers.",
        _held_out(folder, summary),
        "The run validated on its own training examples (`data.val_size=train`): the val numbers are about examples "
        "that it learned from."
        if _validates_by_training(trained)
        else "",
        _not_all(trained),
        "The numbers are about data like these; no other were tried, and the answer to anything is one of the classes."
        if trained.class_names
        else "The numbers are about data like these; no other were tried.",
        f"The run computed its numbers in {precision}; the files compute in float32." if precision != "fp32" else "",
        "Whether the data's licence allows a use is not known here.",
    ]
    if isinstance(trained.preparation, Pixels) and trained.preparation.level is not None:
        level = f"The training images have a mean grey level of {trained.preparation.level:.0f} of 255"
        lines.append(f"{level}: pictures that are much darker or brighter, or inverted, are foreign to the model.")
    return "\n".join(f"- {line}" for line in lines if line)


def _held_out(folder: Path, summary: dict[str, Any]) -> str:
    """How far the test set is one that was held out."""
    if "test" not in (summary.get("examples") or {"test": None}):
        return "There is no test set."
    counted = looks.words(looks.count(folder))
    return f"{counted[0].upper()}{counted[1:]}; each look makes its numbers less of a held-out estimate."


def _not_all(trained: Trained) -> str:
    """The settings by which the run read a part of its examples alone."""
    set_ones = [f"`trainer.{key}={value}`" for key in LIMITS if (value := trained.config.trainer.get(key)) is not None]
    return f"The run did not read all examples: {', '.join(set_ones)}." if set_ones else ""
