"""The verbs of the command line, one a file; the first line of a file's docstring is its help."""

import ast
from pathlib import Path

from dltrain.config.folders import nearest

PLANNED = (
    "export", "watch", "replay", "lr-find", "overfit",
)  # fmt: skip


def verbs() -> dict[str, str]:
    """Every verb and its help, read without importing any."""
    files = sorted(path for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))
    names = {path: path.stem.replace("_", "-") for path in files}
    return {name: (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0] for path, name in names.items()}


def unknown(verb: str) -> str:
    """What to say of a verb that is not there."""
    known = list(verbs())
    if verb in PLANNED:
        return f"the verb {verb} does not exist yet; there are: {', '.join(known)}"
    return f"unknown verb {verb!r}: {nearest(verb, known)}; an override has the form key=value"
