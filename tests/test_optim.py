"""Update rules against the course notes' in NumPy, Muon, and parameter groups."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engines import node
from helpers import optimizers
from omegaconf import OmegaConf
from torch import nn

from dltrain import optim
from dltrain.build.optimizer import make_optimizer
from dltrain.engine import searches
from dltrain.optim import Muon, ScratchMomentum, ScratchNesterov, fused_keywords, orthogonalize, parameter_groups

CONF = Path(__file__).parent.parent / "conf" / "optim"
Array = np.ndarray[Any, np.dtype[np.float64]]
Rule = Callable[[Array, Array, dict[str, Array], int], Array]


def load(option: str) -> tuple[Callable[..., torch.optim.Optimizer], dict[str, Any]]:
    node = OmegaConf.to_container(OmegaConf.load(CONF / f"{option}.yaml"))
    assert isinstance(node, dict)
    keywords = {str(key): value for key, value in node.items()}
    name = keywords.pop("name")
    ours = name in ("Muon", "LBFGS") or not hasattr(torch.optim, name)
    return getattr(optim if ours else torch.optim, name), keywords


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8), nn.Linear(8, 3)
    )


def train(net: nn.Module, optimizer: torch.optim.Optimizer, *, steps: int) -> list[float]:
    generator = torch.Generator().manual_seed(1)
    first = next(net.parameters())
    images = torch.randn(16, 1, 6, 6, generator=generator).to(first)
    labels = torch.randint(3, (16,), generator=generator)
    losses = []
    for _ in range(steps):

        def closure() -> torch.Tensor:
            loss = nn.functional.cross_entropy(net(images), labels)
            if torch.is_grad_enabled():
                optimizer.zero_grad()
                loss.backward(retain_graph=True)
            return loss

        losses.append(closure().item())
        optimizer.step(closure) if searches(optimizer) else optimizer.step()
    return losses


@pytest.mark.parametrize("option", optimizers())
def test_every_option_trains_and_resumes(option: str) -> None:
    optimizer_class, keywords = load(option)
    nets = [small_net(), small_net()]
    optimizers = [optimizer_class(parameter_groups(net, weight_decay=1e-4), **keywords) for net in nets]
    assert optimizers[0].param_groups[0]["param_names"][:2] == ["0.weight", "4.weight"]
    losses = train(nets[0], optimizers[0], steps=10)
    assert losses[-1] < losses[0]

    train(nets[1], optimizers[1], steps=5)
    resumed = optimizer_class(parameter_groups(nets[1], weight_decay=1e-4), **keywords)
    resumed.load_state_dict(optimizers[1].state_dict())
    assert train(nets[1], resumed, steps=5) == losses[5:]


def momentum(w: Array, g: Array, state: dict[str, Array], t: int) -> Array:
    state["v"] = 0.9 * state["v"] - 0.01 * g
    return w + state["v"]


def nesterov(w: Array, g: Array, state: dict[str, Array], t: int) -> Array:
    w = w + 0.9**2 * state["v"] - (1 + 0.9) * 0.01 * g
    state["v"] = 0.9 * state["v"] - 0.01 * g
    return w


def adagrad(w: Array, g: Array, state: dict[str, Array], t: int) -> Array:
    state["h"] = state["h"] + g * g
    return w - 0.01 * g / (np.sqrt(state["h"]) + 1e-7)


def adam(w: Array, g: Array, state: dict[str, Array], t: int) -> Array:
    state["m"] = state["m"] + (1 - 0.9) * (g - state["m"])
    state["v"] = state["v"] + (1 - 0.999) * (g * g - state["v"])
    rate = 0.001 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
    return np.asarray(w - rate * state["m"] / (np.sqrt(state["v"]) + 1e-7))


RULES: dict[str, tuple[Rule, float]] = {
    "sgd": (lambda w, g, state, t: w - 0.01 * g, 1e-12),
    "momentum": (momentum, 1e-12),
    "nesterov": (nesterov, 1e-12),
    "adagrad": (adagrad, 1e-12),
    "adam": (adam, 1e-6),
}


@pytest.mark.parametrize("option", RULES)
@pytest.mark.parametrize("how", ["plain", "fused", "scratch"])
def test_update_rule_is_the_notes(option: str, how: str) -> None:
    rule, tolerance = RULES[option]
    if how == "scratch":
        option, tolerance = f"scratch_{option}", 1e-12
    curvature = np.random.default_rng(0).uniform(0.5, 2.0, 7)
    expected = np.random.default_rng(1).normal(size=7)
    parameter = nn.Parameter(torch.tensor(expected))
    optimizer_class, keywords = load(option)
    optimizer = optimizer_class([parameter], **keywords, **({} if how == "scratch" else {"fused": how == "fused"}))
    state = {key: np.zeros(7) for key in "vhm"}
    for t in range(1, 21):
        expected = rule(expected, curvature * expected + np.sin(expected), state, t)
        with torch.no_grad():
            parameter.grad = torch.tensor(curvature) * parameter + parameter.sin()
        optimizer.step()
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=0, atol=tolerance)


def listed_nesterov(w: Array, g: Array, state: dict[str, Array], t: int) -> Array:
    state["v"] = 0.9 * state["v"] - 0.01 * g
    return np.asarray(w + 0.9**2 * state["v"] - (1 + 0.9) * 0.01 * g)


def test_the_listing_of_the_notes_is_another_nesterov() -> None:
    parameter = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = ScratchNesterov([parameter], form="notes")
    expected, state = np.array([1.0]), {"v": np.zeros(1)}
    for t in range(1, 6):
        expected = listed_nesterov(expected, 3 * expected, state, t)
        parameter.grad = 3 * parameter.detach()
        optimizer.step()
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=0, atol=1e-12)
        if t == 1:
            assert expected[0] == pytest.approx(1 - 2.71 * 0.01 * 3)


@pytest.mark.parametrize(
    ("optimizer_class", "keywords", "bound"),
    [
        (ScratchNesterov, {"form": "notes"}, 2 * 1.9 / (1 + 1.8 + 2 * 0.81)),
        (ScratchNesterov, {"form": "corrected"}, 2 * 1.9 / 2.8),
        (ScratchMomentum, {}, 3.8),
    ],
)
def test_a_rule_is_stable_up_to_its_bound(optimizer_class: Any, keywords: dict[str, Any], bound: float) -> None:
    """On curvature 1, as the notes' formulas say: 0.860, 1.357 and 3.8."""
    ends = []
    for rate in (0.98 * bound, 1.02 * bound):
        parameter = nn.Parameter(torch.ones(1, dtype=torch.float64))
        optimizer = optimizer_class([parameter], lr=rate, **keywords)
        for _ in range(1500):
            parameter.grad = parameter.detach().clone()
            optimizer.step()
        ends.append(abs(parameter.item()))
    assert ends[0] < 1e-3
    assert ends[1] > 1e3


