"""The strategies by name."""

from dltrain.engine.ranks import Ranks
from dltrain.engine.sharded import ShardedModel
from dltrain.engine.strategy import ShardedState, Strategy

STRATEGIES = {each.name: each for each in (Strategy, ShardedState, ShardedModel)}


def strategy_of(name: str, ranks: Ranks) -> Strategy:
    """What ranks do by a name; one alone holds all, whatever is said."""
    return STRATEGIES[name](ranks) if ranks.size > 1 else Strategy(ranks)
