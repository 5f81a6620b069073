"""Show the verbs, the groups with their choices, and examples."""

import argparse
import textwrap
from importlib import import_module

from dltrain.config.errors import UsageError
from dltrain.config.folders import conf_dir, groups, options
from dltrain.verbs import unknown, verbs
from dltrain.verbs.completion import FLAGS_OF

EXAMPLES = """\
  dltrain                                        LeNet with batch norm on Fashion-MNIST at 96 pixels
  dltrain model=resnet18 optim=adam              another network, another optimizer
  dltrain optim.lr=0.01 trainer.epochs=10        any key of the configuration
  dltrain -m model=lenet,mlp optim=sgd,adam      a sweep: every combination, ranked
  dltrain device.count=4 model=resnet18          one training on four GPUs, or in four processes on a CPU
  dltrain resume NAME                            go on with an interrupted run or sweep
  dltrain inspect model=lenet model.norm=none    gradients and activations at the start, by layer
  dltrain overfit model=resnet18                 can it learn one batch by heart, and if not, why?
  dltrain lr-find model=resnet18 optim=adam      which learning rate?
  dltrain trainer=smoke device=cpu               prove in seconds that training works
  dltrain watch NAME                             the curves in the terminal while it trains
  dltrain report NAME                            its page drawn anew: report.html
  dltrain runs 'val_accuracy>0.9'                what has been done, and what came of it
"""
FLAGS = """\
  -m, --multirun       run every combination of comma-separated values
  --cfg job            print the composed configuration and stop
  --config-dir DIR     more choices: DIR/model/*.yaml and so on
  --version            print the version
  --debug              show the traceback of an error
  --hydra-help         Hydra's own flags
  -sc install=bash     TAB completion: eval "$(dltrain -sc install=bash)"; zsh and fish too
"""


def main(words: list[str], flags: argparse.Namespace) -> int:
    """Print help, of one verb where one is named."""
    known = verbs()
    asked = [word for word in words if "=" not in word]
    if asked:
        if asked[0] not in known:
            raise UsageError(unknown(asked[0]))
        print("\n".join([known[asked[0]], *_flags(asked[0])]))
        return 0
    folders = [conf_dir()]
    width = max(map(len, [*known, *groups(folders)])) + 4
    print("dltrain trains networks from composed configurations.\n")
    print("usage: dltrain [VERB] [GROUP=CHOICE ...] [KEY=VALUE ...] [FLAGS]\n\nVerbs (train where none is named)")
    for verb, line in known.items():
        print(f"  {verb:{width}}{line}")
    print("\nGroups and their choices (the first line of conf/GROUP/CHOICE.yaml says what it is)")
    for group in groups(folders):
        choices = textwrap.wrap(", ".join(options(group, folders)), 90)
        print("\n".join(f"  {group if i == 0 else '':{width}}{line}" for i, line in enumerate(choices)))
    print(
        f"\nKeys: dltrain --cfg job shows them all, with their values\n\nFlags\n{FLAGS}\nExamples\n{EXAMPLES}", end=""
    )
    return 0


def _flags(verb: str) -> list[str]:
    """A line a flag of a verb, with its choices and default."""
    if verb == "train":
        return ["", "Flags", FLAGS.rstrip()]
    if verb not in FLAGS_OF:
        return []
    module = import_module(f"dltrain.verbs.{verb.replace('-', '_')}")
    parser = argparse.ArgumentParser(add_help=False)
    module.add_flags(parser)
    lines = [f"  {_written(action):40}{action.help}{_default(action)}" for action in parser._actions if action.help]
    return ["", "Flags", *lines]


def _written(action: argparse.Action) -> str:
    """A flag as it is typed."""
    choices = "|".join(map(str, action.choices)) if action.choices else None
    takes = action.nargs != 0
    value = choices or action.metavar or action.option_strings[0].lstrip("-").upper()
    return f"{action.option_strings[0]} {value}" if takes else action.option_strings[0]


def _default(action: argparse.Action) -> str:
    return f" ({action.default})" if action.nargs is None and action.default else ""