@pytest.mark.parametrize(
    ("option", "keywords", "message"),
    [
        ("scratch_sgd", {"lr": -1.0}, "lr must be 0 or more"),
        ("scratch_momentum", {"momentum": 1.0}, r"momentum must be in \[0, 1\)"),
        ("scratch_nesterov", {"form": "other"}, "form must be corrected or notes"),
        ("scratch_adam", {"betas": (0.9, 1.0)}, r"betas must be in \[0, 1\)"),
    ],
)
def test_a_scratch_rule_refuses_what_it_cannot_use(option: str, keywords: dict[str, Any], message: str) -> None:
    optimizer_class, known = load(option)
    with pytest.raises(ValueError, match=message):
        optimizer_class([nn.Parameter(torch.zeros(1))], **{**known, **keywords})


def test_parameter_groups_by_role() -> None:
    net = small_net()
    net[4].bias.requires_grad_(False)
    groups = parameter_groups(net, weight_decay=0.1)
    names = {group["role"]: [name for name, _ in group["params"]] for group in groups}
    assert names == {
        "hidden": ["0.weight", "4.weight"],
        "classifier": ["5.weight"],
        "vector": ["0.bias", "1.weight", "1.bias", "5.bias"],
    }
    assert [group["weight_decay"] for group in groups] == [0.1, 0.1, 0.0]
    decayed = parameter_groups(net, weight_decay=0.1, decay_bias_and_norm=True)
    assert [group["weight_decay"] for group in decayed] == [0.1, 0.1, 0.1]


