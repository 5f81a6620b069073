"""Bytes that each rank holds by every `trainer.strategy`, counted after a step; for docs/scaling.md.

torchrun --standalone --nproc-per-node=2 scripts/bench/held.py model=torchvision model.arch=vit_b_16 data.image_size=224
"""

import sys
from collections.abc import Iterable

import torch
from torch import Tensor

from dltrain.build import build
from dltrain.config.compose import compose
from dltrain.engine import Ranks, joined, select
from dltrain.engine.optimizer import tensors
from dltrain.engine.sharded import blocks
from dltrain.engine.strategies import STRATEGIES

HEADS = ("parameters", "gradients", "state", "largest block", "sum")
LITTLE = ("data=synthetic", "data.num_train=24", "data.val_size=8", "data.num_test=8", "data.batch_size=4")


def main(*words: str) -> None:
    """Print a line a strategy, of the rank that holds most."""
    with joined(select(compose(words).config.device.name)) as ranks:
        if ranks.leads:
            print(" " * 8 + "".join(f"{head:>15}" for head in HEADS))
        for strategy in STRATEGIES:
            parts = ranks.gather(held(ranks, *LITTLE, *words, f"trainer.strategy={strategy}"))
            most = [max(of_kind) / 1e6 for of_kind in zip(*parts, strict=True)]
            if ranks.leads:
                print(f"{strategy:<8}" + "".join(f"{megabytes:>15.1f}" for megabytes in [*most, sum(most)]), flush=True)


def held(ranks: Ranks, *words: str) -> list[int]:
    """Bytes of parameters, gradients, the optimizer's state and the largest block that is gathered."""
    run = build(compose(words).config, ranks=ranks)
    engine = run.engine
    engine.begin_epoch()
    engine.step(next(run.batches["train"].epoch(0)), 0)
    gradients = [parameter.grad for parameter in engine.parameters if parameter.grad is not None]
    gathered = [] if engine.strategy.is_whole else [size(block.parameters()) for block in blocks(run.model)]
    return [size(engine.held.parameters()), size(gradients), size(tensors(engine.own)), max(gathered, default=0)]


def size(some: Iterable[Tensor]) -> int:
    """Bytes."""
    return sum(tensor.nbytes for tensor in some)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
