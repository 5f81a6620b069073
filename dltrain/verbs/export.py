"""Write a model for elsewhere, checked: `dltrain export RUN [--format safetensors|torch_export|onnx]`."""

import argparse
from typing import Any

from dltrain.config.errors import ConfigError, UsageError
from dltrain.verbs._listed import aligned, outputs_of


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Which kind of file, which weights, how near to the run it must come, and where else the data are."""
    parser.add_argument(
        "--format", choices=("safetensors", "torch_export", "onnx"), default="safetensors", help="which kind of file"
    )
    parser.add_argument("--checkpoint", default="best", help="best, last or the number of a step")
    parser.add_argument("--tolerance", type=float, help="largest difference allowed, as a part of the largest output")
    parser.add_argument(
        "--data", nargs="+", action="extend", default=[], help="data.KEY=VALUE where the data have moved"
    )


def main(words: list[str], flags: argparse.Namespace) -> int:
    """Write RUN/exports/model.SUFFIX and a card, where the file does on real examples what the run does; else 70."""
    data = [word for word in flags.data if "=" in word]
    names, outputs = outputs_of([*words, *(word for word in flags.data if "=" not in word)])
    if len(names) != 1:
        raise UsageError("dltrain export takes one run, a path or a name, such as dltrain export first --format onnx")
    if flags.checkpoint not in ("best", "last") and not flags.checkpoint.isdecimal():
        raise UsageError(f"--checkpoint {flags.checkpoint}: it is best, last or the number of a step")
    if flags.tolerance is not None and not 0 <= flags.tolerance < 1:
        raise UsageError(f"--tolerance {flags.tolerance:g}: it is a part of the largest output, from 0 to below 1")

    from dltrain.run.folder import find

    folder = find(names[0], outputs)  # before torch is imported

    from dltrain.export.formats import FORMATS, check_installed
    from dltrain.trained import load
    from dltrain.verbs._exporting import examples_of, export

    check_installed(flags.format)
    trained = load(folder, checkpoint=flags.checkpoint)
    examples = examples_of(folder, trained, data)
    if examples.noun != "images" and FORMATS[flags.format].of_images_alone:
        what = f"the run has learned data={trained.config.data.name}"
        raise ConfigError(f"--format {flags.format} is for images, and {what}; choose --format safetensors")
    end = "" if flags.checkpoint == "best" else f"-{flags.checkpoint}"
    entry, written = export(folder, trained, examples, flags.format, end=end, tolerance=flags.tolerance)
    print("\n".join(_table(entry)))
    for path in written:
        print(f"wrote  {path}")
    return 0


def _table(entry: dict[str, Any]) -> list[str]:
    """The file and how near it comes to the run, in a line below headings."""
    parity = entry["parity"]
    cells = {
        "format": entry["format"],
        "file": entry["file"],
        "bytes": f"{entry['bytes']:,}",
        "examples": f"{parity['examples']} of {parity['split']}",
        "largest difference": f"{parity['largest']:.2g}",
        "allowed": f"{parity['allowed']:.2g}",
        "labels changed": "0" if parity["labels"] else "-",
    }
    left = ("format", "file", "examples")
    return aligned({key: "left" if key in left else "right" for key in cells}, [[*cells.values()]])