def test_parameter_groups_leave_out_what_is_empty_and_list_shared_parameters_once() -> None:
    shared = nn.Linear(3, 3, bias=False)
    groups = parameter_groups(nn.Sequential(shared, shared), weight_decay=0.0)
    assert [(group["role"], len(group["params"])) for group in groups] == [("classifier", 1)]


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("shape", [(12, 12), (8, 40), (40, 8)])
def test_orthogonalized_singular_values_are_near_one(shape: tuple[int, int], dtype: torch.dtype | None) -> None:
    matrices = torch.randn(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    result = orthogonalize(matrices, steps=5, dtype=dtype)
    singular_values = torch.linalg.svdvals(result)
    assert (result.shape, result.dtype) == (matrices.shape, matrices.dtype)
    assert singular_values.max() < 1.25
    assert singular_values.min() > 0.5
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    assert nn.functional.cosine_similarity(result.flatten(), (left @ right).flatten(), dim=0) > 0.97


@pytest.mark.parametrize("nesterov", [False, True])
def test_muon_steps_kernels_as_matrices_and_decays_them(nesterov: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    kernel, *gradients = torch.randn(3, 32, 2, 3, 3, dtype=torch.float64, generator=generator)
    parameter = nn.Parameter(kernel.clone())
    muon = Muon([parameter], lr=0.1, momentum=0.8, nesterov=nesterov, weight_decay=0.5)
    momentum = torch.zeros_like(kernel)
    for gradient in gradients:
        momentum = 0.8 * momentum + 0.2 * gradient
        direction = 0.8 * momentum + 0.2 * gradient if nesterov else momentum
        step = np.sqrt(32 / 18) * orthogonalize(direction.reshape(1, 32, 18), steps=5)
        kernel = kernel - 0.1 * 0.5 * kernel - 0.1 * step.reshape(kernel.shape)
        parameter.grad = gradient.clone()
        muon.step()
        torch.testing.assert_close(parameter.detach(), kernel)
        assert torch.equal(parameter.grad, gradient)


def test_muon_multiplies_in_bfloat16_where_the_run_does() -> None:
    """Within that format's error, and not to the digits of float32."""
    gradients = torch.randn(3, 16, 24, generator=torch.Generator().manual_seed(0))
    stepped = {}
    for precision in ("fp32", "bf16", "fp16"):
        net = nn.Sequential(nn.Linear(24, 16, bias=False), nn.Linear(16, 2))
        nn.init.ones_(net[0].weight)
        muon = make_optimizer(node("muon", lr=0.1), net, precision)
        for gradient in gradients:
            net[0].weight.grad = gradient.clone()
            muon.step()
        stepped[precision] = net[0].weight.detach()
    assert torch.equal(stepped["fp16"], stepped["fp32"])
    assert 1e-5 < (stepped["bf16"] - stepped["fp32"]).abs().max() < 0.01


def test_a_copied_muon_steps_as_the_original() -> None:
    weight = nn.Parameter(torch.eye(3))
    muon = Muon([weight], products=torch.bfloat16)
    twin = copy.deepcopy(muon)
    for each in (muon, twin):
        (parameter,) = each.param_groups[0]["params"]
        parameter.grad = torch.arange(9.0).reshape(3, 3)
        each.step()
    assert torch.equal(twin.param_groups[0]["params"][0], weight)


def test_muon_is_adamw_outside_hidden_groups() -> None:
    nets = [nn.Linear(4, 3).double(), nn.Linear(4, 3).double()]
    nets[1].load_state_dict(nets[0].state_dict())
    keywords = {"betas": (0.8, 0.9), "eps": 1e-6}
    muon = Muon(parameter_groups(nets[0], weight_decay=0.1), adamw_lr=0.05, adamw_betas=(0.8, 0.9), adamw_eps=1e-6)
    adamw = torch.optim.AdamW(parameter_groups(nets[1], weight_decay=0.1), lr=0.05, **keywords)  # type: ignore[arg-type]
    images = torch.randn(5, 4, dtype=torch.float64)
    for _ in range(4):
        for net, optimizer in zip(nets, (muon, adamw), strict=True):
            optimizer.zero_grad()
            net(images).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(nets[0].weight, nets[1].weight)
    torch.testing.assert_close(nets[0].bias, nets[1].bias)


def test_muon_groups_keep_their_own_initial_rates() -> None:
    muon = Muon(parameter_groups(small_net(), weight_decay=0.0), lr=0.02, adamw_lr=0.001)
    assert [(group["role"], group["lr"]) for group in muon.param_groups] == [
        ("hidden", 0.02),
        ("classifier", 0.001),
        ("vector", 0.001),
    ]


def test_muon_does_not_move_at_rate_zero_and_takes_a_tensor_as_rate() -> None:
    net = small_net()
    muon = Muon(parameter_groups(net, weight_decay=0.1))
    for group in muon.param_groups:
        group["lr"] = torch.tensor(0.0)
    before = [parameter.detach().clone() for parameter in net.parameters()]
    train(net, muon, steps=2)
    assert all(torch.equal(old, new) for old, new in zip(before, net.parameters(), strict=True))


def test_muon_reads_nothing_from_the_device() -> None:
    parameter = nn.Parameter(torch.empty(4, 3, device="meta"))  # a meta tensor refuses to be read
    parameter.grad = torch.empty_like(parameter)
    for role in ("hidden", "classifier"):
        Muon([{"params": [parameter], "role": role}]).step()


def test_muon_on_channels_last_is_muon_on_a_plain_layout() -> None:
    nets = [small_net().double(), small_net().double().to(memory_format=torch.channels_last)]
    losses = [train(net, Muon(parameter_groups(net, weight_decay=0.1)), steps=5) for net in nets]
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"lr": -1.0}, "lr must be 0 or more, not -1.0"),
        ({"momentum": 1.0}, "momentum must be in"),
        ({"ns_steps": 0}, "ns_steps must be 1 or more, not 0"),
        ({"adamw_betas": [0.9]}, "adamw_betas must be two numbers"),
        ({"adamw_lr": float("nan")}, "adamw_lr must be 0 or more, not nan"),
    ],
)
def test_muon_refuses_impossible_values(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Muon([nn.Parameter(torch.zeros(2, 2))], **keywords)


def test_muon_refuses_vectors_in_hidden_groups() -> None:
    with pytest.raises(ValueError, match=r"shape of a hidden parameter .* not \(4,\)"):
        Muon(small_net().parameters())


@pytest.mark.parametrize(
    ("optimizer_class", "expected"),
    [(torch.optim.Adam, {"fused": True}), (torch.optim.NAdam, {}), (Muon, {})],
)
def test_fused_keywords(optimizer_class: type[torch.optim.Optimizer], expected: dict[str, bool]) -> None:
    assert fused_keywords(optimizer_class, device=torch.device("cpu")) == expected


def test_fused_keywords_where_the_device_lacks_the_kernel() -> None:
    class Unsupported(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            raise RuntimeError("no such kernel")

    assert fused_keywords(Unsupported, device=torch.device("cpu")) == {}
