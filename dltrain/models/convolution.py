"""Convolution and pooling written out, to be read beside torch's, which they equal (course notes).

What the notes and torch call convolution is cross-correlation: the kernel is not flipped. Sizes are numbers, or pairs
[height, width].
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

Size = int | Sequence[int]
PADDING_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "replicate", "circular": "circular"}


def pair(size: Size) -> tuple[int, int]:
    """Height and width."""
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


def output_side(side: int, kernel: int, *, padding: int = 0, stride: int = 1, dilation: int = 1) -> int:
    """The places along a side where a window fits: floor((I + 2P - D (K - 1) - 1) / S) + 1.

    Raises ValueError where there is none.
    """
    room = side + 2 * padding - dilation * (kernel - 1) - 1
    if room < 0:
        raise ValueError(f"a window of {dilation * (kernel - 1) + 1} does not fit a side of {side + 2 * padding}")
    return room // stride + 1


def correlate(image: Tensor, kernel: Tensor) -> Tensor:
    """Cross-correlation of an image (H, W) with a kernel (h, w), place by place: (H - h + 1, W - w + 1)."""
    (height, width), (h, w) = image.shape, kernel.shape
    output = image.new_empty(output_side(height, h), output_side(width, w))
    for row in range(output.shape[0]):
        for column in range(output.shape[1]):
            output[row, column] = (image[row : row + h, column : column + w] * kernel).sum()
    return output


def conv2d(
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    padding: Size = 0,
    stride: Size = 1,
    dilation: Size = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
) -> Tensor:
    """Images (N, C, H, W) with kernels (outputs, C / groups, h, w) to (N, outputs, height, width).

    Each output has a kernel of its own, over the channels of its group, and sums over them.
    """
    (rows, columns), kernel = pair(padding), (weight.shape[2], weight.shape[3])
    padded = pad(images, [columns, columns, rows, rows], mode=PADDING_MODES[padding_mode])
    inputs, kernels = padded.chunk(groups, dim=1), weight.chunk(groups)
    outputs = []
    for own_inputs, own_kernels in zip(inputs, kernels, strict=True):
        shifted = _windows(own_inputs, kernel, pair(stride), pair(dilation))
        products = [conv1x1(part, own_kernels[:, :, i, j]) for i, j, part in shifted]
        outputs.append(torch.stack(products).sum(0))
    output = torch.cat(outputs, dim=1)
    return output if bias is None else output + bias.view(-1, 1, 1)


def conv1x1(images: Tensor, weight: Tensor) -> Tensor:
    """A 1x1 convolution: a linear layer with weight (outputs, C) at every pixel, so one matrix product an image."""
    count, channels, height, width = images.shape
    return (weight @ images.reshape(count, channels, height * width)).reshape(count, -1, height, width)


def pool2d(images: Tensor, kernel: Size, *, kind: str, stride: Size | None = None, padding: Size = 0) -> Tensor:
    """The `max` or `avg` of each window, channel by channel; windows lie side by side unless a stride is given.

    The maximum is padded with -inf, so that padding never wins; the average counts the zeros it is padded with.
    """
    rows, columns = pair(padding)
    padded = pad(images, [columns, columns, rows, rows], value=-torch.inf if kind == "max" else 0.0)
    shifted = _windows(padded, pair(kernel), pair(kernel if stride is None else stride), (1, 1))
    windows = torch.stack([part for _, _, part in shifted])
    return windows.amax(0) if kind == "max" else windows.mean(0)


def matrix(kernel: Tensor, shape: tuple[int, int]) -> Tensor:
    """The matrix (outputs, H W) whose product with a flattened image (H, W) is its correlation with a kernel.

    Most entries are zero and the others are shared: 81 of 225 are not zero for 3x3 on 5x5.
    """
    height, width = shape
    places = torch.eye(height * width, dtype=kernel.dtype).reshape(-1, 1, height, width)
    return conv2d(places, kernel[None, None]).flatten(1).T


def _windows(
    images: Tensor, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]
) -> Iterator[tuple[int, int, Tensor]]:
    """For each entry (i, j) of a kernel the pixels that it meets, one for each place of the window."""
    sides = zip(images.shape[2:], kernel, stride, dilation, strict=True)
    height, width = (output_side(side, k, stride=s, dilation=d) for side, k, s, d in sides)
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            top, left = i * dilation[0], j * dilation[1]
            bottom, right = top + stride[0] * (height - 1) + 1, left + stride[1] * (width - 1) + 1
            yield i, j, images[:, :, top : bottom : stride[0], left : right : stride[1]]
