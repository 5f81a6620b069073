"""What `dltrain export` writes of a run: the file once it has passed the gate, the list of such files, the card."""

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dltrain.build import model_facts
from dltrain.build.supply import Supply
from dltrain.config import schema, stored
from dltrain.config.errors import ConfigError
from dltrain.export import gate
from dltrain.export.card import card
from dltrain.export.formats import FORMATS, Format
from dltrain.run.folder import read_json, replacing, write_json, writing
from dltrain.trained import Trained

LIST = "exports.json"
Entry = dict[str, Any]


@dataclass(frozen=True)
class Examples:
    """Inputs as a run's data set stores them, and of what they are."""

    inputs: Tensor
    split: str
    noun: str
    data: dict[str, Any]


def examples_of(folder: Path, trained: Trained, words: Sequence[str], *, most: int = gate.MOST_EXAMPLES) -> Examples:
    """The first `most` examples that validate, else test, else train, in their order; `words` name other data.

    The labels of the test set are not looked at. Raises ConfigError, DataError.
    """
    if trained.config.data.name == "function":
        raise ConfigError("data=function: its model is a point, which takes no inputs, and metrics.jsonl holds it")
    config = stored.read_with_data(folder / "config.yaml", words, more=["device.name=cpu"])
    supply = Supply(config, schema.Trainer(**config.trainer))
    own = [trained.class_names, trained.facts]
    if [list(supply.facts.class_names), model_facts(supply.served)] != own:
        raise ConfigError(f"data={config.data.name}: the run has learned other classes, or inputs of other sizes")
    batches, _ = supply.load(device=torch.device("cpu"), memory_format=torch.contiguous_format)
    try:
        split = next(name for name in ("val", "test", "train") if name in batches)
        inputs, _ = batches[split].stored(torch.arange(min(most, batches[split].count)))
    finally:
        for each in batches.values():
            each.close()
    fingerprint = supply.dataset.fingerprint()
    told = (read_json(folder / "environment.json") or {}).get("data_fingerprint")
    data = {"name": config.data.name, "fingerprint": fingerprint, "same": told in (None, fingerprint)}
    return Examples(inputs, split, supply.facts.noun, {**data, "examples": dict(supply.facts.num_examples)})


def export(
    folder: Path, trained: Trained, examples: Examples, name: str, *, end: str, tolerance: float | None
) -> tuple[Entry, list[Path]]:
    """Write the file, list it and describe it; returns what the list says of it, and the files.

    A file that the gate refuses does not take an earlier one's place. Raises ParityError (70), WriteError.
    """
    made = FORMATS[name]
    path = folder / "exports" / f"model{end}.{made.suffix}"
    content = _made(made, name, trained, examples.inputs)
    with writing(path.parent):
        path.parent.mkdir(exist_ok=True)
    try:
        with replacing(path, needed=len(content)) as draft:
            draft.write_bytes(content)
            parity = _checked(made, draft, trained, examples.inputs, tolerance=tolerance)
    except gate.ParityError as error:
        with contextlib.suppress(OSError):  # of a folder that holds earlier files
            path.parent.rmdir()
        raise gate.ParityError(f"the {name} export is refused and not written: {error}") from error
    entry = {
        "file": path.name,
        "format": name,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "checkpoint": trained.checkpoint,
        "input": {"shape": list(examples.inputs.shape[1:]), "dtype": str(examples.inputs.dtype).removeprefix("torch.")},
        "data": examples.data,
        "parity": {
            **asdict(parity),
            "allowed": parity.tolerance * parity.scale,
            "split": examples.split,
            "labels": bool(trained.class_names),
        },
    }
    return entry, [path, *_describe(folder, trained, entry)]


def _made(made: Format, name: str, trained: Trained, inputs: Tensor) -> bytes:
    """The file's bytes. Raises ParityError where an exporter has no words for a model."""
    try:
        return made.make(trained, inputs)
    except MemoryError:
        raise
    except Exception as error:  # each exporter has dozens of its own
        model = trained.config.model.name
        raise gate.ParityError(f"the {name} export is refused: model={model}: {_first_line(error)}") from error


def _checked(made: Format, path: Path, trained: Trained, inputs: Tensor, *, tolerance: float | None) -> gate.Parity:
    """What the gate finds of a file that is loaded and run as its user would. Raises ParityError."""
    batches = inputs.split(gate.parts(len(inputs)))
    expected = np.concatenate([trained.outputs(batch).numpy() for batch in batches])
    try:
        run = made.runner(path)
        found = np.concatenate([run(batch.numpy()) for batch in batches])
    except MemoryError:
        raise
    except Exception as error:  # a damaged file can make anything of a reader
        raise gate.ParityError(f"the file cannot be loaded and run: {_first_line(error)}") from error
    allowed = made.tolerance if tolerance is None else tolerance
    return gate.compare(expected, found, tolerance=allowed, class_names=trained.class_names)


def _describe(folder: Path, trained: Trained, entry: Entry) -> list[Path]:
    """Write the list of the exports that are there and as they were written, and the card of them all."""
    exports = folder / "exports"
    earlier = (read_json(exports / LIST) or {}).get("exports", [])
    others = [each for each in earlier if each["file"] != entry["file"] and _stands(exports, each)]
    entries = [*others, entry]
    write_json(exports / LIST, {"exports": entries})
    text = card(folder, trained, entries)
    with replacing(exports / "README.md", needed=len(text)) as draft:
        draft.write_text(text, encoding="utf-8")
    return [exports / LIST, exports / "README.md"]


def _stands(exports: Path, entry: Entry) -> bool:
    path = exports / entry["file"]
    digest: str = entry["sha256"]
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == digest


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason is told'}"
