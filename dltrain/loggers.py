"""Optional sinks of rows, beside the record."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

__all__ = ["tensorboard"]


class Logger(Protocol):
    """Takes every row of the record."""

    def add(self, row: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in the run folder: one series a split and number."""

    def __init__(self, writer: Any) -> None:
        self.writer = writer

    def add(self, row: dict[str, Any]) -> None:
        """Write each number of a row at its step."""
        for key, value in row.items():
            if key not in ("split", "step") and value is not None:
                self.writer.add_scalar(f"{row['split']}/{key}", value, row["step"])

    def close(self) -> None:
        """Write what is buffered."""
        self.writer.close()


def tensorboard() -> Callable[[Path], Logger]:
    """TensorBoard event files, for a run folder that comes later. Raises ValueError where the package is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError("the package tensorboard is not installed: pip install 'dltrain[tensorboard]'") from error
    return lambda folder: TensorBoard(SummaryWriter(str(folder / "tensorboard")))
