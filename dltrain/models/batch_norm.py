"""Batch normalization written out, its backward derived by hand (Ioffe and Szegedy 2015; course notes)."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter


class Convention(NamedTuple):
    """What the formula leaves open."""

    epsilon: float
    running_variance: float  # before the first batch
    unbiased: bool  # the variance that the running one follows
    by_activation: bool  # statistics of every activation of an image, or of every channel


CONVENTIONS = {"torch": Convention(1e-5, 1.0, True, False), "notes": Convention(1e-6, 0.0, False, True)}
MOMENTUM = 0.1  # the share of the batch's statistics in the new running ones


class Normalization(torch.autograd.Function):
    """gamma (x - mean) / sqrt(variance + epsilon) + beta, over axes; also the mean and the biased variance.

    Gamma, beta and the statistics have size 1 on the axes, and the inputs' sizes elsewhere.
    """

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, gamma: Tensor, beta: Tensor, axes: tuple[int, ...], epsilon: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean = inputs.mean(axes, keepdim=True)
        centered = inputs - mean
        variance = centered.square().mean(axes, keepdim=True)
        deviation = (variance + epsilon).sqrt()
        ctx.axes = axes
        ctx.save_for_backward(centered, deviation, gamma)
        ctx.mark_non_differentiable(mean, variance)
        return gamma * (centered / deviation) + beta, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, None, None]:
        centered, deviation, gamma = ctx.saved_tensors
        normalized = centered / deviation
        m = d.numel() // gamma.numel()

        def total(values: Tensor) -> Tensor:
            return values.sum(ctx.axes, keepdim=True)

        d_beta = total(d)
        d_gamma = total(normalized * d)
        d_normalized = gamma * d
        d_deviation = -total(d_normalized * centered / deviation.square())
        d_variance = d_deviation / (2 * deviation)
        d_centered = d_normalized / deviation + 2 / m * centered * d_variance
        return d_centered - total(d_centered) / m, d_gamma, d_beta, None, None


class ScratchBatchNorm(nn.Module):
    """Batch norm of vectors (N, D) or images (N, C, H, W), with statistics in the weights' type.

    The convention `torch` is that of `nn.BatchNorm1d` and `2d`, a batch of one apart, which gives beta: statistics by
    channel, epsilon 1e-5, the running variance unbiased and 1 at first. `notes`: by activation, as of images flattened
    to (N, CHW), epsilon 1e-6, the running variance biased and 0 at first. Both have new = 0.9 old + 0.1 batch.
    Without `num_features` the first inputs tell the number of statistics.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: int | None = None, *, convention: str = "torch") -> None:
        super().__init__()
        self.convention = CONVENTIONS[convention]
        self.weight, self.bias = UninitializedParameter(), UninitializedParameter()
        self.register_buffer("running_mean", UninitializedBuffer())
        self.register_buffer("running_var", UninitializedBuffer())
        if num_features is not None:
            self.materialize(num_features)

    @torch.no_grad()
    def materialize(self, num_features: int) -> None:
        """Make the parameters and statistics, which only then have a size."""
        initial = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": self.convention.running_variance}
        for name, value in initial.items():
            tensor = getattr(self, name)
            tensor.materialize((num_features,))
            tensor.fill_(value)

    def forward(self, inputs: Tensor) -> Tensor:
        axes = (0,) if self.convention.by_activation else (0, *range(2, inputs.dim()))
        shape = [1 if axis in axes else size for axis, size in enumerate(inputs.shape)]
        if isinstance(self.weight, UninitializedParameter):
            self.materialize(torch.Size(shape).numel())
        values, epsilon = inputs.to(self.weight.dtype), self.convention.epsilon
        outputs: Tensor
        gamma, beta = self.weight.view(shape), self.bias.view(shape)
        if self.training:
            outputs, mean, variance = Normalization.apply(values, gamma, beta, axes, epsilon)
            self._follow(mean.flatten(), variance.flatten(), count=values.numel() // mean.numel())
        else:
            deviation = (self.running_var.view(shape) + epsilon).sqrt()
            outputs = gamma * ((values - self.running_mean.view(shape)) / deviation) + beta
        return outputs.to(inputs.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, *, count: int) -> None:
        """Move the running statistics towards a batch's, each of `count` values."""
        if self.convention.unbiased:
            variance = variance * (count / max(count - 1, 1))
        self.running_mean.lerp_(mean, MOMENTUM)
        self.running_var.lerp_(variance, MOMENTUM)
