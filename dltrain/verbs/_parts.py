"""Saying that batches are computed in smaller parts than before."""

from dltrain.engine import Engine
from dltrain.run.console import Console


class Parts:
    """Knows the size of the parts that a person was told of last."""

    def __init__(self, engine: Engine, console: Console) -> None:
        self.engine, self.console = engine, console
        self.told = engine.microbatch

    def tell(self) -> None:
        """Say so where memory ran out since."""
        if (parts := self.engine.microbatch) != self.told:
            self.told = parts
            self.console.say(
                f"note: out of memory: batches are computed {parts} images at a time from here on; "
                "the steps are the same, but batch norm takes its statistics over each part"
            )
