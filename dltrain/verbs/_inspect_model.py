"""A network looked into: what `dltrain inspect` prints and draws."""

import difflib
from pathlib import Path

from omegaconf import DictConfig
from torch import Tensor, nn

from dltrain.build import Run, build
from dltrain.config.errors import ConfigError
from dltrain.models.inspection import Inspection, ParameterRow, inspect, limits, warnings
from dltrain.report.inspection import draw_inspection
from dltrain.run import checkpoint
from dltrain.run.weights import chosen, evaluated
from dltrain.verbs._listed import aligned

DIGITS = ".3g"


def inspect_model(config: DictConfig, folder: Path | None, *, parameter: str | None, pictures: Path | None) -> int:
    """Print and draw one forward and one backward pass of a batch, or print one parameter alone; returns the exit code.

    The weights are those of the run in a folder, or without one those that a run would begin with; nothing is trained.
    """
    run = build(config, restored=folder is not None, trains=False)
    try:
        if folder is not None:
            tensors, _ = checkpoint.load(chosen(folder))
            run.model.load_state_dict(evaluated(tensors))
        if parameter is not None:
            _show_tensor(run.model, parameter)
            return 0
        inspection, examples = _inspected(run)
    finally:
        for batches in run.batches.values():
            batches.close()
    _show(inspection, examples=examples)
    name = str(config.model.name) if folder is None else folder.resolve().name
    path = draw_inspection(
        [row._asdict() for row in inspection.parameters],
        [row._asdict() for row in inspection.activations],
        limits=limits(inspection),
        folder=pictures or folder or Path(),
        title=f"{name}: one batch in training mode, loss {inspection.loss:.4g}",
    )
    print(f"picture  {path}")
    return 0


def _inspected(run: Run) -> tuple[Inspection, int]:
    """The first batch's way through the network, in float32; and its examples."""
    engine = run.engine
    inputs, targets = next(iter(run.batches["train"].epoch(0)))
    engine.generator.manual_seed(run.config.seed)

    def loss(outputs: Tensor) -> Tensor:
        value = engine.loss(outputs, targets)
        return value if engine.penalty is None else value + engine.penalty()

    return inspect(run.model, inputs, loss), len(inputs)


def _show(inspection: Inspection, *, examples: int) -> None:
    print(f"One batch of {examples} examples in training mode: loss {inspection.loss:.4f}; nothing is trained\n")
    parameters = [
        [str(number), row.name, _shape(row.shape), f"{row.mean:{DIGITS}}", f"{row.deviation:{DIGITS}}", _gradient(row)]
        for number, row in enumerate(inspection.parameters)
    ]
    columns = {"": "right", "parameter": "left", "shape": "right", "mean": "right", "deviation": "right"}
    print("\n".join(aligned({**columns, "gradient norm": "right"}, parameters)))
    activations = [
        [
            row.name,
            row.kind,
            _shape(row.shape),
            f"{row.mean:{DIGITS}}",
            f"{row.deviation:{DIGITS}}",
            f"{row.zeros:.0%}",
            "" if row.dead is None else f"{row.dead} of {row.units}",
        ]
        for row in inspection.activations
    ]
    columns = {"layer": "left", "kind": "left", "output": "right", "mean": "right", "deviation": "right"}
    print("\n" + "\n".join(aligned({**columns, "zeros": "right", "dead units": "right"}, activations)) + "\n")
    print("\n".join(f"warning: {words}" for words in warnings(inspection)) or "no warnings")


def _gradient(row: ParameterRow) -> str:
    return row.note or ("none" if row.gradient is None else f"{row.gradient:{DIGITS}}")


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "number"


def _show_tensor(model: nn.Module, which: str) -> None:
    """Print a parameter, by name or number, or a buffer, by name. Raises ConfigError where there is none."""
    parameters = dict(model.named_parameters())
    known: dict[str, Tensor] = {**parameters, **dict(model.named_buffers())}
    if which.isdecimal() and int(which) < len(parameters):
        which = [*parameters][int(which)]
    if which not in known:
        near = difflib.get_close_matches(which, known, n=3, cutoff=0.4) or [*known][:3]
        numbers = f"or a number from 0 to {len(parameters) - 1}"
        raise ConfigError(f"--parameter {which}: there is none; try {', '.join(near)}, {numbers}")
    tensor = known[which].detach().cpu()
    kind = "parameter" if which in parameters else "buffer"
    values = tensor.float()
    told = f"mean {values.mean():{DIGITS}}, deviation {values.std(correction=0):{DIGITS}}"
    print(f"{kind} {which}, {_shape(tuple(tensor.shape))}, {told}\n{tensor}")
