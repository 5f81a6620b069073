"""Run a run again from its folder alone and compare: `dltrain replay RUN [--to NAME|DIR] [--device NAME] [--check]`."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from dltrain.config.errors import ConfigError, UsageError
from dltrain.config.schema import refusal
from dltrain.run.folder import RunError, find, read_json, write_json
from dltrain.run.lock import Lock
from dltrain.run.record import read_rows
from dltrain.verbs._listed import outputs_of, printable

if TYPE_CHECKING:
    from dltrain.build import Run
    from dltrain.config.compose import Composition
    from dltrain.loggers.several import Loggers
    from dltrain.verbs._replay_differences import Comparison
    from dltrain.verbs._replay_verdict import Outcome, Verdict

CHECK_FAILED, INTERRUPTED = 70, (130, 143)
ENDED = ("completed", "diverged")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Where the new run goes, another device, and whether only to look for what differs."""
    parser.add_argument("--to", metavar="NAME|DIR", help="where the new run goes")
    parser.add_argument("--device", help="cpu, cuda or mps")
    parser.add_argument("--check", action="store_true", help="say what differs, and do not train")


def main(words: list[str], flags: argparse.Namespace) -> int:
    """Say what differs from the time of the run, train it again in a folder of its own, and compare the two."""
    names, outputs = outputs_of(words)
    if len(names) != 1:
        raise UsageError("dltrain replay takes one run, a path or a name, such as dltrain replay first")

    folder = find(names[0], outputs)
    target = _target(folder, flags.to, outputs)

    from dltrain.build import build
    from dltrain.config import stored
    from dltrain.verbs._replay_differences import compare
    from dltrain.verbs._replay_verdict import judge
    from dltrain.verbs._start import sinks_of

    changed = [f"device.name={flags.device}"] if flags.device else []
    composition = stored.read(folder / "config.yaml", changed)
    then, until = _recorded(folder)
    sinks = sinks_of(composition.config)
    run = build(composition.config)
    comparison = compare(folder, run)
    _say(folder, comparison)
    if flags.check:
        return CHECK_FAILED if comparison.differences else 0
    replayed, code = _train(run, composition, sinks, target, until=until, numbered=flags.to is None)
    if code in INTERRUPTED:
        return code
    examples = {split: batches.num_examples for split, batches in run.batches.items()}
    verdict = judge(then, _outcome(replayed), comparison.differences, num_examples=examples, until=until)
    told = {"of": str(folder.resolve()), "until": until, **asdict(comparison), **verdict.content()}
    write_json(replayed / "replay.json", told)
    _tell(verdict, replayed)
    return verdict.exit_code


def _target(folder: Path, to: str | None, outputs: Path) -> Path:
    """The folder of the replay: beside the run, or below `runs` for the job of a sweep. Raises ConfigError."""
    own = folder.resolve()
    if to is None and (own.parent / "sweep.jsonl").is_file():
        return outputs / "runs" / f"{own.parent.name}-{own.name}-replay"
    if to is None:
        return folder.parent / f"{own.name}-replay"
    target = Path(to) if "/" in to else outputs / "runs" / to
    if words := refusal("name", target.name, None):
        raise ConfigError(f"--to {to}: a name {words}")
    if target.exists():
        raise ConfigError(f"--to {to}: {target} is there already; choose another name")
    return target


def _recorded(folder: Path) -> tuple["Outcome", int | None]:
    """What a run came to and, where it did not end, its last step. Raises RunError where there is none."""
    outcome = _outcome(folder)
    steps = outcome.summary.get("steps", max((row["step"] for row in outcome.rows), default=0))
    if not steps or not outcome.rows:
        raise RunError(f"{folder} has recorded no step: there is nothing to compare a replay with")
    return outcome, None if outcome.summary.get("status") in ENDED else steps


def _outcome(folder: Path) -> "Outcome":
    from dltrain.verbs._replay_verdict import Outcome

    return Outcome(read_rows(folder), read_json(folder / "summary.json") or {})


def _train(
    run: "Run", composition: "Composition", sinks: "Loggers", target: Path, *, until: int | None, numbered: bool
) -> tuple[Path, int]:
    """Train in a folder of its own; returns it and the exit code."""
    from dltrain.verbs._start import new_folder, train_in

    with Lock() as lock:
        folder = new_folder(run, composition, lock, parent=target.parent, name=target.name, numbered=numbered)
        return folder, train_in(folder, run, composition, sinks, until=until)


def _say(folder: Path, comparison: "Comparison") -> None:
    """What is known before the first step."""
    print(f"replay of {folder}")
    for difference in comparison.differences:
        print(printable(f"differs: {difference}"))
    for note in comparison.notes:
        print(printable(f"note: {note}"))
    for what in comparison.unknown:
        print(f"not known: {what}")
    if not comparison.differences:
        same = ", ".join(comparison.known)
        print(f"nothing known differs; as it was: {same}" if same else "nothing is known of then")
    print(flush=True)


def _tell(verdict: "Verdict", folder: Path) -> None:
    """The verdict, which is the last line."""
    print(f"\nreplay  {verdict.equal_rows} of {verdict.rows} rows are the same to the bit")
    if verdict.first:
        first = dict(verdict.first)
        key, then, now = (first.pop(name) for name in ("key", "then", "now"))
        where = f"first   {first['split']} row of step {first['step']}" if first else "first   summary.json"
        print(printable(f"{where}: {key} {json.dumps(now)} now, {json.dumps(then)} then"))
    for end in verdict.ends:
        print(
            f"{end['split']:<8}{end['key']} {end['now']:.6g} now, {end['then']:.6g} then, noise to {end['allowed']:.2g}"
        )
    print(f"wrote   {folder / 'replay.json'}")
    print(printable(f"{verdict.word}: {verdict.reason}"))
