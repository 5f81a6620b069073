"""The house holds: who imports whom, and how large files and functions may grow (design principle 16)."""

import ast
from pathlib import Path
from statistics import median

import pytest

PACKAGE = Path(__file__).parents[1] / "dltrain"
FILES = sorted(PACKAGE.rglob("*.py"))
LEAVES = {"optim", "schedules", "initializers", "losses", "metrics"}
BELOW_BUILD = {"train", "engine", "data", "models", "config", "components", "landscapes", *LEAVES}
BELOW_VERBS = {*BELOW_BUILD, "sweep", "report", "run", "loggers", "build", "trained", "bench", "evaluation"}

# Room: the rooms it may import, and the packages from outside, the standard library and numpy apart.
HOUSE: dict[str, tuple[set[str], set[str]]] = {
    "__init__": ({"trained"}, set()),
    "__main__": ({"cli"}, set()),
    "cli": ({"verbs", *BELOW_VERBS}, {"hydra"}),
    "verbs": (BELOW_VERBS, {"rich", "omegaconf", "torch", "yaml"}),
    "bench": (
        {"build", "run", *BELOW_BUILD},
        {"torch", "torchvision", "matplotlib", "rich", "lightning", "timm"},
    ),
    "sweep": ({"report", "run", "config"}, {"hydra", "optuna", "submitit"}),
    "report": ({"run", "landscapes"}, {"matplotlib", "jinja2", "yaml"}),
    "loggers": (set(), {"torch"}),
    "trained": ({"build", "components", "data", "initializers", "models", "run"}, {"torch", "omegaconf"}),
    "build": ({*BELOW_BUILD, "run"}, {"torch", "omegaconf"}),  # `run` for the weights of another run
    "components": ({"config"}, {"omegaconf", "torch"}),
    "train": ({"engine"}, {"torch"}),
    "engine": (set(), {"torch"}),
    "data": ({"landscapes"}, {"torch", "torchvision", "PIL"}),
    "landscapes": (set(), set()),
    "evaluation": (set(), set()),  # formulas of predictions, in numpy, that need no torch
    "models": (set(), {"torch", "torchvision"}),
    **{leaf: (set(), {"torch"}) for leaf in LEAVES},
    "run": (set(), {"safetensors", "rich", "tqdm", "torch"}),
    "config": (set(), {"hydra", "omegaconf", "yaml"}),
}
ONE_FILE = {
    ("run", "torch"): {"checkpoint", "recovery", "saver", "weights"},
    ("models", "torchvision"): {"torchvision"},
    ("data", "PIL"): {"pictures"},
}
LAZY = {"torchvision", "PIL", "lightning", "timm", "optuna", "submitit"}
FREE = {"numpy", *__import__("sys").stdlib_module_names}
MOST_LINES, LONGEST_FUNCTION, MEDIAN_FUNCTION = 250, 40, 12


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path: Path) -> list[tuple[str, bool]]:
    """Each module that a file imports, absolute, and whether it does so inside a function."""
    found = []
    tree = ast.parse(path.read_text())
    inside = {id(node) for function in functions(tree) for node in ast.walk(function)}
    package = ("dltrain", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in inside) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [alias.name for alias in node.names] if module == "dltrain" else []
            found += [(f"{module}.{name}", id(node) in inside) for name in names] or [(module, id(node) in inside)]
    return found


def functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_what_its_room_may(path: Path) -> None:
    here = room(path)
    rooms, packages = HOUSE[here]
    for module, lazy in imports(path):
        top, *rest = module.split(".")
        if top == "dltrain":
            target = rest[0] if rest else "__init__"
            assert target == here or target in rooms or target.startswith("__"), f"{path.name} imports {module}"
        elif top not in FREE:
            assert top in packages, f"{path.name} imports {module}"
            assert lazy or top not in LAZY, f"{path.name} imports {module} at its head"
            files = ONE_FILE.get((here, top), {path.stem})
            assert path.stem in files, f"{path.name} imports {module}, which {files} may"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= MOST_LINES
    for function in functions(ast.parse(text)):
        assert function.end_lineno - function.lineno + 1 <= LONGEST_FUNCTION, function.name


def test_functions_are_short_in_the_middle() -> None:
    lengths = [f.end_lineno - f.lineno + 1 for path in FILES for f in functions(ast.parse(path.read_text()))]
    assert median(lengths) <= MEDIAN_FUNCTION


def test_the_training_loop_fits_on_a_screen() -> None:
    fit = next(f for f in functions(ast.parse((PACKAGE / "train.py").read_text())) if f.name == "fit")
    body = [node for node in fit.body if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))]
    assert body[-1].end_lineno - body[0].lineno + 1 <= 25
