"""Train a network: what `dltrain` does without a verb."""

import argparse
from pathlib import Path

from dltrain.config.compose import compose, shown
from dltrain.config.errors import UsageError
from dltrain.config.hydra_cli import ask
from dltrain.sweep.grid import expand


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Hydra's flags, in any place among the overrides."""
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("--run", "-r", action="store_true")
    parser.add_argument("--cfg", "-c", choices=["job", "hydra", "all"])
    parser.add_argument("--resolve", action="store_true")
    parser.add_argument("--package", "-p")
    parser.add_argument("--config-dir", "-cd", action="append", default=[])
    parser.add_argument("--config-name", "-cn", default="config")
    parser.add_argument("--config-path", "-cp")
    parser.add_argument("--info", "-i", nargs="?", const="all")
    parser.add_argument("--hydra-help", action="store_true")
    parser.add_argument("--experimental-rerun")
    parser.add_argument("--shell-completion", "-sc")


def main(words: list[str], flags: argparse.Namespace) -> int:
    """Train, sweep, or show the composed configuration."""
    if flags.shell_completion:
        from dltrain.verbs.completion import main as completion

        return completion([flags.shell_completion, *words], flags)
    if flags.config_path or flags.experimental_rerun:
        raise UsageError("--config-path and --experimental-rerun are not offered: use --config-dir, or dltrain resume")
    if flags.hydra_help:
        return ask(flags.arguments)
    where = {"config_name": flags.config_name, "config_dirs": flags.config_dir}
    jobs = expand(words) if flags.multirun else [words]
    compositions = [compose(job, **where) for job in jobs]
    composition = compositions[0]
    if flags.info or flags.cfg in ("hydra", "all"):
        return ask(flags.arguments)
    if flags.cfg:
        print(shown(composition.config, flags.package), end="")
        return 0
    if flags.multirun or composition.sweep:
        from dltrain.verbs._sweep import sweep

        if any(each.sweep for each in compositions):
            jobs = [
                wider for each, job in zip(compositions, jobs, strict=True) for wider in expand([*each.sweep, *job])
            ]
            compositions = [compose(job, **where) for job in jobs]
        return sweep(jobs, compositions)
    from dltrain.verbs._start import train

    config = composition.config
    return train(composition, parent=Path(config.outputs_dir) / "runs", name=config.name)
