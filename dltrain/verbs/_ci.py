"""`trainer=ci`: after training, everything else that a run is good for is tried, one stage after another."""

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dltrain.build import Run
from dltrain.config.compose import Composition
from dltrain.report.run_page import try_page
from dltrain.run.console import Console
from dltrain.run.folder import read_json, write_json
from dltrain.verbs import _ci_training as training
from dltrain.verbs import _ci_using as using
from dltrain.verbs._ci_subject import SCRATCH, CheckError, Subject

CHECK_FAILED = 70
STAGES: dict[str, Callable[[Subject], str]] = {
    "data": training.data,
    "steps": training.steps,
    "checkpoint": training.newest_checkpoint,
    "resume": training.resume,
    "eval": using.evaluate,
    "predict": using.predict,
    "export": using.export,
    "report": using.report,
}


def check_all(folder: Path, run: Run, composition: Composition, console: Console, code: int) -> int:
    """Go through all stages after a training that ended with a code; returns the code of the whole.

    ci.json says of each whether it passed, what was seen and how long it took. A training that failed ends there.
    """
    summary = read_json(folder / "summary.json") or {}
    told = f"{summary.get('steps')} steps" if code == 0 else summary.get("cause")
    results = [_result("train", told, passed=code == 0, seconds=summary.get("seconds"))]
    _keep(folder, results, over=code != 0)
    if code:
        return code
    unfinished = {"status": "failed", "exit_code": CHECK_FAILED, "cause": "its checks were not finished"}
    write_json(folder / "summary.json", {**summary, **unfinished})
    shutil.rmtree(folder / SCRATCH, ignore_errors=True)  # of checks that were killed
    subject = Subject(folder, run, composition)
    for name, check in STAGES.items():
        console.say(f"check {name}: {(result := _go_through(name, check, subject))['told']}")
        results.append(result)
        _keep(folder, results, over=name == [*STAGES][-1])
    end = _end(folder, results)
    console.say(end.get("cause") or f"check passed: {', '.join(result['stage'] for result in results)}")
    write_json(folder / "summary.json", {**summary, **end})
    try_page(folder)  # one that cannot be drawn has failed a stage
    return CHECK_FAILED if end else 0


def _end(folder: Path, results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What failed stages make of a summary."""
    failed = [result["stage"] for result in results if result["status"] == "failed"]
    cause = f"check failed: {', '.join(failed)}; {folder / 'ci.json'} says more"
    return {"status": "failed", "exit_code": CHECK_FAILED, "cause": cause} if failed else {}


def _go_through(name: str, check: Callable[[Subject], str], subject: Subject) -> dict[str, Any]:
    """The result of a stage; whatever goes wrong in it is what it is there to find."""
    begun = time.perf_counter()
    try:
        told, passed = check(subject), True
    except CheckError as error:
        told, passed = f"failed: {error}", False
    except Exception as error:
        told, passed = f"failed: {type(error).__name__}: {' '.join(str(error).split())}", False
    return _result(name, told, passed=passed, seconds=time.perf_counter() - begun)


def _result(name: str, told: str | None, *, passed: bool, seconds: float | None) -> dict[str, Any]:
    return {"stage": name, "status": "passed" if passed else "failed", "seconds": seconds, "told": told}


def _keep(folder: Path, results: Sequence[dict[str, Any]], *, over: bool) -> None:
    passed = all(result["status"] == "passed" for result in results)
    status = ("passed" if passed else "failed") if over else "under way"
    seconds = sum(result["seconds"] or 0.0 for result in results)
    write_json(folder / "ci.json", {"status": status, "seconds": seconds, "stages": list(results)})
