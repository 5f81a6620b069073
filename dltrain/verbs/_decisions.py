"""What one rank of a run decides or hears is known to all before they take another step."""

from dltrain.engine import Ranks


class Decisions:
    """Requests to stop, as exit codes: those that this process `heard`, and those `received` that all ranks act on.

    Alone, they are the same.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.received: list[int] = []
        self.heard = self.received if ranks.size == 1 else list[int]()

    def agree(self, wanted: bool) -> bool:
        """Whether a rank wants something, and hear of signals that came to others; all must come to it."""
        if self.ranks.size == 1:
            return wanted
        code, common = self.ranks.highest([[*self.heard, 0][0], int(wanted)])
        if code and not self.received:
            self.received.append(code)
        return bool(common)
