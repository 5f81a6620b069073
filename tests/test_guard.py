"""Taking tensors back: the same bits, whatever they are, in few operations."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dltrain.engine.guard import Guard, by_format, choose

BEFORE = [0.0, -0.0, 1.5, math.inf, math.nan]
NOW = [math.nan, -math.inf, 0.0, -0.0, 3.0]


class Counted(TorchDispatchMode):
    """Counts what would be launched on a device: a view is not."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view:
            self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def same_bits(left: Tensor, right: Tensor) -> bool:
    return left.stride() == right.stride() and left.numpy().tobytes() == right.numpy().tobytes()


@pytest.mark.parametrize("good", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.int64, torch.bool])
def test_bits_are_chosen_by_the_flag(good: bool, dtype: torch.dtype) -> None:
    numbers = (NOW, BEFORE) if dtype.is_floating_point else ([3, 1, 0, 1, 0], [0, 1, 2, 0, 1])
    now, before = (torch.tensor(each).to(dtype) for each in numbers)
    kept, old = ([each, each[1].clone(), each.expand(2, 3, 5).clone(), each[:0].clone()] for each in (now, before))
    kept[2], old[2] = (each[2].transpose(0, 2).clone() for each in (kept, old))  # which is dense, and not contiguous
    expected = [each.clone() for each in (kept if good else old)]
    choose(torch.tensor(good), kept, old)
    assert all(map(same_bits, kept, expected))


def test_many_tensors_take_few_operations() -> None:
    kept, old = ([torch.rand(3) for _ in range(50)] for _ in range(2))
    with Counted() as counted:
        choose(torch.tensor(True), kept, old)
    assert len(counted.names) < 8, counted.names


def test_formats_are_apart() -> None:
    tensors = [torch.rand(3), torch.zeros((), dtype=torch.int64), torch.rand(2)]
    copies = [tensor.clone() for tensor in tensors]
    ((floats, their_copies), (integers, _)) = by_format(tensors, copies)
    assert [each.data_ptr() for each in floats] == [tensors[0].data_ptr(), tensors[2].data_ptr()]
    assert [each.data_ptr() for each in their_copies] == [copies[0].data_ptr(), copies[2].data_ptr()]
    assert integers[0] is tensors[1]


@pytest.mark.parametrize("good", [True, False])
def test_what_was_remembered_last_is_put_back(good: bool) -> None:
    guard, tensors = Guard(), [torch.rand(3), torch.zeros((), dtype=torch.int64), torch.rand(2)]
    for number in range(3):
        tensors[1].fill_(number)
        guard.remember(tensors)
    tensors[0].fill_(math.nan)
    tensors[1].fill_(9)
    guard.restore_unless(torch.tensor(good))
    assert tensors[1].item() == (9 if good else 2)
    assert tensors[0].isnan().any().item() == good
