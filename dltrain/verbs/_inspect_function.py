"""What `dltrain inspect data=function` says: whether the function is convex, by three tests."""

from contextlib import closing

import numpy as np
from omegaconf import DictConfig

from dltrain import data
from dltrain.components import make
from dltrain.data.convexity import PAIRS, Convexity, Violation, convexity
from dltrain.run.console import Console, table

NONE = f"none among {PAIRS:,} pairs of points"


def inspect_function(config: DictConfig) -> int:
    """Print the tests of convexity of the function that a configuration names."""
    landscape = make(data, config.data).landscape
    found = convexity(landscape)
    columns = {"test": "left", "violation": "left"}
    verdict = "is not convex: a local minimum need not be the lowest" if found.refuted else "passes as convex"
    with closing(Console()) as console:
        console.say(table(f"{landscape.name}: {landscape.formula}", columns, _rows(found)))
        console.say(f"\n{landscape.name} {verdict}")
    return 0


def _rows(found: Convexity) -> list[list[str]]:
    curvature = f"{_number(found.curvature)} at {_point(found.place)}"
    return [
        ["f(ax + (1-a)y) <= a f(x) + (1-a) f(y)", _definition(found.definition)],
        ["{f <= b} holds the middle of any two of its points", _sublevel(found.sublevel)],
        ["no Hessian has an eigenvalue below 0", curvature if found.is_negative else f"none, the least is {curvature}"],
    ]


def _definition(violation: Violation | None) -> str:
    if violation is None:
        return NONE
    where = f"x = {_point(violation.x)}, y = {_point(violation.y)}, a = {_number(violation.share)}"
    return f"{_number(violation.value)} > {_number(violation.bound)} for {where}"


def _sublevel(violation: Violation | None) -> str:
    if violation is None:
        return NONE
    middle = f"the middle of {_point(violation.x)} and {_point(violation.y)}"
    return f"{_number(violation.value)} > b = {_number(violation.bound)} in {middle}"


def _point(point: np.ndarray) -> str:
    shown = ", ".join(_number(each) for each in point[:4])
    return f"({shown}{', ...' if len(point) > 4 else ''})" if len(point) > 1 else shown


def _number(value: float) -> str:
    return f"{value:.4g}"
