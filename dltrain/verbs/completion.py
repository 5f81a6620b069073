"""Print a shell's TAB completion: `eval "$(dltrain completion bash)"`, also zsh and fish."""

import argparse
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from dltrain.config.errors import UsageError
from dltrain.config.folders import SEVERAL, conf_dir, groups, listed, options
from dltrain.verbs import verbs

SCRIPTS = {
    "bash": """\
_dltrain() {
    local IFS=$'\\n'
    COMPREPLY=($(COMP_LINE="${COMP_LINE:0:$COMP_POINT}" dltrain completion query 2>/dev/null))
    compopt -o nospace
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} != *[=./] ]] && compopt +o nospace
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=/}
complete -F _dltrain dltrain
""",
    "zsh": """\
_dltrain() {
    local -a found
    found=("${(@f)$(COMP_LINE="$BUFFER[1,$CURSOR]" dltrain completion query 2>/dev/null)}")
    compadd -S '' -- $found
}
compdef _dltrain dltrain
""",
    "fish": """\
complete -c dltrain -f -a '(COMP_LINE=(commandline -cp) dltrain completion query 2>/dev/null)'
""",
}
RUN_VERBS = {"resume", "eval", "predict", "export", "report", "watch", "inspect", "replay", "diff"}
OVERRIDABLE = {"resume", "inspect"}  # of these, those that take overrides, too
ACTIONS = {"data": ["fetch", "check"], "completion": [*SCRIPTS], "help": [*verbs()]}
FLAGS = ("--multirun", "--cfg", "--config-dir", "--debug", "--help", "--version", "--hydra-help")
FLAGS_OF = {
    "runs": ("--sort", "--jobs", "--json", "--prune", "--yes"), "diff": ("--json",), "resume": ("--allow-changes",),
    "bench": ("--quick", "--again", "--repeats", "--minutes", "--output"),
    "eval": ("--split", "--data", "--checkpoint", "--device"),
    "export": ("--format", "--checkpoint", "--tolerance", "--data"),
    "predict": ("--top", "--json", "--invert", "--fit", "--prompt", "--length", "--temperature", "--seed"),
    "inspect": ("--parameter", "--folder"), "watch": ("--once",),
    "lr-find": ("--from", "--to", "--steps", "--config-dir"),
    "overfit": ("--steps", "--config-dir"), "replay": ("--to", "--device", "--check"),
}  # fmt: skip


def main(words: list[str], flags: argparse.Namespace) -> int:
    """Print a script to evaluate, or answer a query from it. `install=bash` is Hydra's way to ask."""
    asked = [word.removeprefix("install=") for word in words if not word.startswith("outputs_dir=")]
    if asked == ["query"]:
        print("\n".join(candidates(os.environ.get("COMP_LINE", ""))))
        return 0
    shell = asked[0] if asked else "bash"
    if len(asked) > 1 or shell not in SCRIPTS:
        raise UsageError(f"no completion for {' '.join(asked)!r}; there is: {', '.join(SCRIPTS)}")
    print(SCRIPTS[shell], end="")
    return 0


def candidates(line: str) -> list[str]:
    """The words that may stand where a command line ends."""
    *before, word = line.split(" ")
    before = [each for each in before[1:] if each]
    return sorted(each for each in _possible(before, word) if each.startswith(word))


def _possible(before: list[str], word: str) -> Sequence[str]:
    verb = before[0] if before else ""
    folders = [conf_dir(), *_config_dirs(before)]
    if word.startswith("-"):
        return FLAGS_OF.get(verb, FLAGS)
    if verb == "runs":
        return _filters(before, word, folders)
    if verb in RUN_VERBS:
        return _runs(before, word)
    if before in ([each] for each in ACTIONS):
        return ACTIONS[verb]
    if "=" in word:
        group, _, choice = word.partition("=")
        done = choice[: max(choice.rfind(","), choice.rfind("[")) + 1]
        known = options(group, folders) if group in groups(folders) else []
        return [f"{group}={done}{option}" for option in known]
    if "." in word:
        group = word.partition(".")[0]
        return [f"{group}.{key}=" for key in _keys(group, before, folders)]
    known = groups(folders)
    starts = [f"{group}{sign}" for group in known for sign in "=."]
    keys = [f"{key}=" for key in _main() if key not in (*known, "defaults")]
    words = ["scaling"] if before == ["bench"] else [] if verb else verbs()
    return [*starts, *keys, *words]


