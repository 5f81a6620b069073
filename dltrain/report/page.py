"""report.html: one page that needs nothing but itself, neither a network nor a script to be read."""

import base64
import hashlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from yaml import YAMLError

from dltrain.run.console import number, quantity
from dltrain.run.folder import RunError, writing

FILE = "report.html"
TEMPLATES = Path(__file__).parent / "templates"
MOST_PICTURE = 450_000  # bytes of a drawn picture that a page takes in
LONGEST = 300  # letters of a text from outside
DAMAGE = (
    ArithmeticError, AttributeError, LookupError, OSError, RecursionError, RunError, TypeError, ValueError, YAMLError,
)  # fmt: skip
Part = TypeVar("Part")


class Parts:
    """Makes the parts of a page, each of which may fail alone; `notes` say what is left out, and why."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def make(self, what: str, maker: Callable[[], Part]) -> Part | None:
        """What `maker` returns; None where what it reads is damaged."""
        try:
            return maker()
        except DAMAGE as error:
            words = " ".join(str(error).split())
            self.notes.append(f"{what} is left out: {clipped(words or type(error).__name__)}")
            return None


def write_page(folder: Path, template: str, **context: Any) -> Path:
    """Fill a template and put the page into a folder, in the place of an earlier one. Raises WriteError."""
    style, script = (TEMPLATES.joinpath(name).read_text() for name in ("style.css", "script.js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src {_digest(style)}; script-src {_digest(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    inside = {"policy": policy, "style": style, "script": script}
    text = _environment().get_template(template).render(**context, **inside)
    path = folder / FILE
    draft = path.with_name(f".{FILE}.{os.getpid()}")
    with writing(path):
        try:
            draft.write_text(text, encoding="utf-8")
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
    return path


def picture(folder: Path, name: str) -> str | None:
    """A drawn picture as a data URL, sharp where that is small enough; None where there is none that is."""
    for end, kind in (("svg", "svg+xml"), ("png", "png")):
        path = folder / f"{name}.{end}"
        if path.is_file() and path.stat().st_size <= MOST_PICTURE:
            return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
    return None


def clipped(text: str, most: int = LONGEST) -> str:
    """A text without what is too much of it."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def printable(value: Any) -> Any:
    """A text without controls, such as those that turn around what follows; what is no text, or markup, as it is."""
    if not isinstance(value, str) or hasattr(value, "__html__") or value.isprintable():
        return value
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "?" for letter in value)


def spaced(name: str) -> str:
    """A column's name in words."""
    return name.replace("_", " ")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=printable,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {"number": number, "quantity": quantity, "spaced": spaced, "clipped": clipped}
    return environment
