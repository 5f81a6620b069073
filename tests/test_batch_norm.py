"""Batch norm written out, against torch's, against NumPy's, and what follows from it."""

from typing import Any

import numpy as np
import pytest
import torch
from helpers import summary, train
from torch import Tensor, nn

import dltrain
from dltrain.initializers import constant, initialize
from dltrain.losses import l2_penalty
from dltrain.models import lenet
from dltrain.models.batch_norm import CONVENTIONS, ScratchBatchNorm
from dltrain.optim import parameter_groups

SHAPES = [(6, 5), (4, 3, 5, 2)]
both_conventions = pytest.mark.parametrize("convention", CONVENTIONS)
vectors_and_images = pytest.mark.parametrize("shape", SHAPES, ids=["vectors", "images"])


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 3 + 2


def scratch(convention: str, inputs: Tensor) -> ScratchBatchNorm:
    """A norm in float64 with the sizes of inputs, and any gamma and beta."""
    norm = ScratchBatchNorm(convention=convention).double()
    norm.eval()(inputs)
    norm.weight.data, norm.bias.data = (noise(len(norm.weight), seed=seed) for seed in (1, 2))
    return norm.train()


@vectors_and_images
def test_torchs_convention_equals_torch(shape: tuple[int, ...]) -> None:
    ours = scratch("torch", noise(*shape))
    theirs = (nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d)(shape[1]).double()
    theirs.load_state_dict(ours.state_dict(), strict=False)
    for batch in range(4):
        inputs, d = noise(*shape, seed=10 + batch), noise(*shape, seed=20 + batch)
        results: list[list[Tensor]] = []
        for norm in (ours, theirs):
            leaf = inputs.clone().requires_grad_()
            outputs = norm.train(batch < 3)(leaf)
            gradients = torch.autograd.grad(outputs, [leaf, norm.weight, norm.bias], d)
            results.append([outputs, *gradients, norm.running_mean.clone(), norm.running_var.clone()])
        for mine, torchs in zip(*results, strict=True):
            torch.testing.assert_close(mine, torchs, rtol=0, atol=1e-6)


@both_conventions
@vectors_and_images
def test_the_backward_is_the_forwards_derivative(convention: str, shape: tuple[int, ...]) -> None:
    inputs = noise(*shape)
    norm = scratch(convention, inputs)

    def forward(inputs: Tensor, weight: Tensor, bias: Tensor) -> Any:
        return torch.func.functional_call(norm, {"weight": weight, "bias": bias}, inputs)

    assert torch.autograd.gradcheck(forward, [inputs.requires_grad_(), norm.weight, norm.bias])


