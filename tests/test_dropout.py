"""The notes' dropout against torch's."""

import pytest
import torch
from torch import Tensor, nn

from dltrain import models
from dltrain.models.layers import DROPOUTS, NotesDropout

RATIO = 0.3


def in_training(form: str, inputs: Tensor) -> Tensor:
    torch.manual_seed(1)
    outputs: Tensor = DROPOUTS[form](RATIO).train()(inputs)
    return outputs


def in_prediction(form: str, inputs: Tensor) -> Tensor:
    outputs: Tensor = DROPOUTS[form](RATIO).eval()(inputs)
    return outputs


@pytest.mark.parametrize(("form", "kept"), [("notes", 1.0), ("inverted", 1 / (1 - RATIO))])
def test_training_keeps_or_drops_and_prediction_is_its_expectation(form: str, kept: float) -> None:
    inputs = torch.full((1_000_000,), 2.0)
    outputs = in_training(form, inputs)
    assert outputs.unique().tolist() == pytest.approx([0.0, 2 * kept])
    assert outputs.mean().item() == pytest.approx(in_prediction(form, inputs).mean().item(), abs=0.01)
    assert in_prediction(form, inputs).unique().item() == pytest.approx(2 * kept * (1 - RATIO))


def test_the_forms_are_the_same_function_with_weights_scaled() -> None:
    inputs = torch.randn(64, 20, dtype=torch.float64)
    notes, inverted = nn.Linear(20, 3).double(), nn.Linear(20, 3).double()
    inverted.weight.data, inverted.bias.data = notes.weight.data * (1 - RATIO), notes.bias.data
    torch.testing.assert_close(notes(in_prediction("notes", inputs)), inverted(in_prediction("inverted", inputs)))
    for form, linear in (("notes", notes), ("inverted", inverted)):
        mask = in_training(form, torch.ones_like(inputs)) > 0
        torch.testing.assert_close(linear(in_training(form, inputs)), notes(inputs * mask))


def test_low_precision_drops_as_often() -> None:
    """Random numbers of 8 bits would be above a half too seldom: 127 of 256."""
    torch.manual_seed(1)
    kept = NotesDropout(0.5)(torch.ones(1_000_000, dtype=torch.bfloat16))
    assert kept.dtype == torch.bfloat16
    assert kept.float().mean().item() == pytest.approx(0.5, abs=2e-3)


def test_an_mlp_takes_either() -> None:
    how = {"input_shape": (16,), "num_outputs": 2, "hidden_sizes": (8, 8), "dropout": RATIO}
    for form, kind in (("notes", NotesDropout), ("inverted", nn.Dropout)):
        found = [module for module in models.mlp(**how, dropout_form=form).modules() if isinstance(module, kind)]
        assert len(found) == 2
    assert str(found[0]) == "Dropout(p=0.3, inplace=False)"
    assert str(NotesDropout(RATIO)) == "NotesDropout(ratio=0.3)"
