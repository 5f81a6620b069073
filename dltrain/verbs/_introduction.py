"""The tables that a person reads before the first step."""

import os
from collections.abc import Sequence
from itertools import groupby

from rich.table import Table
from torch import nn

from dltrain.build import Run
from dltrain.config.compose import Composition
from dltrain.config.tree import container, leaves
from dltrain.engine.device import describe
from dltrain.models.summary import LayerRow
from dltrain.run.console import Console, quantity, table

MOST_ROWS = 40


def introduce(
    console: Console, composition: Composition, run: Run, layers: Sequence[LayerRow], notes: Sequence[str]
) -> None:
    """The configuration, the model and what is to be known, before the first step."""
    rows = []
    for group, choice in composition.choices.items():
        node = composition.config.get(group)
        if node is not None:
            idle = {"name", *(run.facts.idle_settings if group == "data" else ())}
            keys = leaves(container(node))
            shown = {key: value for key, value in keys if key.rpartition(".")[2] not in idle and value is not None}
            settings = ", ".join(f"{key} {value}" for key, value in shown.items())
            rows.append([group, choice, settings])
    console.say(table("Configuration", {"group": "left", "choice": "left", "settings": "left"}, rows))
    counts = ", ".join(f"{count:,} {split}" for split, count in run.facts.num_examples.items())
    precision = run.engine.precision.name
    classes = f", {run.facts.num_classes} classes" if run.facts.num_classes else ""
    console.say(f"\ndata    {counts} examples{classes}")
    console.say(f"{run.facts.noun:<8}{_whereabouts(run)}")
    processes = run.engine.ranks.gather(str(os.getpid()))
    several = f", {len(processes)} ranks: processes {', '.join(processes)}" if len(processes) > 1 else ""
    console.say(f"device  {describe(run.engine.device)}, {precision}{several}\n")
    console.say(model_table(run.model, layers, run.served.input_shape, composition.choices["model"]))
    for note in (*composition.notes, *run.notes, *notes):
        console.say(f"note: {note}")
    console.say()


def _whereabouts(run: Run) -> str:
    """Where the inputs are, and why."""
    size = quantity(run.facts.num_bytes, "B")
    train, limit, ranks = run.batches["train"], run.config.data.resident_limit, run.engine.ranks.size
    if train.sharded:
        part = quantity(-(-run.facts.num_bytes // ranks), "B")
        return f"{size} sharded over {ranks} ranks, {part} resident on the device of each"
    if (workers := train.workers) is None:
        return f"{size} resident on the device"
    by = f"{workers} worker{'s' if workers > 1 else ''}" if workers else "the training process"
    own = f" of each of {ranks} ranks" if ranks > 1 else ""
    why = "half of the device's free memory" if limit is None else f"data.resident_limit={limit}"
    return f"streamed from memory by {by}{own}: {size} do not fit {why}"


def model_table(model: nn.Module, rows: Sequence[LayerRow], input_shape: tuple[int, ...], title: str) -> Table:
    """Layers with output shapes, parameters and receptive fields; whole blocks where there are too many layers."""
    total = sum(row.parameters for row in rows)
    shown = _folded(model, rows)
    is_image = len(input_shape) == 3
    cells = [
        [
            row.name or "all of it",
            row.kind,
            "x".join(map(str, row.output_shape)),
            f"{row.parameters:,}",
            *([str(row.receptive_field or "all")] if is_image else []),
        ]
        for row in shown
    ]
    columns = {"layer": "left", "kind": "left", "output": "right", "parameters": "right"}
    columns |= {"receptive field": "right"} if is_image else {}
    shape = "x".join(map(str, input_shape)) or "a number"
    return table(f"{title}: {total:,} parameters, input {shape}", columns, cells)


def _folded(model: nn.Module, rows: Sequence[LayerRow]) -> list[LayerRow]:
    """Rows of the deepest modules that make a table of bearable length."""
    depth = max(row.name.count(".") for row in rows) + 1
    folded = list(rows)
    while len(folded) > MOST_ROWS and depth > 1:
        depth -= 1
        groups = groupby(rows, key=lambda row: ".".join(row.name.split(".")[:depth]))
        folded = [_joined(name, list(members), model) for name, members in groups]
    return folded


def _joined(name: str, members: list[LayerRow], model: nn.Module) -> LayerRow:
    kind = type(model.get_submodule(name)).__name__
    parameters = sum(member.parameters for member in members)
    return members[-1]._replace(name=name, kind=kind, parameters=parameters)
