"""The page of a run, from its folder alone: of one that is over, in whatever way, or under way."""

import json
import time
from pathlib import Path
from typing import Any

import yaml

from dltrain.report.evaluation_part import evaluation
from dltrain.report.filters import filters
from dltrain.report.page import Parts, picture, write_page
from dltrain.report.run_facts import Sources, facts, files, no_evaluation, repeat, results, settings, speed, status
from dltrain.report.run_record import curves, epochs
from dltrain.run import looks
from dltrain.run.folder import read_json
from dltrain.run.record import FILE, read_rows

UNKNOWN = {"word": "unknown", "told": "How far it has come cannot be read.", "tone": "bad"}


def draw_page(folder: Path) -> Path:
    """Write report.html into a run's folder; a part that is missing or damaged is said to be. Raises WriteError."""
    parts = Parts()
    sources = read(folder, parts)
    context = {
        "name": folder.resolve().name,
        "back": "../report.html" if (folder.parent / "sweep.jsonl").is_file() else None,
        "status": parts.make("the status", lambda: status(sources)) or UNKNOWN,
        "results": parts.make("the result", lambda: results(sources)) or [],
        "facts": parts.make("the list of what was run", lambda: facts(sources)) or [],
        "command": parts.make("the command", lambda: repeat(sources)),
        "charts": parts.make("the curves", lambda: curves(sources.rows)) or [],
        "epochs": parts.make("the table of epochs", lambda: epochs(sources.rows)),
        "path": picture(folder, "path"),
        "looks": parts.make("the count of looks", lambda: _looks(sources)),
        "evaluation": parts.make("the evaluation", lambda: evaluation(folder, sources.summary)),
        "no_evaluation": parts.make("how to evaluate", lambda: no_evaluation(sources)) or "None yet.",
        "filters": parts.make("the first layer", lambda: filters(folder)),
        "speed": parts.make("the speed", lambda: speed(sources)) or [],
        "settings": parts.make("the settings", lambda: settings(sources)),
        "environment": parts.make("the environment", lambda: _environment(sources)) or [],
        "files": files(folder),
        "made": time.strftime("%Y-%m-%d %H:%M:%S"),
        "notes": parts.notes,
    }
    return write_page(folder, "run.html.j2", **context)


def try_page(folder: Path) -> str | None:
    """Write report.html; why that could not be, for a page shows what is there anyway and must not fail a run."""
    try:
        draw_page(folder)
    except Exception as error:
        return " ".join(str(error).split()) or type(error).__name__
    return None


def read(folder: Path, parts: Parts) -> Sources:
    """What the folder holds; a damaged file is as a missing one, and said to be."""

    summary = parts.make("summary.json", lambda: _content(folder / "summary.json", needed="status")) or None
    rows = parts.make("metrics.jsonl", lambda: _rows(folder, summary or {}))
    parts.make("checkpoints/", lambda: _check_weights(folder, summary or {}))
    config, origin = parts.make("config.yaml", lambda: _config(folder / "config.yaml")) or ({}, {})
    return Sources(
        folder,
        config=config,
        origin=origin,
        rows=rows or [],
        summary=summary,
        environment=parts.make("environment.json", lambda: _content(folder / "environment.json")) or {},
    )


def _content(path: Path, *, needed: str | None = None) -> dict[str, Any]:
    found = read_json(path)
    if found is None and path.exists():
        raise ValueError(f"{path.name} holds no JSON object")
    if needed and found is not None and needed not in found:
        raise ValueError(f"it tells no {needed}")
    return found or {}


def _rows(folder: Path, summary: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of the record, which every run begins and not every run comes to write into."""
    path, rows = folder / FILE, [row for row in read_rows(folder) if _is_row(row)]
    over = (folder / "summary.json").exists() or any(folder.glob("checkpoints/step-*"))
    if over and not path.is_file():
        raise ValueError("it is not there")
    if over and not rows and (summary.get("status") == "completed" or path.stat().st_size):
        raise ValueError("it holds no row")
    return rows


def _check_weights(folder: Path, summary: dict[str, Any]) -> None:
    """Raises ValueError where a run that has saved its weights has none."""
    saved = summary.get("status") in ("completed", "interrupted") and summary.get("steps")
    if saved and not any(folder.glob("checkpoints/step-*")):
        raise ValueError("it holds no weights")


def _is_row(row: Any) -> bool:
    if not isinstance(row, dict) or not {"split", "step", "epoch"} <= row.keys():
        raise ValueError("metrics.jsonl has a line that is no row")
    return True


def _config(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configuration, and what its head tells: choices of groups, the command, and the defaults of what differs."""
    text = path.read_text()
    first, second, *_ = [*text.split("\n", 2), "", ""]
    content = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} holds no configuration")
    origin = json.loads(second[2:]) if second.startswith("# {") else {}
    choices = dict(word.split("=", 1) for word in first.lstrip("# ").split() if "=" in word)
    return content, {**origin, "choices": choices}


def _looks(sources: Sources) -> str | None:
    """How often the test set was looked at, where it was."""
    counted = looks.count(sources.folder) if sources.rows else {}
    return looks.words(counted) if sum(counted.values()) else None


def _environment(sources: Sources) -> list[tuple[str, str]]:
    """What the run depends on besides its settings."""
    found = sources.environment
    rows: list[tuple[str, str]] = [
        (name, str(found[name])) for name in ("python", "platform", "device", "threads") if name in found
    ]
    rows += [(name, str(version or "not installed")) for name, version in found.get("packages", {}).items()]
    if found.get("data_fingerprint"):
        rows.append(("data fingerprint", str(found["data_fingerprint"])))
    if not found:
        return []
    git = found.get("git")
    rows.append(("git commit", str(git["commit"]) if git else "no git checkout"))
    if git:
        changed = [str(path) for path in git["changed"]]
        rows.append(("uncommitted changes", ", ".join(changed) if changed else "none"))
    parts = len(found.get("earlier", [])) + 1
    return [*rows, ("environments", f"{parts}, as the run was resumed elsewhere")] if parts > 1 else rows
