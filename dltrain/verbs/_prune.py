"""`dltrain runs FILTER --prune`: what would be deleted, and with --yes its deletion."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from dltrain.run.console import quantity
from dltrain.run.folder import RunError
from dltrain.run.listing import Run, Sweep
from dltrain.run.prune import delete, leftovers, remove, size
from dltrain.verbs._listed import aligned, printable

COLUMNS = {"name": "left", "status": "left", "bytes": "right"}
Doomed = Run | Sweep


def prune(
    outputs: Path, runs: Sequence[Run], sweeps: Sequence[Sweep], jobs: Mapping[str, Sequence[Run]], *, yes: bool
) -> int:
    """Show the runs, and the sweeps of which every job is meant, or that have none; delete them where it is said."""
    whole = [sweep for sweep in sweeps if len(jobs[sweep.name]) == len(sweep.jobs)]
    parts = [sweep for sweep in sweeps if sweep not in whole]
    meant: list[Doomed] = [*runs, *whole]
    reasons = {each.folder: reason for each in meant if (reason := _spared(each))}
    reasons |= {sweep.folder: f"{len(jobs[sweep.name])} of its {len(sweep.jobs)} jobs match" for sweep in parts}
    doomed = [each for each in meant if each.folder not in reasons]
    hidden = leftovers(outputs)
    sizes = {each.folder: size(each.folder) for each in doomed} | {folder: size(folder) for folder in hidden}
    if sizes:
        rows = [[each.name, each.status, f"{sizes[each.folder]:,}"] for each in doomed]
        rows += [[folder.name, "left by a deletion", f"{sizes[folder]:,}"] for folder in hidden]
        print("\n".join(aligned(COLUMNS, rows)))
    for folder, reason in reasons.items():
        print(printable(f"kept: {folder}: {reason}"))
    total = f"{len(sizes)} to delete, {quantity(sum(sizes.values()), 'B')}"
    if not sizes:
        print("nothing to delete")
    elif not yes:
        print(f"{total}; nothing was deleted: --yes does it")
    else:
        _delete(doomed, hidden, sizes)
    return 0


def _spared(each: Doomed) -> str:
    """Why a run or a sweep is not deleted, if so."""
    if each.folder.is_symlink():
        return "it is a link"
    if each.status == "running":
        return "it is running"
    if isinstance(each, Run) and not each.is_ours:
        return "it holds nothing of a run"
    return "it has no list of its jobs" if isinstance(each, Sweep) and each.reason else ""


def _delete(doomed: Sequence[Doomed], hidden: Sequence[Path], sizes: Mapping[Path, int]) -> None:
    freed = []
    for folder in hidden:
        remove(folder)
        freed.append(sizes[folder])
    for each in doomed:
        try:
            delete(each.folder, [job.folder for job in each.jobs] if isinstance(each, Sweep) else ())
        except RunError as error:
            print(printable(f"kept: {error}"))
        else:
            freed.append(sizes[each.folder])
    print(f"deleted {len(freed)}, {quantity(sum(freed), 'B')} freed")
