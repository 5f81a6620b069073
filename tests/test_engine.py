"""The step: clipping, averaging, number formats, what a batch that is not finite leaves behind, and no waiting."""

import copy
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from engines import batches, engine, equal, first_batch, network, optimizer, poisoned
from helpers import SEARCHING, optimizers
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dltrain.engine import DeviceError, Engine, Precision, Totals, select
from dltrain.engine.device import best_memory_format, configure, describe, peak_memory
from dltrain.engine.optimizer import load_state, tensors
from dltrain.losses import cross_entropy, l2_penalty
from dltrain.models import lenet, resnet18
from dltrain.train import fit

CPU = torch.device("cpu")


def weights(ours: Engine) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in ours.model.parameters()]


def first_gradients(ours: Engine) -> list[Tensor]:
    """The gradients of the first batch, as step 0 sees them."""
    images, labels = first_batch()
    torch.manual_seed(hash((0, 0)))
    return list(torch.autograd.grad(ours.loss(ours.model(images), labels), ours.model.parameters()))


def moves(ours: Engine) -> list[Tensor]:
    """How far the first batch moves each parameter."""
    before = weights(ours)
    ours.step(first_batch(), 0)
    return [new - old for new, old in zip(weights(ours), before, strict=True)]


def losses(ours: Engine, *, epochs: int = 1) -> list[float]:
    return [event.row["loss"] for event in fit(ours, batches(), epochs=epochs, log_every=1) if event.row]


