"""Print a shell's TAB completion: `eval "$(dltrain completion bash)"`, also zsh and fish."""

import argparse
import os
from pathlib import Path
from typing import Any

from dltrain.config.folders import conf_dir, groups, options
from dltrain.verbs import verbs

SCRIPTS = {
    "bash": """\
_dltrain() {
    local IFS=$'\\n'
    COMPREPLY=($(COMP_LINE="${COMP_LINE:0:$COMP_POINT}" dltrain completion query 2>/dev/null))
    compopt -o nospace
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} != *= ]] && compopt +o nospace
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
FLAGS = ("--multirun", "--cfg", "--config-dir", "--debug", "--help", "--version", "--hydra-help")


def main(words: list[str], flags: argparse.Namespace) -> int:
    """Print a script to evaluate, or answer a query from it. `install=bash` is Hydra's way to ask."""
    asked = words[0].rpartition("=")[2] if words else "bash"
    if asked == "query":
        print("\n".join(candidates(os.environ.get("COMP_LINE", ""))))
        return 0
    if asked not in SCRIPTS:
        print(f"no completion for {asked!r}; there is: {', '.join(SCRIPTS)}")
        return 2
    print(SCRIPTS[asked], end="")
    return 0


def candidates(line: str) -> list[str]:
    """The words that may stand where a command line ends."""
    *before, word = line.split(" ")
    before = [each for each in before[1:] if each]
    folders = [conf_dir()]
    if word.startswith("-"):
        found = list(FLAGS)
    elif before and before[0] in RUN_VERBS:
        found = _runs(before)
    elif "=" in word:
        group, _, choice = word.partition("=")
        done, comma, _ = choice.rpartition(",")
        found = (
            [f"{group}={done}{comma}{option}" for option in options(group, folders)] if group in groups(folders) else []
        )
    elif "." in word:
        found = _keys(word.partition(".")[0], before, folders)
    else:
        found = [f"{group}=" for group in groups(folders)] + [f"{group}." for group in groups(folders)]
        found += [f"{key}=" for key in ("name", "seed", "outputs_dir")] + ([] if before else list(verbs()))
    return sorted(each for each in found if each.startswith(word))


def _keys(group: str, before: list[str], folders: list[Path]) -> list[str]:
    """GROUP.KEY= for every key of the option that the line chooses, or that is chosen when nothing is said."""
    import yaml

    main: dict[str, Any] = yaml.safe_load((folders[0] / "config.yaml").read_text())
    defaults = {key: value for entry in main["defaults"] if isinstance(entry, dict) for key, value in entry.items()}
    chosen = dict(word.split("=", 1) for word in before if "=" in word).get(group, defaults.get(group))
    path = folders[0] / group / f"{chosen}.yaml"
    own = yaml.safe_load(path.read_text()) if path.is_file() else {}
    if "defaults" in own:
        own = {**own, **yaml.safe_load((path.parent / f"{own['defaults'][0]}.yaml").read_text())}
    found = {**(main.get(group) or {}), **own}
    return [f"{group}.{key}=" for key in found if key not in ("name", "defaults")]


def _runs(before: list[str]) -> list[str]:
    settings = dict(word.split("=", 1) for word in before if "=" in word)
    parent = Path(settings.get("outputs_dir", "outputs")) / "runs"
    return [path.name for path in parent.iterdir() if not path.name.startswith(".")] if parent.is_dir() else []
