"""The device, its precision, and the step: everything that touches a model while it trains."""

from dltrain.engine.device import DeviceError, select
from dltrain.engine.graph import GraphedEngine, why_eager
from dltrain.engine.precision import Precision, fastest
from dltrain.engine.ranks import Ranks, joined
from dltrain.engine.roll import RanksApart, Roll, call_roll
from dltrain.engine.search import searches
from dltrain.engine.step import Engine
from dltrain.engine.strategy import Strategy
from dltrain.engine.totals import Totals

__all__ = [
    "DeviceError",
    "Engine",
    "GraphedEngine",
    "Precision",
    "Ranks",
    "RanksApart",
    "Roll",
    "Strategy",
    "Totals",
    "call_roll",
    "fastest",
    "joined",
    "searches",
    "select",
    "why_eager",
]
