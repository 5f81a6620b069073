"""The recorded step, with a recorder that can do without CUDA: it keeps the work and does it again when asked."""

import copy
import gc
from collections.abc import Callable
from contextlib import nullcontext
from itertools import count, pairwise
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from engines import batches, engine, equal, network, optimizer, poisoned

from dltrain.engine import Engine, GraphedEngine, Precision, graph, why_eager
from dltrain.train import evaluate, fit

FUSED = ["sgd", "momentum", "adam", "adamw"]


class Tape:
    """Counts what is recorded and replayed; with `refuses`, nothing can be recorded."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.warm_ups = self.recorded = self.replayed = 0
        self.refuses = refuses

    def warm_up(self, work: Callable[[], None]) -> None:
        self.warm_ups += 1
        work()

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        if self.refuses:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        self.recorded += 1

        def replay() -> None:
            self.replayed += 1
            work()

        return replay


def graphed(option: str = "sgd", *, tape: Tape | None = None, **changes) -> GraphedEngine:
    return engine(option, kind=GraphedEngine, recorder=tape or Tape(), **changes)


def train(ours: Engine, *, epochs: int = 5, evaluations=None) -> list[dict]:
    events = fit(ours, batches(), epochs=epochs, log_every=1, evaluations=evaluations)
    rows = [event.row for event in events if event.row]
    return [{key: value for key, value in row.items() if key != "images_per_second"} for row in rows]


@pytest.mark.parametrize("option", FUSED)
@pytest.mark.parametrize("settings", [{}, {"ema": 0.9, "clip_norm": 1.0, "clip_value": 0.1}, {"microbatch": 4}])
def test_a_replayed_step_is_the_step(option, settings):
    # Rates that float32 holds exactly, as a rate on the device is one.
    rates = {"lr": 2.0**-7, "schedule": lambda step: 0.5 ** (step // 5)}
    plain, recorded = engine(option, **settings, **rates), graphed(option, **settings, **rates)
    held_out = {"val": batches(augmented=False)}
    expected, found = train(plain, evaluations=held_out), train(recorded, evaluations=held_out)
    assert found == expected
    assert equal(recorded.evaluated.state_dict(), plain.evaluated.state_dict())
    assert recorded.execution == "CUDA graph"


def test_a_shape_is_recorded_after_its_third_step_and_the_last_batch_runs_eagerly():
    tape = Tape()
    train(graphed(tape=tape), epochs=3)  # four batches of 10 and one of 5 an epoch
    assert (tape.warm_ups, tape.recorded, tape.replayed) == (3 + 3, 1, 9)
    tape = Tape()
    train(graphed(tape=tape), epochs=5)
    assert (tape.warm_ups, tape.recorded, tape.replayed) == (3 + 5, 1, 17), "it never comes twice in a row"


def test_every_step_has_its_own_rate():
    ours = graphed(schedule=lambda step: 0.5**step, lr=1.0)
    before = copy.deepcopy(dict(ours.model.named_parameters()))
    moved = []
    for step in range(6):
        ours.step(next(batches(augmented=False).epoch(0)), step)
        after = copy.deepcopy(dict(ours.model.named_parameters()))
        moved.append(sum((after[name] - before[name]).norm() for name in after).item())
        before = after
    assert all(later < earlier for earlier, later in pairwise(moved))
    assert ours.optimizer.param_groups[0]["lr"].item() == 0.5**5


def test_a_step_that_is_not_finite_is_taken_back_in_a_recording_too():
    ours = graphed("momentum")
    for step in range(5):
        ours.step(next(batches(augmented=False).epoch(0)), step)
    before = copy.deepcopy((ours.model.state_dict(), ours.optimizer.state_dict()["state"]))
    ours.step(poisoned(), 5)
    assert equal((ours.model.state_dict(), ours.optimizer.state_dict()["state"])[0], before[0])
    assert equal(ours.optimizer.state_dict()["state"], before[1])
    assert ours.report(epoch=False)["nonfinite_steps"] == 1


def test_a_replayed_step_of_muon_is_the_step():
    found, expected = ([row["loss"] for row in train(ours)] for ours in (graphed("muon"), engine("muon")))
    assert found == pytest.approx(expected, rel=1e-4)


def test_where_recording_fails_the_run_goes_on_eagerly_and_says_why():
    tape = Tape(refuses=True)
    recorded = graphed("adam", tape=tape)
    assert [row["loss"] for row in train(recorded)] == pytest.approx([row["loss"] for row in train(engine("adam"))])
    assert recorded.execution == (
        "eager, because the step could not be recorded: operation not permitted when stream is capturing"
    )
    assert tape.warm_ups == 25


@pytest.mark.parametrize("ended", [True, False])
def test_what_a_recording_that_failed_leaves_is_put_right(ended, monkeypatch):
    """By the names that CUDA has; where the allocator has `ended` to record already, torch refuses to end it again."""
    calls, failure = Mock(), RuntimeError("operation not permitted when stream is capturing")
    calls.current_stream.return_value = before = SimpleNamespace(device=torch.device("cuda", 1))
    calls.graph.return_value = nullcontext()
    calls.end.side_effect = RuntimeError("not currently recording") if ended else None
    for name in ("Stream", "graph_pool_handle", "CUDAGraph", "current_stream", "graph", "set_stream"):
        monkeypatch.setattr(torch.cuda, name, getattr(calls, name))
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", calls.end)
    monkeypatch.setattr(torch._C, "_cuda_releasePool", calls.release)
    monkeypatch.setattr(torch, "Generator", calls.Generator)
    monkeypatch.setattr(graph, "default_generator", calls.default_generator)
    recorder, collecting = graph.CudaRecorder(), list[bool]()

    def work() -> None:
        collecting.append(gc.isenabled())
        raise failure

    with pytest.raises(RuntimeError) as caught:
        recorder.record(work)
    assert caught.value is failure
    assert (collecting, gc.isenabled()) == ([False], True)
    calls.set_stream.assert_called_once_with(before)
    calls.default_generator(before.device).graphsafe_set_state.assert_called_once()
    calls.end.assert_called_once_with(1, recorder.pool)
    assert calls.release.called == (not ended)


def test_recordings_after_the_last_one_has_gone_have_another_pool(monkeypatch):
    calls = Mock()
    calls.CUDAGraph.side_effect, calls.graph.side_effect = lambda: Mock(), lambda *_, **__: nullcontext()
    calls.graph_pool_handle.side_effect = count().__next__
    for name in ("Stream", "graph_pool_handle", "CUDAGraph", "current_stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, getattr(calls, name))
    recorder = graph.CudaRecorder()

    def pool_of(work: Callable[[], None]) -> tuple[int, Callable[[], None]]:
        replay = recorder.record(work)
        return calls.graph.call_args.kwargs["pool"], replay

    first, one = pool_of(lambda: None)
    second, two = pool_of(lambda: None)
    assert first == second, "recordings share their memory"
    del one, two
    calls.reset_mock()
    gc.collect()
    assert pool_of(lambda: None)[0] != first


def test_no_kernels_are_tried_for_shapes_that_come_beside_recordings(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    ours, seen = graphed(), list[tuple[int, bool]]()
    ours.model.register_forward_pre_hook(lambda _, given: seen.append((len(given[0]), torch.backends.cudnn.benchmark)))
    ten, *_, five = batches(augmented=False).epoch(0)
    for step in range(5):
        ours.step(ten, step)
    ours.step(five, 5)
    with ours.evaluating() as totals:
        ours.score(five, totals)
    assert seen[:3] == [(10, True)] * 3
    assert seen[-2:] == [(5, False)] * 2
    assert torch.backends.cudnn.benchmark


def test_where_one_shape_cannot_be_recorded_none_is_replayed():
    tape = Tape()
    ours = graphed(tape=tape)
    ten, *_, five = batches().epoch(0)
    for step in range(4):
        ours.step(ten, step)
    assert len(ours.recordings) == 1
    tape.refuses = True
    for step in range(4, 8):
        ours.step(five, step)
    replayed = tape.replayed
    ours.step(ten, 8)
    assert (ours.recordings, tape.replayed) == ({}, replayed)


@pytest.mark.parametrize("evaluates", [True, False])
def test_where_memory_runs_out_beside_recordings_the_run_goes_on_without_them(evaluates, monkeypatch):
    ours, plain = graphed(), engine()
    ten, *_, five = batches(augmented=False).epoch(0)
    for step in range(5):
        ours.step(ten, step)
        plain.step(ten, step)
    assert ours.recordings
    forward = type(ours.model).forward

    def tight(model, images):
        if ours.recordings:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(model, images)

    with monkeypatch.context() as patch:
        patch.setattr(type(ours.model), "forward", tight)
        if evaluates:
            assert evaluate(ours, batches()) == evaluate(plain, batches())
        else:
            ours.step(five, 5)
            plain.step(five, 5)
    assert equal(ours.model.state_dict(), plain.model.state_dict())
    assert ours.execution == "eager, because memory ran out beside what recorded steps hold"


def test_memory_that_is_lacking_without_recordings_is_an_error():
    ours = graphed()
    ours.model.forward = Mock(side_effect=torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(torch.OutOfMemoryError):
        evaluate(ours, batches())


def test_a_loaded_state_is_recorded_anew():
    tape = Tape()
    whole, fresh = graphed("adam", tape=tape), graphed("adam", tape=tape, model=network())
    serving = next(batches(augmented=False).epoch(0))
    for step in range(6):
        whole.step(serving, step)
    fresh.load_state_dict(copy.deepcopy(whole.state_dict()))
    whole.load_state_dict(copy.deepcopy(whole.state_dict()))
    for step in range(6, 12):
        whole.step(serving, step)
        fresh.step(serving, step)
    assert tape.recorded == 3
    assert equal(whole.model.state_dict(), fresh.model.state_dict())
    assert evaluate(whole, batches()) == evaluate(fresh, batches())


def test_float16_moves_its_scale_in_a_recording():
    # A CPU has no float16 here; the scale's arithmetic is the same in any format.
    precision = Precision("fp32", torch.device("cpu"), interval=2)
    precision.scaled = True
    precision.scale.fill_(4.0)
    place = precision.scale.data_ptr()
    ours = graphed("sgd", precision=precision)
    serving = next(batches(augmented=False).epoch(0))
    scales = []
    for step in range(8):
        ours.step(poisoned() if step == 5 else serving, step)
        scales.append(precision.scale.item())
    assert scales == [4, 8, 8, 16, 16, 8, 8, 16]
    assert precision.scale.data_ptr() == place


@pytest.mark.parametrize("option", [*FUSED, "muon"])
def test_a_fused_step_can_be_recorded(option):
    assert why_eager(optimizer(network(), option)) is None


def test_what_keeps_state_on_the_host_cannot_be_recorded():
    adagrad = SimpleNamespace(param_groups=[{"lr": 0.1, "fused": None}], step=lambda closure=None: None)
    assert why_eager(adagrad) == "SimpleNamespace has neither a fused nor a capturable step"


def test_a_step_that_evaluates_the_loss_cannot_be_recorded():
    assert why_eager(optimizer(network(), "lbfgs")) == "LBFGS evaluates the loss within its step and decides by it"
