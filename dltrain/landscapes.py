"""The functions whose landscapes the course notes walk, in the arithmetic that numpy and torch share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import pi
from types import ModuleType
from typing import Any

__all__ = ["FUNCTIONS", "Landscape", "landscape"]

Function = Callable[[Any, ModuleType], Any]


@dataclass(frozen=True)
class Landscape:
    """A function of points, and what is known of it.

    `domain` bounds each coordinate of the part that is looked at. `minima` are the local ones within it, and `lowest`
    is the least value anywhere, where there is one.
    """

    name: str
    formula: str
    function: Function
    start: tuple[float, ...]
    domain: tuple[tuple[float, float], ...]
    minima: tuple[tuple[float, ...], ...] = ()
    lowest: float | None = None

    @property
    def dimension(self) -> int:
        """Coordinates of a point."""
        return len(self.start)

    def values(self, points: Any, library: ModuleType) -> Any:
        """Values (...) of points (..., dimension), which are arrays of the library: numpy or torch."""
        return self.function(points, library)


def landscape(name: str, *, dimension: int | None = None, condition: float | None = None) -> Landscape:
    """The landscape of a name; dimension (2 unless given) and condition number (10) are the quadratic's to choose.

    Raises ValueError for a name that there is not, and for what a function cannot be given.
    """
    if name == "quadratic":
        return _quadratic(2 if dimension is None else dimension, 10.0 if condition is None else condition)
    if name not in _FIXED:
        raise ValueError(f"function={name}: choose one of {', '.join(FUNCTIONS)}")
    found = _FIXED[name]
    if condition is not None or dimension not in (None, found.dimension):
        raise ValueError(f"function={name} has {found.dimension} coordinates; dimension and condition are quadratic's")
    return found


def _quadratic(dimension: int, condition: float) -> Landscape:
    """Half of y' D y with y = x mirrored at a plane, so that no axis is an eigenvector.

    The curvatures D fall from the condition number to 1 by equal factors; the plane's normal is (1, 2, ..., n).
    """
    if not 1 <= dimension <= 100:
        raise ValueError(f"dimension={dimension}: must be 1 to 100")
    if condition < 1:
        raise ValueError(f"condition={condition}: must be 1 or more")
    normal = range(1, dimension + 1)
    curvatures = [condition ** (1 - place / max(1, dimension - 1)) for place in range(dimension)]

    def function(x: Any, library: ModuleType) -> Any:
        along = sum(n * x[..., place] for place, n in enumerate(normal)) * (2 / sum(n * n for n in normal))
        return sum(0.5 * d * (x[..., n - 1] - n * along) ** 2 for n, d in zip(normal, curvatures, strict=True))

    start = tuple((-5.0, -2.0)[place % 2] for place in range(dimension))
    domain = ((-6.0, 6.0),) * dimension
    formula = f"½ xᵀAx in {dimension} dimensions, condition {condition:g}"
    return Landscape("quadratic", formula, function, start, domain, ((0.0,) * dimension,), 0.0)


def _line(function: Function) -> Function:
    """A function of the only coordinate."""
    return lambda points, library: function(points[..., 0], library)


def _plane(function: Callable[[Any, Any], Any]) -> Function:
    """A function of two coordinates."""
    return lambda points, library: function(points[..., 0], points[..., 1])


def _beale(x: Any, y: Any) -> Any:
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


# The slopes of x cos(c x) are 0 where cot(c x) = c x.
COTANGENT_ROOTS = (-0.8603335890193797, 3.4256184594817283)
_OPTIMA_OF_HIMMELBLAU = (
    (3.0, 2.0),
    (-2.805118086952745, 3.131312518250573),
    (-3.779310253377747, -3.283185991286170),
    (3.584428340330492, -1.848126526964404),
)


def _wave(name: str, rate: float, text: str, start: float, domain: tuple[float, float]) -> Landscape:
    minima = tuple((root / (rate * pi),) for root in COTANGENT_ROOTS)
    function = _line(lambda x, library: x * library.cos(rate * pi * x))
    return Landscape(name, f"x cos({text}πx)", function, (start,), (domain,), minima)


_FIXED: dict[str, Landscape] = {
    each.name: each
    for each in (
        _wave("x_cos_pi_x", 1.0, "", 0.2, (-1.0, 2.0)),
        _wave("x_cos_015_pi_x", 0.15, "0.15", 10.0, (-10.0, 10.0)),
        Landscape("cubic", "x³", _line(lambda x, library: x**3), (1.0,), ((-2.0, 2.0),)),
        Landscape("tanh", "tanh(x)", _line(lambda x, library: library.tanh(x)), (4.0,), ((-5.0, 5.0),)),
        Landscape("parabola", "x²", _line(lambda x, library: x**2), (10.0,), ((-11.0, 11.0),), ((0.0,),), 0.0),
        Landscape(
            "cosh",
            "cosh(x/2)",
            _line(lambda x, library: library.cosh(x / 2)),
            (10.0,),
            ((-11.0, 11.0),),
            ((0.0,),),
            1.0,
        ),
        Landscape("saddle", "x₁² - x₂²", _plane(lambda x, y: x**2 - y**2), (1.0, 0.01), ((-1.5, 1.5), (-1.5, 1.5))),
        Landscape(
            "bowl",
            "x₁² + 2x₂²",
            _plane(lambda x, y: x**2 + 2 * y**2),
            (-5.0, -2.0),
            ((-5.5, 2.5), (-3.0, 2.0)),
            ((0.0, 0.0),),
            0.0,
        ),
        Landscape(
            "rosenbrock",
            "(1 - x₁)² + 100(x₂ - x₁²)²",
            _plane(lambda x, y: (1 - x) ** 2 + 100 * (y - x**2) ** 2),
            (-1.2, 1.0),
            ((-2.0, 2.0), (-1.0, 3.0)),
            ((1.0, 1.0),),
            0.0,
        ),
        Landscape("beale", "Beale", _plane(_beale), (1.0, 1.0), ((-1.0, 4.5), (-2.0, 2.0)), ((3.0, 0.5),), 0.0),
        Landscape(
            "himmelblau",
            "(x₁² + x₂ - 11)² + (x₁ + x₂² - 7)²",
            _plane(lambda x, y: (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2),
            (0.0, 0.0),
            ((-5.0, 5.0), (-5.0, 5.0)),
            _OPTIMA_OF_HIMMELBLAU,
            0.0,
        ),
    )
}
FUNCTIONS: Sequence[str] = (*_FIXED, "quadratic")
