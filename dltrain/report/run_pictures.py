"""All pictures of a run."""

from pathlib import Path

from dltrain.report.curves import draw_curves
from dltrain.report.path import draw_path


def draw_run(folder: Path) -> list[Path]:
    """Draw what a run folder's record has to show; returns the paths."""
    return [*draw_curves(folder), *draw_path(folder)]
