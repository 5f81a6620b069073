"""What a word of a command line was meant to be, where it is none; imports nothing, so that flags and verbs can ask."""

import difflib
import re
from collections.abc import Collection, Sequence

from dltrain.config.folders import ALIASES, conf_dir, groups, options

# What other tools and papers call what is here, a part of a dotted key at a time.
SYNONYMS = {
    "optimizer": "optim", "optimiser": "optim", "scheduler": "schedule", "lr_scheduler": "schedule",
    "dataset": "data", "network": "model", "net": "model", "arch": "model", "criterion": "loss",
    "learning_rate": "lr", "wd": "weight_decay", "num_epochs": "epochs", "bs": "batch_size", "batch": "batch_size",
}  # fmt: skip
RANKS = {"gpus", "ranks", "devices", "num_gpus", "world_size", "nproc_per_node", "num_devices"}  # of device.count
WHOLE = re.compile(r"[^\s=:]+=(?!=)(\S.*)?", re.DOTALL)
TORN = re.compile(r"([+\w.-]+)\s*(?:==|=|:|\s)\s*(\S+)")
MOST_OPTIONS, NEAR = 4, 0.75


def meant_keys(written: str, known: Collection[str]) -> list[str]:
    """The dotted keys, or groups, that a misspelt one, a part or another name of one may stand for; the best first."""
    parts = written.lstrip("+").replace("-", "_").split(".")
    key = ".".join(SYNONYMS.get(part.lower(), part.lower()) for part in parts)
    if key in known:
        return [key]
    if key.removeprefix("device.") in RANKS and "device.count" in known:
        return ["device.count"]
    last = {each: each.rpartition(".")[2] for each in known}
    same = [each for each in known if last[each] == key.rpartition(".")[2] and last[each] != "name"]
    if 0 < len(same) <= 3:
        return same
    if "." in key:
        group, _, leaf = key.rpartition(".")
        near = difflib.get_close_matches(leaf, [last[each] for each in known if each.startswith(f"{group}.")], n=3)
        dotted = [each for each in known if "." in each]
        return [f"{group}.{each}" for each in near] or difflib.get_close_matches(key, dotted, n=1, cutoff=NEAR)
    near = difflib.get_close_matches(key, [*last.values()], n=1, cutoff=NEAR)
    return [each for each in known if last[each] in near and "name" not in near][:3]


def options_with(key: str) -> list[str]:
    """Choices of a group, as `optim=momentum`, whose YAML file has the last part of a key that the group's has not."""
    group, _, leaf = key.partition(".")
    files = sorted((conf_dir() / group).glob("*.yaml"), key=lambda path: (len(path.stem), path.stem))
    return [f"{group}={path.stem}" for path in files if re.search(rf"^{re.escape(leaf)}:", path.read_text(), re.M)]


def meant_option(word: str) -> str | None:
    """The choice of a group that a bare option stands for: `lenet` is model=lenet."""
    option = ALIASES.get(word.lower(), word.lower())
    return next((f"{group}={option}" for group in groups([conf_dir()]) if option in options(group, [conf_dir()])), None)


def stray(words: Sequence[str]) -> int | None:
    """The place of the first word that is no override: it has no `=`, or a blank beside it."""
    for place, word in enumerate(words):
        torn = word.endswith("=") and place + 1 < len(words) and "=" not in words[place + 1]
        if not word.startswith("~") and (torn or not WHOLE.fullmatch(word)):
            return place
    return None


def meant_words(words: Sequence[str], place: int, known: Collection[str]) -> str | None:
    """The override that a stray word was meant to be, with those after it: `lr = 0.1` is optim.lr=0.1."""
    word, before = words[place], words[place - 1] if place else ""
    torn = TORN.match(" ".join(words[place : place + 3]))
    if torn and "=" not in torn[2] and (keys := meant_keys(torn[1], known)):
        return f"{keys[0]}={torn[2]}"
    if (not before or "." in word) and (keys := meant_keys(word, known)):
        return f"{keys[0]}=VALUE"
    if before.endswith(","):
        return f"{before}{word}"
    if before and before.partition("=")[0] not in groups([conf_dir()]):
        return f"{before} {word}"
    return meant_option(word)