def test_an_older_library_is_asked_for_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it refuses a threshold, the other one alone would have it map every tensor anew."""
    asked: list[tuple[int, int]] = []
    library = SimpleNamespace(mallopt=lambda *words: asked.append(words) or words != (-3, 2**30))
    monkeypatch.setattr("ctypes.CDLL", lambda name: library)
    configure(torch.device("cuda"), threads=None, tf32=False, deterministic=False)
    assert asked == [], "a GPU's memory is not the C library's"
    configure(CPU, threads=None, tf32=False, deterministic=False)
    assert asked == [(-3, 2**30), (-3, 2**25), (-1, -1)]
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=1")
    configure(CPU, threads=None, tf32=False, deterministic=False)
    assert len(asked) == 3


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="page faults are counted on Linux")
@pytest.mark.parametrize("kept", [True, False])
def test_steps_take_memory_that_the_process_has(kept: bool) -> None:
    """Else the system clears pages anew in every step; with the user's own threshold it does."""
    program = """
import resource, torch
from dltrain.engine.device import configure
configure(torch.device("cpu"), threads=1, tf32=False, deterministic=False)
def fill(): torch.ones(9 << 20)  # 9216 pages
for _ in range(3): fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10): fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    environment = os.environ if kept else {**os.environ, "MALLOC_TRIM_THRESHOLD_": "100000"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert (int(done.stdout) < 3 * 9216) is kept


@pytest.mark.parametrize("microbatch", [1, 3, 4, 10, 99])
def test_parts_of_a_batch_add_up_to_the_batch(microbatch: int) -> None:
    rows, results = [], []
    for size in (None, microbatch):
        model = network(norm=False, dropout=0.0).double()
        ours = engine("sgd", model, lr=0.1, microbatch=size, penalty=l2_penalty(model, l2=0.1))
        for step, (images, labels) in enumerate(batches().epoch(0)):
            ours.step((images.double(), labels), step)
        rows.append(ours.report(epoch=True))
        results.append(weights(ours))
    torch.testing.assert_close(results[1], results[0], rtol=1e-10, atol=1e-12)
    assert rows[1]["loss"] == pytest.approx(rows[0]["loss"], rel=1e-10)
    assert rows[1]["accuracy"] == rows[0]["accuracy"]


def test_a_part_holds_no_more_examples_than_allowed() -> None:
    sizes: list[int] = []
    ours = engine(microbatch=4)
    ours.model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    ours.step(first_batch(), 0)
    assert sizes == [4, 3, 3]


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999, 1.001, 100.0])
def test_clipping_by_norm_shrinks_the_whole_gradient_and_never_enlarges_it(share: float) -> None:
    gradients = first_gradients(engine())
    norm = math.sqrt(sum(gradient.square().sum().item() for gradient in gradients))
    found = moves(engine(lr=1.0, clip_norm=share * norm))
    expected = [-min(1.0, share) * gradient for gradient in gradients]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    if share > 1:
        assert equal(found, moves(engine(lr=1.0)))


def test_clipping_by_value_bounds_every_entry() -> None:
    gradients = first_gradients(engine())
    bound = gradients[0].abs().median().item()
    found = moves(engine(lr=1.0, clip_value=bound))
    torch.testing.assert_close(found, [-gradient.clamp(-bound, bound) for gradient in gradients], rtol=1e-4, atol=1e-6)


def test_the_penalty_is_in_the_reported_loss_and_in_the_gradient() -> None:
    model = network(dropout=0.0)
    penalty = l2_penalty(model, l2=0.5)
    assert penalty is not None
    expected = [
        without - 0.5 * weight * (weight.ndim >= 2)
        for without, weight in zip(moves(engine(model=network(dropout=0.0), lr=1.0)), model.parameters(), strict=True)
    ]
    value = penalty().item()
    ours = engine(model=model, lr=1.0, penalty=penalty)
    torch.testing.assert_close(moves(ours), [each.detach() for each in expected], rtol=1e-4, atol=1e-6)
    plain = engine(model=network(dropout=0.0))
    plain.step(first_batch(), 0)
    assert ours.last_loss.item() == pytest.approx(plain.last_loss.item() + value, rel=1e-5)


def test_averaged_weights_follow_the_formula() -> None:
    ours = engine("momentum", ema=0.75)
    expected = {name: value.clone() for name, value in ours.model.state_dict().items()}
    for step, batch in enumerate(batches().epoch(0)):
        ours.step(batch, step)
        for name, value in ours.model.state_dict().items():
            moving = value.is_floating_point()
            expected[name] = 0.75 * expected[name] + 0.25 * value if moving else value.clone()
    torch.testing.assert_close(dict(ours.weights()), expected)
    assert not equal(ours.weights(), dict(ours.model.state_dict()))


def test_a_step_depends_on_its_number_and_not_on_what_ran_before() -> None:
    ours, others = engine(seed=1), engine(seed=1)
    torch.rand(3)
    ours.step(first_batch(), 5)
    torch.rand(5)
    others.step(first_batch(), 5)
    assert equal(weights(ours), weights(others))
    third = engine(seed=2)
    third.step(first_batch(), 5)
    assert not equal(weights(ours), weights(third))


@pytest.mark.parametrize("option", optimizers())
@pytest.mark.parametrize("bad", [0, 2])
def test_a_step_that_is_not_finite_might_as_well_not_have_been(option: str, bad: int) -> None:
    found, expected = engine(option), engine(option)
    for step in range(4):
        found.step(poisoned() if step == bad else first_batch(), step)
        if step != bad:
            expected.step(first_batch(), step)
    assert equal(found.model.state_dict(), expected.model.state_dict())
    assert equal(found.optimizer.state_dict(), expected.optimizer.state_dict())


POISONS = {
    "a loss without end": lambda weight: torch.tensor(float("inf")),
    "a gradient that is no number": lambda weight: (0 * weight.sum()).sqrt(),
}


@pytest.mark.parametrize("poison", POISONS)
@pytest.mark.parametrize("option", ["sgd", "rmsprop"])
def test_loss_and_gradient_must_both_be_finite(poison: str, option: str) -> None:
    model = network()
    ours = engine(option, model)
    ours.step(first_batch(), 0)
    before = weights(ours)
    ours.penalty = lambda: POISONS[poison](model[0].weight)
    ours.step(first_batch(), 1)
    assert equal(weights(ours), before)
    assert ours.report(epoch=False)["nonfinite_steps"] == 1


def test_a_pixel_without_end_stays_out_of_the_averaged_weights_too() -> None:
    ours = engine(ema=0.9)
    ours.step(first_batch(), 0)
    ours.step(poisoned(float("inf")), 1)
    assert all(value.isfinite().all() for value in ours.weights().values())


def test_a_row_counts_steps_that_were_not_finite_and_means_the_others() -> None:
    ours = engine(lr=1e-9)
    ours.step(first_batch(), 0)
    first = ours.last_loss.item()
    ours.step(poisoned(), 1)
    ours.step(first_batch(), 2)
    row = ours.report(epoch=False)
    assert row["nonfinite_steps"] == 1
    assert row["loss"] == pytest.approx((first + ours.last_loss.item()) / 2, rel=1e-6)
    assert 0 <= row["accuracy"] <= 1
    ours.step(poisoned(), 3)
    row = ours.report(epoch=False)
    assert (row["loss"], row["accuracy"], row["nonfinite_steps"]) == (None, None, 1)
    ours.step(first_batch(), 4)
    assert "nonfinite_steps" not in ours.report(epoch=False)
    assert ours.report(epoch=True)["nonfinite_steps"] == 2


def test_an_absurd_rate_gives_rows_of_numbers_and_null() -> None:
    ours = engine("sgd", lr=1e38)
    found = [event.row for event in fit(ours, batches(), epochs=1, log_every=1)]
    json.dumps(found, allow_nan=False)
    assert found[-1]["nonfinite_steps"] > 0
    assert found[-1]["loss"] == pytest.approx(found[0]["loss"], rel=1e-6)
    assert not any(value.isnan().any() for value in ours.model.state_dict().values())


def test_bf16_trains_and_agrees_with_fp32_to_its_error() -> None:
    exact, rough = (losses(engine("adam", network(dropout=0.0), lr=0.01, precision=each)) for each in ("fp32", "bf16"))
    assert exact != rough
    assert rough == pytest.approx(exact, rel=0.02)
    found = losses(engine("adam", precision="bf16", lr=0.01), epochs=6)
    assert found[-1] < 0.8 * found[0]


def test_a_float64_model_trains_in_float64() -> None:
    ours = engine("adam", network(dropout=0.0).double())
    images, labels = first_batch()
    ours.step((images.double(), labels), 0)
    assert ours.last_loss.dtype == torch.float64
    assert all(weight.dtype == torch.float64 for weight in weights(ours))


def scaled(scale: float, *, interval: int = 2000) -> Precision:
    """float16's scaling of losses, without float16, which a CPU does not have."""
    precision = Precision("fp32", CPU, interval=interval)
    precision.scaled, precision.scale = True, torch.tensor(scale)
    return precision


