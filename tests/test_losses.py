"""Cross-entropy against its definition, and the L2 penalty against weight decay."""

import math

import pytest
import torch
from torch import Tensor, nn

from dltrain.losses import cross_entropy, l2_penalty
from dltrain.optim import parameter_groups

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 3.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 1])


def by_definition(probabilities: Tensor) -> float:
    log_softmax = LOGITS - LOGITS.exp().sum(dim=1, keepdim=True).log()
    return -(probabilities * log_softmax).sum(dim=1).mean().item()


def test_cross_entropy_of_indices_and_probabilities() -> None:
    one_hot = torch.eye(3, dtype=torch.float64)[LABELS]
    mixed = torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.5, 0.5]], dtype=torch.float64)
    loss = cross_entropy(num_classes=3)
    assert loss(LOGITS, LABELS).item() == pytest.approx(by_definition(one_hot))
    assert loss(LOGITS, mixed).item() == pytest.approx(by_definition(mixed))
    assert loss(torch.zeros(4, 10), torch.arange(4)).item() == pytest.approx(math.log(10))


def test_label_smoothing_spreads_a_share_over_all_classes() -> None:
    smoothed = 0.9 * torch.eye(3, dtype=torch.float64)[LABELS] + 0.1 / 3
    assert cross_entropy(num_classes=3, label_smoothing=0.1)(LOGITS, LABELS).item() == pytest.approx(
        by_definition(smoothed)
    )


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, 3)).double()


def test_l2_penalty_is_half_the_squared_weights() -> None:
    model = net()
    first, last = (p.detach().numpy() for p in model.parameters() if p.ndim == 2)
    penalty, last_only = l2_penalty(model, l2=0.2), l2_penalty(model, l2=0.2, l2_on="last")
    assert penalty is not None
    assert last_only is not None
    assert penalty().item() == pytest.approx(0.1 * ((first**2).sum() + (last**2).sum()))
    assert last_only().item() == pytest.approx(0.1 * (last**2).sum())
    assert l2_penalty(model, l2=0.0) is None


def test_l2_penalty_skips_frozen_weights() -> None:
    model = net()
    model[3].weight.requires_grad_(False)
    assert l2_penalty(model, l2=0.1, l2_on="last") is None


def trained(optimizer_class: type[torch.optim.Optimizer], *, l2: float, weight_decay: float) -> Tensor:
    model = net()
    groups = parameter_groups(model, weight_decay=weight_decay, decay_bias_and_norm=False)
    optimizer = optimizer_class(groups, lr=0.1)  # type: ignore[call-arg]
    penalty = l2_penalty(model, l2=l2)
    images = torch.randn(8, 4, generator=torch.Generator().manual_seed(1)).double()
    for _ in range(20):
        loss = cross_entropy(num_classes=3)(model(images), torch.arange(8) % 3)
        optimizer.zero_grad()
        (loss if penalty is None else loss + penalty()).backward()
        optimizer.step()
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize(("optimizer_class", "equal"), [("SGD", True), ("Adam", True), ("AdamW", False)])
def test_l2_is_weight_decay_where_that_is_added_to_the_gradient(optimizer_class: str, equal: bool) -> None:
    """torch's Adam adds it too: what the notes say of Adam, that it differs, holds for decoupled decay."""
    optimizer = getattr(torch.optim, optimizer_class)
    by_loss, by_decay = trained(optimizer, l2=0.1, weight_decay=0.0), trained(optimizer, l2=0.0, weight_decay=0.1)
    if equal:
        torch.testing.assert_close(by_loss, by_decay, rtol=0, atol=1e-6)
    else:
        assert (by_loss - by_decay).abs().max() > 1e-2
    assert (by_loss - trained(optimizer, l2=0.0, weight_decay=0.0)).abs().max() > 1e-2


def test_impossible_values_are_refused() -> None:
    with pytest.raises(ValueError, match="label_smoothing must be from 0 to 1"):
        cross_entropy(num_classes=3, label_smoothing=1.5)
    with pytest.raises(ValueError, match="l2 must be 0 or more, not -1"):
        l2_penalty(net(), l2=-1)
    with pytest.raises(ValueError, match="l2_on must be all or last, not first"):
        l2_penalty(net(), l2=0.1, l2_on="first")
