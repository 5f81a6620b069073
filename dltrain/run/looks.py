"""How often the test set was looked at: every look makes the number it shows a little less of a held-out estimate."""

import json
import time
from pathlib import Path
from typing import Any

from dltrain.run.folder import RunError, writing
from dltrain.run.record import read_rows

FILE = "looks.jsonl"


def count(folder: Path) -> dict[str, int]:
    """Looks at the run's own test set: `training` by the rows of the record, `after` by later evaluations."""
    training = sum(row["split"] == "test" for row in read_rows(folder))
    kept = _read(folder)
    taken_back = sum(look["by"] == "train" for look in kept)
    return {"training": training + taken_back, "after": len(kept) - taken_back}


def add(folder: Path, *, by: str, **facts: Any) -> None:
    """Remember a look for ever. Raises WriteError.

    `by` is the verb that looked; for `train` only those whose rows the record will lose, when a run is trained longer.
    """
    line = json.dumps({"when": time.strftime("%Y-%m-%d %H:%M:%S"), "by": by, **facts}) + "\n"
    with writing(folder / FILE), (folder / FILE).open("a") as file:
        file.write(line)


def words(looks: dict[str, int]) -> str:
    """The count in a sentence."""
    total = sum(looks.values())
    times = "once" if total == 1 else f"{total} times"
    return f"the test set was looked at {times}: {looks['training']} in training, {looks['after']} since"


def _read(folder: Path) -> list[dict[str, Any]]:
    path = folder / FILE
    try:
        return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    except ValueError as error:
        raise RunError(f"{path} is damaged: {error}") from error