def test_the_scale_halves_after_an_overflow_and_doubles_after_enough_finite_steps() -> None:
    precision = scaled(64.0, interval=3)
    seen = []
    for finite in (True, True, True, True, False, True, True, False, False, True, True, True):
        precision.follow(torch.tensor(finite))
        seen.append(precision.scale.item())
    assert seen == [64, 64, 128, 128, 64, 64, 64, 32, 16, 16, 16, 32]


def test_the_scale_goes_on_from_its_state() -> None:
    first, second = scaled(64.0, interval=3), scaled(1.0, interval=3)
    for _ in range(2):
        first.follow(torch.tensor(True))
    second.load_state_dict(first.state_dict())
    second.follow(torch.tensor(True))
    assert second.scale.item() == 128
    plain = Precision("fp32", CPU)
    plain.load_state_dict(first.state_dict())
    assert plain.scale.item() == 1
    assert plain.state_dict() == {}


@pytest.mark.parametrize("option", ["momentum", "rmsprop"])
def test_scaling_by_a_power_of_two_changes_no_bit(option: str) -> None:
    plain, with_scale = engine(option), engine(option, precision=scaled(2.0**20))
    for ours in (plain, with_scale):
        list(fit(ours, batches(), epochs=1))
    assert equal(weights(with_scale), weights(plain))


