"""What `evaluation-SPLIT.json` says of a run: numbers, classes, what is taken for what, the worst mistakes."""

from pathlib import Path
from typing import Any

from dltrain.report.page import clipped, spaced
from dltrain.run.folder import RunError, read_json

MOST_MATRIX, MOST_PAIRS, MOST_CLASSES, LONGEST_NAME, SHADES = 20, 20, 400, 60, 10
MOST_IMAGES = 700_000  # letters of pictures, so that the page stays small
PNG = "data:image/png;base64,"
NAMES = {"expected_calibration_error": "expected calibration error (15 bins)"}


def evaluation(folder: Path, summary: dict[str, Any] | None) -> dict[str, Any] | None:
    """The evaluation of the test set, else of the validation or training part; None where there is none."""
    path = next((p for split in ("test", "val", "train") if (p := folder / f"evaluation-{split}.json").is_file()), None)
    if path is None:
        return None
    found = read_json(path)
    if found is None:
        raise RunError(f"{path.name} holds no JSON object")
    checkpoint, best, steps = found["checkpoint"], (summary or {}).get("best"), (summary or {}).get("steps")
    step = int(checkpoint["step"])
    content: dict[str, Any] = {
        "file": path.name,
        "split": str(found["split"]),
        "data": str(found["data"]["name"]),
        "examples": int(found["examples"]),
        "step": step,
        "chosen": str(checkpoint["chosen"]),
        "averaged": bool(checkpoint["averaged"]),
        "old": steps is not None and step not in (steps, best["step"] if best else None),
        "when": str(found["when"]),
        "metrics": [(name, NAMES.get(name, spaced(name)), _float(value)) for name, value in found["metrics"].items()],
        "left_out": str(found.get("left_out", "")),
    }
    return {**content, **(_classes(found) if "classes" in found else {"classes": []})}


def _classes(found: dict[str, Any]) -> dict[str, Any]:
    """Of classes: a line each, the confusion matrix or its largest entries, and the worst mistakes."""
    whole = [clipped(str(each["name"])) for each in found["classes"]]
    names = [clipped(name, LONGEST_NAME) for name in whole]
    counts = [[int(count) for count in row] for row in found["confusion"]]
    if len(counts) != len(names) or any(len(row) != len(names) for row in counts):
        raise ValueError("the confusion matrix does not have a line a class")
    lines = [
        {
            "name": name,
            **{key: _float(each[key]) for key in ("precision", "recall", "f1")},
            "support": int(each["support"]),
        }
        for name, each in zip(names, found["classes"], strict=True)
    ]
    order = sorted(range(len(lines)), key=lambda place: lines[place]["f1"] or 0.0) if len(lines) > MOST_CLASSES else []
    return {
        "classes": [
            {**lines[place], "mostly": _mostly(counts[place], place, names)}
            for place in order[:MOST_CLASSES] or range(len(lines))
        ],
        "classes_left_out": max(0, len(lines) - MOST_CLASSES),
        "matrix": _matrix(names, counts, whole) if len(names) <= MOST_MATRIX else None,
        "pairs": _pairs(names, counts),
        "worst": _worst(found["worst"], names),
    }


def _matrix(names: list[str], counts: list[list[int]], whole: list[str]) -> dict[str, Any]:
    """The rows of the matrix, with whole names too; a shade of 0 to 10 tells a cell's share of the row's examples."""
    rows = []
    for place, row in enumerate(counts):
        total = sum(row) or 1
        cells = [
            {"count": count, "shade": -(-SHADES * count // total), "right": other == place, "share": count / total}
            for other, count in enumerate(row)
        ]
        rows.append({"name": names[place], "whole": whole[place], "cells": cells})
    return {"names": names, "rows": rows}


def _pairs(names: list[str], counts: list[list[int]]) -> list[dict[str, Any]]:
    """What is most often taken for what."""
    wrong = [
        (count, row, column) for row, each in enumerate(counts) for column, count in enumerate(each) if row != column
    ]
    largest = sorted((each for each in wrong if each[0]), key=lambda each: (-each[0], each[1:]))[:MOST_PAIRS]
    return [
        {"true": names[row], "predicted": names[column], "count": count, "share": count / sum(counts[row])}
        for count, row, column in largest
    ]


def _mostly(row: list[int], place: int, names: list[str]) -> dict[str, Any] | None:
    """The class that examples of one are most often taken for."""
    others = [(count, -other) for other, count in enumerate(row) if other != place and count]
    if not others:
        return None
    count, other = max(others)
    return {"name": names[-other], "count": count, "share": count / sum(row)}


def _worst(mistakes: list[dict[str, Any]], names: list[str]) -> dict[str, Any]:
    """The worst mistakes, with their pictures as long as there is room."""
    room, shown, without = MOST_IMAGES, [], 0
    for each in mistakes:
        image = each["image"] if isinstance(each["image"], str) and each["image"].startswith(PNG) else None
        room -= len(image or "")
        without += image is not None and room < 0
        shown.append(
            {
                "index": int(each["index"]),
                "true": names[each["target"]],
                "predicted": names[each["prediction"]],
                "probability": float(each["probability"]),
                "loss": float(each["loss"]),
                "image": image if room >= 0 else None,
            }
        )
    return {"shown": shown, "without": without}


def _float(value: Any) -> float | None:
    return None if value is None else float(value)
