"""The count of right predictions."""

import torch

from dltrain.metrics import correct

LOGITS = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0], [0.0, 3.0, 2.0]])


def test_correct_counts_indices_and_probabilities() -> None:
    count = correct(LOGITS, torch.tensor([0, 1, 1]))
    assert count.shape == ()
    assert count.item() == 2
    mixed = torch.tensor([[0.6, 0.4, 0.0], [0.0, 0.4, 0.6], [0.6, 0.0, 0.4]])
    assert correct(LOGITS, mixed).item() == 2
    assert correct(LOGITS.to("meta"), mixed.to("meta")).is_meta  # reads nothing from the device
    assert correct(LOGITS[:0], torch.empty(0, dtype=torch.int64)).item() == 0
