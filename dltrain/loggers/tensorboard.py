"""TensorBoard event files."""

import math
from pathlib import Path
from typing import Any


class tensorboard:  # noqa: N801 (as it is chosen)
    """Event files in the run folder's `tensorboard/`, a series for each split and number, on the disk row by row.

    Steps that are taken anew, after a resumption or a rollback, take the place of those before.
    """

    def __init__(self) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ValueError("the package tensorboard is not installed: pip install tensorboard") from error
        self.writer_class: Any = SummaryWriter
        self.writer: Any = None
        self.step = math.inf

    def start(self, folder: Path, *, name: str, config: dict[str, Any]) -> None:
        """Write into a run folder."""
        self.folder = folder / "tensorboard"

    def add(self, row: dict[str, Any]) -> None:
        """Write each number of a row at its step."""
        if row["step"] < self.step:
            self.close("")
            self.writer = self.writer_class(str(self.folder), purge_step=row["step"])
        self.step = row["step"]
        for key, value in row.items():
            if key not in ("split", "step") and value is not None:
                self.writer.add_scalar(f"{row['split']}/{key}", value, row["step"])
        self.writer.flush()

    def close(self, status: str) -> None:
        """Close the file."""
        if self.writer is not None:
            self.writer.close()
