"""The paths that a configuration holds, made absolute, so that it means the same from every directory."""

from pathlib import Path
from typing import Any

from dltrain.config.folders import conf_dir

SQLITE, JOURNAL = "sqlite:///", "journal:"
FILES = (("data", "root"), ("data", "path"), ("model", "weights"))


def anchor(config: Any, directory: Path) -> None:
    """Make the files and folders that a configuration names absolute; relative ones are below the directory.

    What is not there is looked for beside `conf/`, as presets name what comes with a checkout. `init.path` may be the
    name of a run, and stays it unless there is such a folder.
    """
    for group, key in FILES:
        node = config.get(group) or {}
        if isinstance(path := node.get(key), str):
            given = Path(path).expanduser()
            beside = conf_dir().parent / given
            node[key] = str(beside if beside.exists() and not (directory / given).exists() else directory / given)
    init = config.get("init") or {}
    if isinstance(run := init.get("path"), str) and (directory / run).is_dir():
        init["path"] = str(directory / run)
    _anchor_storage(config.get("sweep") or {}, directory)


def _anchor_storage(sweep: Any, directory: Path) -> None:
    """The file of an optuna study; a server's address stays as it is."""
    if isinstance(storage := sweep.get("storage"), str):
        for kind in (SQLITE, JOURNAL):
            path = storage.removeprefix(kind)
            if path not in (storage, "", ":memory:"):
                sweep["storage"] = f"{kind}{directory / path}"
