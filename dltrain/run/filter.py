"""Filters over runs: `model==resnet18 and val_accuracy>0.92`, read with Python's grammar and never executed."""

import ast
import operator
import re
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from dltrain.run.folder import RunError

UNREADABLE = 2
LONGEST, DEEPEST = 10_000, 50
TOKEN = re.compile(r"\s*('[^']*'|\"[^\"]*\"|[\w./+-]+|==|!=|<=|>=|[<>()\[\],]|\S)")
NUMBER = re.compile(r"[+-]?(\d[\d_]*\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
KEY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
CONSTANTS = {"null": "None", "true": "True", "false": "False"}
COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}  # fmt: skip
Truth = bool | None  # None: cannot be told, and stays so under `not`


@dataclass(frozen=True)
class Filter:
    """A condition on a run's values. `names` must be known; other words on the right of a comparison may be texts."""

    tree: ast.expr
    names: tuple[str, ...]

    def matches(self, values: Mapping[str, Any], known: Collection[str]) -> bool:
        """Whether a run is meant; what it has no number for, or another type, it is never meant by."""
        return _holds(self.tree, values, known) is True


def read(text: str) -> Filter:
    """Read a filter. Raises RunError (2)."""
    if len(text) > LONGEST:
        raise _refusal(f"it is longer than {LONGEST:,} characters")
    source = " ".join(_source(word) for word in TOKEN.findall(text))
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = "too deeply nested" if isinstance(error, RecursionError | MemoryError) else "as in model==mlp"
        raise _refusal(f"{text[:200]!r}, {reason}") from error
    names: list[str] = []
    _check(tree, names, DEEPEST)
    return Filter(tree, tuple(dict.fromkeys(names)))


def _refusal(what: str) -> RunError:
    return RunError(f"cannot read the filter: {what}", exit_code=UNREADABLE)


def _source(word: str) -> str:
    """A word as Python would write it: texts without escapes, and names of runs quoted."""
    if word == "=":
        raise _refusal("= sets a value, == compares, as in optim==sgd")
    if word[0] in "'\"" and len(word) > 1:
        return f"({word[1:-1]!r})"  # so that Python does not join two that follow each other
    if not re.match(r"[\w./+-]", word) or NUMBER.fullmatch(word) or KEY.fullmatch(word):
        return CONSTANTS.get(word, word)
    return f"({word!r})"


def _check(node: ast.expr, names: list[str], depth: int) -> None:
    """Refuse all but and, or, not, and comparisons; collect the names that must be known."""
    if depth == 0:
        raise _refusal("too deeply nested")
    match node:
        case ast.BoolOp(values=parts):
            for part in parts:
                _check(part, names, depth - 1)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            _check(operand, names, depth - 1)
        case ast.Compare():
            _check_comparison(node, names)
        case _:
            hint = "compare it with a value, in quotes, since the shell reads < and > itself"
            raise _refusal(f"{_written(node)} is no comparison; {hint}")


def _check_comparison(node: ast.Compare, names: list[str]) -> None:
    terms = [node.left, *node.comparators]
    for sign, term in zip([None, *node.ops], terms, strict=True):
        if isinstance(sign, ast.Is | ast.IsNot):
            raise _refusal("'is' is not offered, == is")
        if isinstance(sign, ast.In | ast.NotIn) != isinstance(term, ast.List | ast.Tuple):
            raise _refusal("'in' takes a list, as in model in [lenet,mlp]")
        for each in term.elts if isinstance(term, ast.List | ast.Tuple) else [term]:
            _check_term(each)
    may_be_text = [terms[1]] if len(terms) == 2 and key(terms[0]) else []
    names += [name for term in terms if (name := key(term)) and term not in may_be_text]


def _check_term(node: ast.expr) -> None:
    match node:
        case ast.Constant(value=str() | int() | float() | None):
            return
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=ast.Constant(value=int() | float())):
            return
    if not key(node):
        raise _refusal(f"{_written(node)} is neither a name, a number nor a text")


def key(node: ast.expr) -> str | None:
    """The dotted key that a node writes."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else None


def _written(node: ast.expr) -> str:
    return ast.unparse(node)[:200] if isinstance(node, ast.Name | ast.Attribute | ast.Constant) else "a part of it"


def _holds(node: ast.expr, values: Mapping[str, Any], known: Collection[str]) -> Truth:
    match node:
        case ast.BoolOp(op=sign, values=parts):
            return _joined([_holds(part, values, known) for part in parts], every=isinstance(sign, ast.And))
        case ast.UnaryOp(operand=operand):
            inner = _holds(operand, values, known)
            return None if inner is None else not inner
    assert isinstance(node, ast.Compare)
    terms = [node.left, *node.comparators]
    found = [_value(term, values, known) for term in terms]
    nulls = [isinstance(term, ast.Constant) and term.value is None for term in terms]
    steps = zip(node.ops, found, found[1:], nulls, nulls[1:], strict=False)
    return _joined([_compared(sign, *pair, null=a or b) for sign, *pair, a, b in steps], every=True)


def _joined(truths: list[Truth], *, every: bool) -> Truth:
    """`and` where every one must hold, else `or`: decided by one that fails, or holds, whatever cannot be told."""
    if (not every) in truths:
        return not every
    return None if None in truths else every


def _value(node: ast.expr, values: Mapping[str, Any], known: Collection[str]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            return [_value(part, values, known) for part in parts]
        case ast.UnaryOp(op=sign, operand=ast.Constant(value=int() | float() as number)):
            return -number if isinstance(sign, ast.USub) else number
    name = key(node)
    assert name is not None, "a filter that was read has no other terms"
    return values.get(name) if name in known else name


def _compared(sign: ast.cmpop, left: Any, right: Any, *, null: bool) -> Truth:
    """One comparison; `null`: with what is written as null, which what is missing equals."""
    if null:
        same = left is None and right is None
        return {ast.Eq: same, ast.NotEq: not same}.get(type(sign))
    if isinstance(sign, ast.In | ast.NotIn):
        found = any(_compared(ast.Eq(), left, each, null=each is None) for each in right)
        return None if left is None and not found else found == isinstance(sign, ast.In)
    if _kind(left) is None or _kind(left) != _kind(right):
        return None
    return COMPARISONS[type(sign)](left, right)


def _kind(value: Any) -> str | None:
    if isinstance(value, bool):
        return "truth"
    return "number" if isinstance(value, int | float) else "text" if isinstance(value, str) else None
