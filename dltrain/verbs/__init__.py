"""The verbs of the command line, one a file; the first line of a file's docstring is its help."""

import ast
from collections.abc import Sequence
from pathlib import Path

from dltrain.config.folders import nearest


def verbs() -> dict[str, str]:
    """Every verb and its help, read without importing any."""
    files = sorted(path for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))
    names = {path: path.stem.replace("_", "-") for path in files}
    return {name: (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0] for path, name in names.items()}


def unknown(verb: str, words: Sequence[str] = ()) -> str:
    """What to say of a verb that is not there, of the words of a command line."""
    known = list(verbs())
    from dltrain.config.meant import meant_words
    from dltrain.verbs.completion import known_keys

    meant = meant_words(words, 0, known_keys()) if words[:1] == [verb] else None
    hint = nearest(verb, known)
    if meant and not hint.startswith("did"):
        hint = f"did you mean {meant}?"
    return f"unknown verb {verb!r}: {hint}; training needs none: dltrain model=lenet, dltrain -m model=lenet,mlp"
