"""Layers that take longer than their arithmetic should, beside other ways of computing the same.

python scripts/bench/slack.py: milliseconds of a forward and backward pass, batch 128, the median of rounds in turns and
the largest difference of the outputs relative to the largest output. A first layer's images have no gradient.
"""

import statistics
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dltrain.bench.machine import stopwatch
from dltrain.engine import fastest
from dltrain.engine.cpu import halve
from dltrain.engine.device import keep_freed_memory
from dltrain.engine.precision import DTYPES

ROUNDS = 9
CPU = torch.device("cpu")
Way = Callable[[Tensor, Tensor], Tensor]


def library(images: Tensor, weight: Tensor, *, stride: int = 1, padding: int = 1) -> Tensor:
    """What torch does by itself."""
    return F.conv2d(images, weight, stride=stride, padding=padding)


def products(images: Tensor, weight: Tensor, *, stride: int = 1, padding: int = 1) -> Tensor:
    """im2col and a matrix product."""
    side = (images.shape[-1] + 2 * padding - weight.shape[-1]) // stride + 1
    columns = F.unfold(images, weight.shape[-1], padding=padding, stride=stride)
    return (weight.flatten(1) @ columns).unflatten(2, (side, side))


def biased(images: Tensor, weight: Tensor) -> Tensor:
    """The library's convolution with a bias, whose gradient is some of the weights' too."""
    return F.conv2d(images, weight, weight[:, 0, 0, 0].contiguous())


def in_float32(images: Tensor, weight: Tensor) -> Tensor:
    """The same in float32, as the engine has it."""
    return biased(images.float(), weight.float()).to(images.dtype)


def pooled(images: Tensor, _: Tensor) -> Tensor:
    """LeNet's pooling by the library."""
    return F.avg_pool2d(images, 2)


def averaged(images: Tensor, _: Tensor) -> Tensor:
    """The same as four slices."""
    corners = [images[..., row::2, column::2] for row in (0, 1) for column in (0, 1)]
    return (corners[0] + corners[1] + corners[2] + corners[3]) * 0.25


def halved(images: Tensor, _: Tensor) -> Tensor:
    """The same as a matrix product, as the engine has it."""
    return halve(nn.AvgPool2d(2), images)


def pass_through(way: Way, images: Tensor, weight: Tensor, gradient: Tensor) -> None:
    """Forward and backward."""
    way(images, weight).backward(gradient)


def strided(way: Way, **how: int) -> Way:
    return lambda images, weight: way(images, weight, **how)


CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Way]]] = {
    "512 to 512 channels, 3x3, side 3": ((128, 512, 3, 3), (512, 512, 3, 3), {"oneDNN": library, "im2col": products}),
    "256 to 512, stride 2, side 6": (
        (128, 256, 6, 6),
        (512, 256, 3, 3),
        {"oneDNN": strided(library, stride=2), "im2col": strided(products, stride=2)},
    ),
    "256 to 256 channels, 3x3, side 6": ((128, 256, 6, 6), (256, 256, 3, 3), {"oneDNN": library, "im2col": products}),
    "1 to 64 channels, 7x7, stride 2, side 96": (
        (128, 1, 96, 96),
        (64, 1, 7, 7),
        {"oneDNN": strided(library, stride=2, padding=3), "im2col": strided(products, stride=2, padding=3)},
    ),
    "1 to 6 channels, 5x5, side 96": (
        (128, 1, 96, 96),
        (6, 1, 5, 5),
        {"oneDNN": strided(library, padding=0), "im2col": strided(products, padding=0)},
    ),
    "the same with a bias": ((128, 1, 96, 96), (6, 1, 5, 5), {"oneDNN": biased, "float32": in_float32}),
    "average pooling of 6 channels, side 92": (
        (128, 6, 92, 92),
        (1,),
        {"avg_pool2d": pooled, "slices": averaged, "product": halved},
    ),
}


def main() -> None:
    """Measure every case and print a table in Markdown."""
    keep_freed_memory()
    dtype = DTYPES[fastest(CPU)]
    print(f"{torch.get_num_threads()} threads, {dtype}, torch {torch.__version__}\n")
    print("| layer | way | ms | spread | differs by |\n|---|---|---|---|---|")
    for name, (image_shape, weight_shape, ways) in CASES.items():
        torch.manual_seed(0)
        images = torch.randn(image_shape).to(dtype).requires_grad_(image_shape[1] > 1)
        weight = (torch.randn(weight_shape) / weight_shape[-1] ** 2).to(dtype).requires_grad_()
        gradient = torch.ones_like(next(iter(ways.values()))(images, weight))
        outputs = [way(images, weight) for way in ways.values()]
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(ROUNDS):
            for way, compute in ways.items():
                work = partial(pass_through, compute, images, weight, gradient)
                seconds[way].append(stopwatch(work, CPU))
        for place, (way, found) in enumerate(seconds.items()):
            difference = (outputs[place] - outputs[0]).abs().max().item() / outputs[0].abs().max().item()
            milliseconds = [1e3 * each for each in found[1:]]
            spread = f"{min(milliseconds):.1f}-{max(milliseconds):.1f}"
            print(f"| {name} | {way} | {statistics.median(milliseconds):.1f} | {spread} | {difference:.0e} |")


if __name__ == "__main__":
    main()
