"""From argv to a verb. Help and TAB import neither torch nor hydra; each verb imports what it needs."""

import argparse
import contextlib
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

import dltrain
from dltrain.config.folders import nearest
from dltrain.verbs import verbs

UNREADABLE, UNFORESEEN, OUT_OF_MEMORY, INTERRUPTED = 2, 1, 71, 130


class CommandLineError(Exception):
    """The command line cannot be read."""

    exit_code = UNREADABLE


class Parser(argparse.ArgumentParser):
    """argparse whose errors are ours to word."""

    def error(self, message: str) -> NoReturn:
        raise CommandLineError(message)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code; whatever goes wrong is said in one line."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if sys.platform == "win32":
        return _say("Windows is not supported: use Linux, macOS or WSL", UNREADABLE)
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return _say("interrupted", INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNFORESEEN
    except Exception as error:
        if "--debug" in arguments:
            traceback.print_exc()
        return _say(*_worded(error))


def _run(arguments: list[str]) -> int:
    known = verbs()
    first = next((word for word in arguments if not word.startswith("-")), "")
    named = bool(first) and "=" not in first and arguments[0] == first
    if named and first not in known:
        raise CommandLineError(
            f"unknown verb {first!r}: {nearest(first, list(known))}; an override has the form key=value"
        )
    verb = first if named else "train"
    module = import_module(f"dltrain.verbs.{verb}")
    parser = _parser(verb)
    if hasattr(module, "add_flags"):
        module.add_flags(parser)
    flags, words = _split(parser, arguments[1:] if named else arguments)
    if flags.version:
        print(f"dltrain {dltrain.__version__}")
        return 0
    if flags.help:
        module = import_module("dltrain.verbs.help")
        words = [verb] if named else []
    code: int = module.main(words, flags)
    return code


def _parser(verb: str) -> Parser:
    parser = Parser(prog=f"dltrain {verb}", add_help=False, allow_abbrev=False)
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--version", action="store_true")
    parser.add_argument("--debug", action="store_true")
    return parser


def _split(parser: Parser, arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Flags and words, in any order."""
    flags, rest = parser.parse_known_args(arguments)
    words = [word for word in rest if not word.startswith("-")]
    for flag in rest:
        if flag.startswith("-"):
            key = flag.lstrip("-").replace("-", "_")
            hint = (
                f"; options are written without dashes: {key}" if "=" in key else f"; an option is written {key}=VALUE"
            )
            raise CommandLineError(f"unknown flag {flag}{hint}")
    return flags, words


def _worded(error: Exception) -> tuple[str, int]:
    """One line and the exit code of an error; those of ours carry both."""
    code: Any = getattr(error, "exit_code", None)
    if code is not None:
        return str(error), code
    kind = type(error).__name__
    if isinstance(error, MemoryError) or kind == "OutOfMemoryError":
        return "out of memory: try a smaller data.batch_size, or trainer.microbatch", OUT_OF_MEMORY
    first = str(error).strip().split("\n")[0]
    return f"unforeseen {kind}: {first} (--debug shows where)", UNFORESEEN


def _say(message: str, code: int) -> int:
    with contextlib.suppress(BrokenPipeError):
        print(f"dltrain: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
