"""The verbs of the command line, one a file; the first line of a file's docstring is its help."""

import ast
from pathlib import Path


def verbs() -> dict[str, str]:
    """Every verb and its help, read without importing any."""
    files = sorted(path for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))
    return {path.stem: (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0] for path in files}