@pytest.mark.parametrize("option", ["momentum", "adam", "rmsprop"])
def test_an_overflow_alone_is_no_divergence(option: str) -> None:
    ours = engine(option, network(norm=False), precision=scaled(2.0**127))
    images, labels = first_batch()
    before = weights(ours)
    ours.step((images * 1e4, labels), 0)
    assert equal(weights(ours), before)
    assert "nonfinite_steps" not in ours.report(epoch=False)
    for step in range(1, 40):
        ours.step((images * 1e4, labels), step)
    assert 1 < ours.precision.scale.item() < 2.0**126
    assert not equal(weights(ours), before)
    assert all(weight.isfinite().all() for weight in weights(ours))


def test_a_loss_that_is_no_number_is_divergence_under_scaling_too() -> None:
    ours = engine(precision=scaled(64.0))
    ours.step(poisoned(), 0)
    assert ours.report(epoch=False)["nonfinite_steps"] == 1


def test_float16_on_a_cpu_is_refused() -> None:
    with pytest.raises(DeviceError, match="choose bf16 or fp32"):
        Precision("fp16", CPU)


class Reads(TorchDispatchMode):
    """Counts the values that Python reads from tensors, except from an optimizer's counters, which live with it."""

    def __init__(self, ours: Engine) -> None:
        super().__init__()
        self.optimizer, self.count = ours.optimizer, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            self.count += not any(args[0] is counter for counter in tensors(self.optimizer))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("layer", [nn.RNN, nn.GRU, nn.LSTM])
