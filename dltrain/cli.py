"""From argv to a verb. Help and TAB import neither torch nor hydra; each verb imports what it needs."""

import argparse
import contextlib
import difflib
import errno
import os
import re
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import dltrain
from dltrain.config.errors import UsageError
from dltrain.run.signals import Interrupted, end, heard, ignore_signals, stoppable
from dltrain.verbs import unknown, verbs

UNREADABLE, UNFORESEEN, OUT_OF_MEMORY, CANNOT_WRITE, INTERRUPTED = 2, 1, 71, 74, 130
WRITING_FAILS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
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
        return _say("Windows is not supported: use Linux, macOS or WSL", UNREADABLE)
    share_the_processor()
    have_somewhere_to_print()
    try:
        with stoppable():
            return _run(arguments)
    except (KeyboardInterrupt, Interrupted) as interruption:
        return _say("interrupted", getattr(interruption, "exit_code", INTERRUPTED))
    except BrokenPipeError:  # whoever reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if heard:  # and something made another error of it
            return _say("interrupted", heard[0])
        if "--debug" in arguments:
            traceback.print_exc()
        return _say(*_worded(error))


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
    flags, words = _split(parser, rest)
    code: int = module.main(words, flags)
    return code


def _split(parser: Parser, arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Flags and words, in any order; `flags.arguments` are both as they were written, for Hydra."""
    flags, words = parser.parse_known_args(arguments)
    for place, word in enumerate(words):
        if word.startswith("-"):
            raise UsageError(f"unknown flag {word}{_meant_flag(word, words[place + 1 : place + 2], parser)}")
    flags.arguments = [word for word in arguments if word != "--debug"]
    return flags, words


def _meant_flag(flag: str, following: list[str], parser: Parser) -> str:
    """What an unknown flag may be: another flag, a verb, or an override, as `--lr 0.1` is optim.lr=0.1."""
    from dltrain.config.meant import meant_keys, meant_option
    from dltrain.verbs.completion import known_keys

    name, equals, value = flag.partition("=")
    flags = [each for each in (*parser._option_string_actions, *ANYWHERE) if each.startswith("--")]
    if near := difflib.get_close_matches(name, flags, n=1, cutoff=0.8):
        return f": did you mean {near[0]}?"
    key, given = name.lstrip("-"), [value] if equals else [word for word in following if "=" not in word]
    if key in verbs():
        return f": did you mean dltrain {' '.join([key, *given])}?"
    meant = [f"{each}={' '.join(given) or 'VALUE'}" for each in meant_keys(key, known_keys())]
    if option := meant_option(key):
        meant.append(option)
    if meant:
        return f"; an option is written without dashes: {meant[0]}"
    return "; dltrain --help lists what there is, and options are written without dashes, as key=value"


def _worded(error: Exception) -> tuple[str, int]:
    """One line and the exit code of an error; those of ours carry both."""
    message = " ".join(str(error).split())
    code: Any = getattr(error, "exit_code", None)
    if code is not None:
        return message, code
    if (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in message
    ):
        return "out of memory: try a smaller data.batch_size, or trainer.microbatch", OUT_OF_MEMORY
    if isinstance(error, OSError) and error.errno in WRITING_FAILS:
        where = f" {error.filename}" if error.filename else ""
        return f"cannot write{where}: {error.strerror}", CANNOT_WRITE
    if f"(os error {errno.ENOSPC})" in message:  # as safetensors says it
        return f"cannot write: {message}", CANNOT_WRITE
    first = " ".join(str(error).strip().split("\n")[0].split())
    return f"unforeseen {type(error).__name__}: {first} (--debug shows where)", UNFORESEEN


def _say(message: str, code: int) -> int:
    with contextlib.suppress(BrokenPipeError):
        print(f"dltrain: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
