"""What several ranks cannot do together, and what each has of the machine."""

from collections.abc import Mapping
from functools import partial

import torch
from omegaconf import DictConfig
from torch import nn

from dltrain.build.optimizer import optimizer_maker
from dltrain.components import worded
from dltrain.config.errors import ConfigError
from dltrain.engine import Ranks, Strategy, searches
from dltrain.engine.device import configure
from dltrain.engine.strategies import strategy_of


def set_up(device: torch.device, node: DictConfig, ranks: Ranks) -> None:
    """Set what `device` says for the whole process; where it names no threads, ranks have a part of them each."""
    threads = ranks.threads() if node.threads is None else node.threads
    configure(device, threads=threads, tf32=node.tf32, deterministic=node.deterministic)


def check_ranks(config: DictConfig, optimizer: torch.optim.Optimizer, ranks: Ranks) -> None:
    """Refuse what would have a rank act alone while the others wait for it. Raises ConfigError."""
    if ranks.size == 1:
        return
    for holds, words in (
        (searches(optimizer), f"optim.name={config.optim.name} decides within its step, which one rank alone can"),
        (config.device.compile != "off", f"device.compile={config.device.compile} is for one rank"),
        (config.trainer.microbatch == "auto", "trainer.microbatch=auto is for one rank; name a number of examples"),
        (config.trainer.check_all, "trainer.check_all=true is for one rank"),
        (config.data.name == "function", "data=function is for one rank: a step there is a single point"),
    ):
        if holds:
            raise ConfigError(f"{words}; there are {ranks.size}")


def check_norms(model: nn.Module, config: DictConfig, device: torch.device, ranks: Ranks, *, trains: bool) -> None:
    """Refuse to train norms that meet the other ranks within the step, where they cannot. Raises ConfigError."""
    if not trains or not any(isinstance(module, nn.SyncBatchNorm) for module in model.modules()):
        return
    if device.type != "cuda":
        raise ConfigError(f"norm sync_batch trains on CUDA alone, not on {device.type}; batch has the same weights")
    in_parts = config.trainer.microbatch is not None or config.trainer.accumulate > 1
    if in_parts and ranks.size > 1:
        raise ConfigError(
            "norm sync_batch: with trainer.microbatch or trainer.accumulate the ranks may compute different numbers of "
            "parts, and one would wait for ever; choose norm batch, or whole batches"
        )


def divide(model: nn.Module, name: str, ranks: Ranks) -> tuple[Strategy, nn.Module]:
    """The strategy of a name, each rank having its part of the model by it, and what shows the layers of the whole.

    Raises ConfigError where the model cannot be divided.
    """
    strategy = strategy_of(name, ranks)
    whole: nn.Module = worded(f"trainer.strategy={name}", partial(strategy.divide, model))
    return strategy, whole


def check_work(strategy: Strategy, num_served: Mapping[str, int], *, batch_size: int) -> None:
    """Refuse what leaves a rank without an example where all must run the model as often. Raises ConfigError."""
    if not strategy.is_whole:
        where = f"trainer.strategy={strategy.name}"
        for split, count in num_served.items():
            if 0 < count < strategy.ranks.size:
                raise ConfigError(f"{where}: {count} {split} examples are too few for {strategy.ranks.size} ranks")
        if batch_size == 1:
            raise ConfigError(f"{where}: batches of one example leave a rank without work; choose 2 or more")


def share(
    config: DictConfig, optimizer: torch.optim.Optimizer, strategy: Strategy, held: nn.Module, precision: str
) -> torch.optim.Optimizer:
    """The optimizer as ranks share it. Raises ConfigError where it steps otherwise with a part than with the whole."""
    precise = optimizer_maker(config.optim, held, "fp64")
    if not strategy.ranks.once(lambda: strategy.suits(optimizer.param_groups, precise)):
        others = "ddp" if strategy.is_whole else "ddp or zero1"
        where = f"trainer.strategy={strategy.name}"
        raise ConfigError(f"{where}: a step of optim.name={config.optim.name} needs the whole; choose {others}")
    return strategy.share(optimizer, optimizer_maker(config.optim, held, precision))