def test_recurrent_layers_are_in_float32_where_autocast_would_take_float16(layer: type[nn.RNNBase]) -> None:
    made, inputs = layer(3, 4), torch.rand(2, 5, 3)
    expected, _ = made(inputs)
    for device, dtype in ((CPU, torch.bfloat16), (torch.device("cuda"), torch.float32)):
        precision = Precision("bf16", CPU)
        precision.device_type = device.type
        precision.keep_recurrent(made)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found, _ = made(inputs.bfloat16())
            twin, _ = copy.deepcopy(made)(inputs.bfloat16())
        assert found.dtype == twin.dtype == dtype
        torch.testing.assert_close(found.float(), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("option", sorted({*optimizers()} - SEARCHING))
@pytest.mark.parametrize("precision", ["fp32", "scaled"])
def test_only_the_first_step_and_a_row_wait(option: str, precision: str) -> None:
    ours = engine(
        option, ema=0.9, clip_norm=1.0, clip_value=0.1, precision=scaled(64.0) if precision == "scaled" else "fp32"
    )
    serving = list(batches().epoch(0))
    with Reads(ours) as reads:
        ours.step(serving[0], 0)
    assert reads.count == 1
    with Reads(ours) as reads:
        for step, batch in enumerate(serving[1:], start=1):
            ours.step(batch, step)
    assert reads.count == 0


def test_loaded_state_stands_in_each_parameters_own_memory_format_under_its_own_name() -> None:
    left, right = nn.Conv2d(2, 4, 3), nn.Conv2d(2, 4, 3).to(memory_format=torch.channels_last)
    saved = optimizer(left, "adam")
    left(torch.rand(1, 2, 8, 8)).square().sum().backward()
    saved.step()
    state = saved.state_dict()
    state["param_groups"][0]["lr"] = 99.0

    loaded = optimizer(right, "adam")
    load_state(loaded, state)
    average = loaded.state[right.weight]["exp_avg"]
    assert average.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(average, saved.state[left.weight]["exp_avg"])
    assert average is not saved.state[left.weight]["exp_avg"]
    assert loaded.param_groups[0]["lr"] == 0.001


def test_totals_are_means_over_examples_kept_until_cleared() -> None:
    totals, whole = Totals(["loss", "accuracy"], CPU), Totals(["loss", "accuracy"], CPU)
    totals.add([torch.tensor(6.0), torch.tensor(1)], 4)
    totals.add([torch.tensor(4.0), torch.tensor(2)], 1)
    totals.add([torch.tensor(float("nan")), torch.tensor(2)], 5, torch.tensor(False))
    row = totals.read()
    assert row.pop("images_per_second") > 0
    assert row == {"loss": 2.0, "accuracy": 0.6, "nonfinite_steps": 1}
    whole.join(totals)
    whole.join(totals)
    assert whole.read()["loss"] == 2.0
    assert whole.read()["nonfinite_steps"] == 2
    state = json.loads(json.dumps(totals.state_dict()))
    totals.clear()
    assert totals.read()["loss"] is None
    totals.load_state_dict(state)
    assert totals.read()["loss"] == 2.0


def test_sums_of_many_small_numbers_stay_exact() -> None:
    totals = Totals(["loss"], CPU)
    totals.sums[:] = torch.tensor([2.0**40, 2.0**40, 0.0])
    totals.add([torch.tensor(1.0)], 1)
    assert totals.sums.tolist() == [2.0**40 + 1, 2.0**40 + 1, 0.0]


def test_a_device_that_is_not_there_is_refused_by_what_is() -> None:
    assert select("cpu") == CPU
    assert select("auto").type in ("cuda", "mps", "cpu")
    with pytest.raises(DeviceError, match=r"device=tpu: there is no tpu device here; there is: .*cpu") as caught:
        select("tpu")
    assert caught.value.exit_code == 78


def answered_tf32() -> bool:
    """What torch answers to those who ask by the older names, as Lightning and its own cudnn.flags do."""
    with torch.backends.cudnn.flags(enabled=True):
        pass
    answers = {torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32}
    (answer,) = {*answers, torch.get_float32_matmul_precision() != "highest"}
    return answer


def test_the_device_is_configured_and_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    before = torch.get_num_threads(), torch.backends.cudnn.benchmark
    try:
        configure(CPU, threads=1, tf32=False, deterministic=True)
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cudnn.benchmark
        assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        assert "tf32" not in (torch.backends.cudnn.conv.fp32_precision, torch.backends.cudnn.rnn.fp32_precision)
        assert not answered_tf32()
        assert describe(CPU).endswith(", 1 thread")
    finally:
        configure(CPU, threads=before[0], tf32=True, deterministic=False)
        torch.backends.cudnn.benchmark = before[1]
    assert answered_tf32()
    assert not torch.are_deterministic_algorithms_enabled()
    assert peak_memory(CPU) > 10_000_000


def test_wide_convolutions_go_channels_last_and_narrow_ones_do_not() -> None:
    narrow, wide = (create(in_channels=1, image_size=32, num_classes=10) for create in (lenet, resnet18))
    assert best_memory_format(narrow, CPU, precision="bf16") == torch.contiguous_format
    assert best_memory_format(wide, CPU, precision="bf16") == torch.channels_last
    assert best_memory_format(wide, torch.device("cuda"), precision="fp32") == torch.channels_last


def test_float32_gradients_on_a_cpu_are_as_exact_as_torchs_default_format_gives_them() -> None:
    torch.manual_seed(0)
    model = resnet18(in_channels=1, image_size=32, num_classes=10)
    best = copy.deepcopy(model).to(memory_format=best_memory_format(model, CPU, precision="fp32"))
    images, labels = torch.randn(32, 1, 96, 96), torch.randint(10, (32,))
    exact = model.double()
    cross_entropy(num_classes=10)(exact(images.double()), labels).backward()
    cross_entropy(num_classes=10)(best(images), labels).backward()
    for (name, parameter), found in zip(exact.named_parameters(), best.parameters(), strict=True):
        if parameter.ndim > 1:  # a bias before batch norm has a gradient of rounding errors alone
            error = (found.grad.double() - parameter.grad).norm() / parameter.grad.norm()
            assert error < 3e-3, name
