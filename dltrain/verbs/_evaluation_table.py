"""An evaluation on the terminal, in 80 columns."""

import textwrap
from typing import Any

from dltrain.run import looks
from dltrain.run.console import number
from dltrain.verbs._listed import aligned, printable

MOST_CLASSES, MOST_MATRIX, MOST_SHOWN, LONGEST, WIDTH = 20, 10, 5, 22, 80
SHORT = {"expected_calibration_error": "expected calibration error (15 bins)"}


def show(found: dict[str, Any], name: str) -> None:
    """Print what evaluation-SPLIT.json says of a run."""
    checkpoint, data = found["checkpoint"], found["data"]
    weights = f"{checkpoint['chosen']} weights, " if checkpoint["chosen"] in ("best", "last") else ""
    averaged = ", averaged" if checkpoint["averaged"] else ""
    print(f"{name}: {found['model']}, {weights}step {checkpoint['step']}{averaged}")
    print(
        f"{found['split']} of {data['name']}: {found['examples']:,} examples, {found['device']}, {found['precision']}"
    )
    if not data["same"]:
        print("note: these are not the data that the run was trained with")
    if found["looks"]:
        print(looks.words(found["looks"]))
    columns = {"measure": "left", "value": "right"}
    _show(columns, [[_spelled(key), number(value)] for key, value in found["metrics"].items()])
    if "classes" in found:
        _show_classes(found)
    if "left_out" in found:
        print("\n" + textwrap.fill(f"left out: {found['left_out']}", WIDTH))


def _show_classes(found: dict[str, Any]) -> None:
    classes, confusion = found["classes"], found["confusion"]
    names = [_short(each["name"]) for each in classes]
    order = [*range(len(classes))]
    if len(classes) > MOST_CLASSES:
        order = sorted(order, key=lambda place: classes[place]["f1"] or 0.0)[:MOST_CLASSES]
    rows = [
        [
            names[place],
            *(number(classes[place][key], 3) for key in ("precision", "recall", "f1")),
            f"{classes[place]['support']:,}",
            _mostly(confusion[place], place, names),
        ]
        for place in order
    ]
    columns = {"class": "left", **dict.fromkeys(("precision", "recall", "f1", "support"), "right")}
    _show({**columns, "most often taken for": "left"}, rows)
    if len(order) < len(classes):
        print(f"and {len(classes) - len(order)} classes with a higher f1")
    if len(classes) <= MOST_MATRIX:
        columns = {"true \\ predicted": "left", **{str(place): "right" for place in order}}
        _show(columns, [[f"{place} {names[place]}", *map(str, confusion[place])] for place in order])
    if found["worst"]:
        columns = {"worst mistakes": "right", "true": "left", "predicted": "left", "probability": "right"}
        rows = [
            [
                str(each["index"]),
                names[each["target"]],
                names[each["prediction"]],
                number(each["probability"], 3),
                number(each["loss"], 2),
            ]
            for each in found["worst"][:MOST_SHOWN]
        ]
        _show({**columns, "loss": "right"}, rows)


def _show(columns: dict[str, str], rows: list[list[str]]) -> None:
    print("\n" + "\n".join(aligned(columns, rows)))


def _mostly(row: list[int], place: int, names: list[str]) -> str:
    """The class that examples of one are most often taken for."""
    count, other = max((count, -each) for each, count in enumerate(row) if each != place)
    return f"{names[-other]} {100 * count / sum(row):.1f} %" if count else "-"


def _short(name: str) -> str:
    text = printable(name)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _spelled(key: str) -> str:
    return SHORT.get(key, key.replace("_", " "))
