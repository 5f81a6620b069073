"""Names of settings, short enough for a legend or an axis."""

from collections.abc import Mapping, Sequence
from itertools import takewhile
from textwrap import wrap

LONGEST_VALUE, DIGITS, SHARED = 22, 4, 8
WIDTH, ROOM = 32, 22


def labels(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """Short names for settings, of as many lines as leave room for all; what is cut off stands in the table."""
    keys = short_keys([key for each in settings for key in each])
    values = {key: short_values([each[key] for each in settings if key in each], LONGEST_VALUE) for key in keys}
    lines = max(2, min(4, ROOM // max(1, len(settings))))
    texts = [" ".join(f"{keys[key]}={values[key][value]}" for key, value in each.items()) or "all" for each in settings]
    return ["\n".join(wrap(text, WIDTH, max_lines=lines, placeholder=" …", break_on_hyphens=False)) for text in texts]


def short_keys(keys: Sequence[str]) -> dict[str, str]:
    """The last part of each dotted key, where that tells it from the others."""
    whole = dict.fromkeys(keys)
    last = [key.rpartition(".")[2] for key in whole]
    return {key: name if last.count(name) == 1 else key for key, name in zip(whole, last, strict=True)}


def short_values(texts: Sequence[str], length: int) -> dict[str, str]:
    """Numbers in few digits, paths from where they part, and words without their middle, where they are long."""
    folders = takewhile(lambda parts: len(set(parts)) == 1, zip(*(text.split("/") for text in texts), strict=False))
    folder = "/".join(parts[0] for parts in folders)
    shared = len(folder) if len(folder) >= SHARED and len(set(texts)) > 1 else 0
    return {text: cut("…" + text[shared:] if shared else _digits(text), length) for text in texts}


def _digits(text: str) -> str:
    try:
        return text if len(text) <= DIGITS + 4 else f"{float(text):.{DIGITS}g}"
    except ValueError:
        return text


def cut(text: str, length: int) -> str:
    """A text without its middle, where it is too long: values tend to differ at an end."""
    if len(text) <= length:
        return text
    head = (length - 1) // 3
    return f"{text[:head]}…{text[len(text) - (length - 1 - head) :]}"
