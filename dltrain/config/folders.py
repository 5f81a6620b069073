"""Finding `conf/` and listing what is in it, without importing Hydra: help and TAB stand on this."""

import difflib
from collections.abc import Sequence
from pathlib import Path

ALIASES = {
    "gpu": "cuda", "half": "fp16", "float16": "fp16", "float32": "fp32", "bfloat16": "bf16", "ce": "cross_entropy",
    "infer": "predict", "inference": "predict",
    "evaluate": "eval", "test": "eval", "list": "runs", "ls": "runs", "fit": "train",
}  # fmt: skip
SEVERAL = {"logger"}  # groups that take several choices at once, each a node of its name: logger=[a,b]


def conf_dir() -> Path:
    """The YAML files: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).resolve().parents[1]
    beside = package.parent / "conf"
    return beside if beside.is_dir() and (package.parent / "pyproject.toml").is_file() else package / "conf"


def groups(folders: Sequence[Path]) -> list[str]:
    """The groups that the folders hold."""
    children = [child for folder in folders for child in folder.iterdir() if child.is_dir()]
    return sorted({child.name for child in children if any(child.glob("*.yaml"))} - {"hydra"})


def options(group: str, folders: Sequence[Path]) -> list[str]:
    """The choices of a group."""
    return sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})


def listed(choice: str) -> list[str]:
    """The choices in `[a,b]`, as a group that takes several writes them, or the only one."""
    return [each for each in choice.strip("[]").split(",") if each]


def nearest(word: str, known: Sequence[str]) -> str:
    """What follows an unknown word: the nearest known ones, or all where none is near."""
    meant = ALIASES.get(word.lower(), word.lower())
    near = [meant] if meant in known else difflib.get_close_matches(meant, known, n=3)
    return f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(known)}"