def known_keys() -> list[str]:
    """The groups, the full keys of what is chosen where nothing is said, and the keys of no group."""
    folders = [conf_dir()]
    known = groups(folders)
    of_groups = [f"{group}.{key}" for group in known for key in _keys(group, [], folders)]
    return [*known, *of_groups, *(key for key, value in _main().items() if not isinstance(value, dict | list))]


def _config_dirs(before: list[str]) -> list[Path]:
    """The folders that `--config-dir DIR` names."""
    named = [Path(folder) for flag, folder in pairwise(before) if flag in ("--config-dir", "-cd")]
    return [folder for folder in named if folder.is_dir()]


def _keys(group: str, before: list[str], folders: list[Path]) -> list[str]:
    """The keys of the option that the line chooses, or that is chosen when nothing is said."""
    main = _main()
    defaults = {key: value for entry in main["defaults"] if isinstance(entry, dict) for key, value in entry.items()}
    chosen = str(dict(word.split("=", 1) for word in before if "=" in word).get(group, defaults.get(group)))
    if group in SEVERAL:
        return [f"{each}.{key}" for each in listed(chosen) for key in _option(group, each, folders) if key != "name"]
    found = {**(main.get(group) or {}), **_option(group, chosen.partition(",")[0], folders)}
    return [key for key in found if key != "name"]


def _option(group: str, name: str, folders: list[Path]) -> dict[str, Any]:
    """An option's keys, with those of the option that it stands on."""
    own = next((_read(path) for folder in folders if (path := folder / group / f"{name}.yaml").is_file()), {})
    bases = [entry for entry in own.pop("defaults", []) if isinstance(entry, str) and entry != "_self_"]
    return {key: value for base in bases for key, value in _option(group, base, folders).items()} | own


def _main() -> dict[str, Any]:
    return _read(conf_dir() / "config.yaml")


def _read(path: Path) -> dict[str, Any]:
    import yaml

    return yaml.safe_load(path.read_text()) or {}


def _runs(before: list[str], word: str) -> list[str]:
    """The runs' names and the sweeps', after whose slash those of the jobs follow."""
    outputs = _outputs(before)
    sweep, slash, _ = word.partition("/")
    if slash:
        jobs = outputs / "sweeps" / sweep
        return [f"{sweep}/{path.name}" for path in _shown(jobs) if path.name.isdecimal()]
    sweeps = [f"{path.name}/" for path in _shown(outputs / "sweeps")]
    return [*(path.name for path in _shown(outputs / "runs")), *sweeps]


def _outputs(before: list[str]) -> Path:
    return Path(dict(word.split("=", 1) for word in before if "=" in word).get("outputs_dir", "outputs"))


def _shown(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.startswith(".")] if folder.is_dir() else []


def _filters(before: list[str], word: str, folders: list[Path]) -> list[str]:
    """Columns to compare, and what a column of texts may be compared with."""
    from dltrain.run.listing import COLUMNS, GROUPS, STATUSES

    column, equals, value = word.partition("==")
    if not equals:
        return [*(f"{name}==" for name in COLUMNS), "outputs_dir="]
    sweeps = [path.name for path in _shown(_outputs(before) / "sweeps")]
    known = {"status": STATUSES, "name": _runs(before, value), "sweep": sweeps}
    texts = options(column, folders) if column in GROUPS else known.get(column, ())
    return [f"{column}=={text}" for text in texts]
