"""From argv to a verb. Help and TAB import neither torch nor hydra; each verb imports what it needs."""

import argparse
import difflib
import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import dltrain
from dltrain.config.errors import ConfigError, UsageError
from dltrain.run.signals import end, ignore_signals
from dltrain.verbs import unknown, verbs
from dltrain.verbs._guarded import guarded, say

UNREADABLE = 2
OF_RANKS = ("train", "resume")  # verbs that torchrun may start
ANYWHERE = ("--help", "-h", "--version", "--debug")


class Parser(argparse.ArgumentParser):
    """argparse whose errors are ours to word."""

    def error(self, message: str) -> NoReturn:
        named = re.match(r"argument ([^\s/:]+)", message)
        action = self._option_string_actions.get(named[1]) if named else None
        choices = f": {', '.join(action.choices)}" if action and action.choices and "choose" not in message else ""
        raise UsageError(f"{message}{choices}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code; whatever goes wrong is said in one line."""
    if argv is None:
        try:
            code = main(sys.argv[1:])
        finally:
            ignore_signals()  # nothing is left to do but to exit with the code that was found
        end(code)
        return code
    arguments = list(argv)
    if sys.platform == "win32":
        return say("Windows is not supported: use Linux, macOS or WSL", UNREADABLE)
    share_the_processor()
    have_somewhere_to_print()
    return guarded(lambda: _run(arguments), debug="--debug" in arguments)


def have_somewhere_to_print() -> None:
    """Print to nowhere where the terminal is closed, and print what a terminal has no letters for as codes.

    A terminal of no columns is one of which nothing is known.
    """
    for name in ("COLUMNS", "LINES"):
        if os.environ.get(name, "").strip("0") == "":
            os.environ.pop(name, None)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
        if hasattr(stream := getattr(sys, name), "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def share_the_processor() -> None:
    """Let torch's threads sleep sooner while they wait for each other.

    They wait by spinning, 300,000 turns long, and where another process wants the core that holds all of them up.
    OpenMP reads this when torch is imported; what the user has set stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def _run(arguments: list[str]) -> int:
    first = next((word for word in arguments if word not in ANYWHERE), "")
    named = re.fullmatch(r"\w[\w-]*", first) is not None
    verb = first if named else "train"
    if verb not in verbs():
        raise UsageError(unknown(verb, [word for word in arguments if not word.startswith("-")]))
    if "--version" in arguments:
        print(f"dltrain {dltrain.__version__}")
        return 0
    if verb not in OF_RANKS and int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ:
        raise ConfigError(f"dltrain {verb} is one process: start it without torchrun")
    rest = list(arguments)
    if named:
        rest.remove(verb)
    if "--help" in arguments or "-h" in arguments:
        verb, rest = "help", [verb] if named else []
    module = import_module(f"dltrain.verbs.{verb.replace('-', '_')}")
    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--debug", action="store_true")
    if hasattr(module, "add_flags"):
        module.add_flags(parser)
    flags, words = _split(parser, rest, verb)
    code: int = module.main(words, flags)
    return code


def _split(parser: Parser, arguments: list[str], verb: str) -> tuple[argparse.Namespace, list[str]]:
    """Flags and words, in any order; `flags.arguments` are both as they were written, for Hydra."""
    flags, words = parser.parse_known_args(arguments)
    for place, word in enumerate(words):
        if word.startswith("-"):
            raise UsageError(f"unknown flag {word}{_meant_flag(word, words[place + 1 : place + 2], parser, verb)}")
    flags.arguments = [word for word in arguments if word != "--debug"]
    return flags, words


def _meant_flag(flag: str, following: list[str], parser: Parser, verb: str) -> str:
    """What an unknown flag may be: another flag, a verb, or an override, as `--lr 0.1` is optim.lr=0.1."""
    from dltrain.config.meant import meant_keys, meant_option
    from dltrain.verbs.completion import OVERRIDABLE, RUN_VERBS, known_keys

    name, equals, value = flag.partition("=")
    flags = [each for each in (*parser._option_string_actions, *ANYWHERE) if each.startswith("--")]
    if near := difflib.get_close_matches(name, flags, n=1, cutoff=0.8):
        return f": did you mean {near[0]}?"
    if verb in RUN_VERBS - OVERRIDABLE:
        return f": dltrain {verb} takes {', '.join(each for each in flags if each not in ANYWHERE) or 'none'}"
    key, given = name.lstrip("-"), [value] if equals else [word for word in following if "=" not in word]
    if key in verbs():
        return f": did you mean dltrain {' '.join([key, *given])}?"
    meant = [f"{each}={' '.join(given) or 'VALUE'}" for each in meant_keys(key, known_keys())]
    if option := meant_option(key):
        meant.append(option)
    if meant:
        return f"; an option is written without dashes: {meant[0]}"
    return "; dltrain --help lists what there is, and options are written without dashes, as key=value"


if __name__ == "__main__":
    sys.exit(main())