class InNumPy:
    """The notes' batch norm of vectors; images are flattened to vectors."""

    def __init__(self, gamma: np.ndarray, beta: np.ndarray) -> None:
        self.gamma, self.beta = gamma, beta
        self.running_mean, self.running_var = np.zeros_like(gamma), np.zeros_like(gamma)

    def train(self, images: np.ndarray) -> np.ndarray:
        x = images.reshape(len(images), -1)
        mean, variance = x.mean(0), x.var(0)
        self.std, self.xn = np.sqrt(variance + 10e-7), (x - mean) / np.sqrt(variance + 10e-7)
        self.running_mean = 0.9 * self.running_mean + 0.1 * mean
        self.running_var = 0.9 * self.running_var + 0.1 * variance
        return (self.gamma * self.xn + self.beta).reshape(images.shape)

    def backward(self, d_images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        d = d_images.reshape(len(d_images), -1)
        dx = self.gamma / self.std * (d - d.mean(0) - self.xn * (d * self.xn).mean(0))
        return dx.reshape(d_images.shape), (self.xn * d).sum(0), d.sum(0)

    def predict(self, images: np.ndarray) -> np.ndarray:
        xn = (images.reshape(len(images), -1) - self.running_mean) / np.sqrt(self.running_var + 10e-7)
        return (self.gamma * xn + self.beta).reshape(images.shape)


@vectors_and_images
def test_the_notes_convention_equals_numpy(shape: tuple[int, ...]) -> None:
    ours = scratch("notes", noise(*shape))
    theirs = InNumPy(ours.weight.detach().numpy(), ours.bias.detach().numpy())
    for batch in range(3):
        inputs, d = noise(*shape, seed=10 + batch).requires_grad_(), noise(*shape, seed=20 + batch)
        outputs = ours(inputs)
        gradients = torch.autograd.grad(outputs, [inputs, ours.weight, ours.bias], d)
        expected = [theirs.train(inputs.detach().numpy()), *theirs.backward(d.numpy())]
        expected += [theirs.running_mean, theirs.running_var]
        for mine, numpys in zip([outputs, *gradients, ours.running_mean, ours.running_var], expected, strict=True):
            np.testing.assert_allclose(mine.detach().numpy(), numpys, rtol=0, atol=1e-6)
    inputs = noise(*shape, seed=30)
    predicted = ours.eval()(inputs).detach().numpy()
    np.testing.assert_allclose(predicted, theirs.predict(inputs.numpy()), rtol=0, atol=1e-6)


@both_conventions
@vectors_and_images
def test_one_changed_sample_changes_the_others_in_training_alone(convention: str, shape: tuple[int, ...]) -> None:
    inputs = noise(*shape)
    changed = torch.cat([noise(1, *shape[1:], seed=5), inputs[1:]])
    norm = scratch(convention, inputs)
    before, after = norm(inputs)[1:], norm(changed)[1:]
    assert ((before - after).abs() > 1e-3).all()
    norm.eval()
    assert torch.equal(norm(inputs)[1:], norm(changed)[1:])


@pytest.mark.parametrize(
    ("convention", "shape"), [("torch", (1, 5)), ("torch", (1, 5, 1, 1)), ("notes", (1, 5)), ("notes", (1, 3, 5, 2))]
)
def test_a_batch_of_one_gives_beta(convention: str, shape: tuple[int, ...]) -> None:
    inputs = noise(*shape)
    norm = scratch(convention, inputs)
    assert torch.equal(norm(inputs), norm.bias.view(shape))
    assert norm.running_mean.isfinite().all()
    assert norm.running_var.isfinite().all()
    with pytest.raises(ValueError, match="Expected more than 1 value"):
        nn.BatchNorm1d(5)(torch.zeros(1, 5))


@vectors_and_images
def test_the_notes_form_before_training_is_x_by_a_thousandth(shape: tuple[int, ...]) -> None:
    inputs = noise(*shape)
    norm = ScratchBatchNorm(convention="notes").double().eval()
    torch.testing.assert_close(norm(inputs), inputs / 1e-3)


def test_statistics_under_autocast_are_float32s() -> None:
    images = (100 + noise(8, 3, 6, 6)).bfloat16()
    ours, theirs = ScratchBatchNorm(3), nn.BatchNorm2d(3)
    with torch.autocast("cpu", torch.bfloat16):
        mine, torchs = ours(images), theirs(images)
    assert mine.dtype == torch.bfloat16
    torch.testing.assert_close(mine, torchs, rtol=0, atol=2e-2)
    torch.testing.assert_close(ours.running_var, theirs.running_var)


@pytest.mark.parametrize("norm", ["scratch", "scratch_notes"])
def test_to_initializers_decay_and_penalty_it_is_a_norm(norm: str) -> None:
    model = lenet(in_channels=1, image_size=28, num_classes=10, norm=norm)
    initialize(model, constant(value=2.0), generator=torch.Generator())
    norms = {name: module for name, module in model.named_modules() if isinstance(module, ScratchBatchNorm)}
    assert len(norms) == 4
    assert all((module.weight == 1).all() and not module.bias.any() for module in norms.values())
    decayed = {
        name
        for group in parameter_groups(model, weight_decay=0.1)
        if group["weight_decay"]
        for name, _ in group["params"]
    }
    assert decayed == {f"{name}.weight" for name in ("conv1.0", "conv2.0", "linear1.0", "linear2.0", "output")}
    penalty = l2_penalty(model, l2=1.0)
    assert penalty is not None
    weights = dict(model.named_parameters())
    assert penalty().item() == pytest.approx(sum(4 * weights[name].numel() / 2 for name in decayed))


@pytest.mark.parametrize(
    "words",
    [
        ("model=lenet", "model.norm=scratch_notes", "trainer.ema=0.9"),
        ("model=lenet", "model.norm=scratch", "device.precision=bf16", "init=constant"),
        ("model=mlp", "model.norm=scratch", "data.batch_size=1"),
    ],
)
def test_it_trains_is_saved_and_loaded(words: tuple[str, ...]) -> None:
    folder = train("data.batch_size=32", *words, "trainer.epochs=1", "trainer.limit_train_batches=4")
    assert summary(folder)["status"] == "completed"
    run = dltrain.load(folder)
    assert any(isinstance(module, ScratchBatchNorm) for module in run.model.modules())
    assert run.predict(torch.zeros(2, 28, 28, dtype=torch.uint8)).isfinite().all()
