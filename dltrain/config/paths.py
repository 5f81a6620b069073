"""The paths that a configuration holds, made absolute, so that it means the same from every directory."""

from pathlib import Path
from typing import Any

SQLITE, JOURNAL = "sqlite:///", "journal:"


def anchor(config: Any, directory: Path) -> None:
    """Make `data.root` and the file of `sweep.storage` absolute; relative ones are below the directory."""
    data, sweep = config.get("data") or {}, config.get("sweep") or {}
    if isinstance(root := data.get("root"), str):
        data["root"] = str(directory / Path(root).expanduser())
    if isinstance(storage := sweep.get("storage"), str):
        for kind in (SQLITE, JOURNAL):
            path = storage.removeprefix(kind)
            if path not in (storage, "", ":memory:"):
                sweep["storage"] = f"{kind}{directory / path}"
