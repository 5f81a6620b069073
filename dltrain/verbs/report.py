"""Draw the pictures and the page of a run or a sweep anew: `dltrain report RUN|SWEEP`; it may be under way."""

import argparse
from pathlib import Path

from dltrain.config.errors import UsageError
from dltrain.verbs._listed import outputs_of


def main(words: list[str], flags: argparse.Namespace) -> int:
    """Draw what the folder tells, without taking its lock."""
    names, outputs = outputs_of(words)
    if len(names) != 1:
        raise UsageError("dltrain report takes one run or sweep, a path or a name, such as dltrain report first")

    from dltrain.run.folder import find
    from dltrain.sweep.ledger import find_sweep

    sweep = find_sweep(names[0], outputs)
    for path in _of_sweep(sweep) if sweep else _of_run(find(names[0], outputs)):
        print(f"wrote  {path}")
    return 0


def _of_run(folder: Path) -> list[Path]:
    """The pictures and the page of a run; where its files are too damaged for pictures, the page, which says so."""
    from dltrain.report.page import DAMAGE
    from dltrain.report.run_page import draw_page
    from dltrain.report.run_pictures import draw_run
    from dltrain.run.folder import writing

    pictures: list[Path] = []
    try:
        with writing(folder):
            pictures = draw_run(folder)
    except DAMAGE as error:
        print(f"note: no pictures: {' '.join(str(error).split())}")
    return [*pictures, draw_page(folder)]


def _of_sweep(folder: Path) -> list[Path]:
    from dltrain.report.sweep_picture import draw_sweep
    from dltrain.run.folder import writing
    from dltrain.run.lock import held
    from dltrain.sweep.summary import grouped, ranked, ranking
    from dltrain.verbs._sweep_page import rows_of, write_page

    rows = rows_of(folder)
    column = ranking(rows)
    groups = {group.setting: group.rows for group in ranked(grouped(rows), column)}
    with writing(folder):
        pictures = draw_sweep(groups, folder, column=column)
    return [*pictures, write_page(folder, rows, running=held(folder))]
