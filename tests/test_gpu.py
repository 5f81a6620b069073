"""What only a GPU can show: the same losses as on a CPU, nothing that waits, fused steps, the same bits twice."""

import copy
import json
import time
import warnings
from typing import Any

import pytest
import torch
import torch.distributed as dist
from engines import batches, engine, equal, first_batch, network, poisoned
from helpers import LITTLE, SEARCHING, networks, optimizers, run, summary
from torch.nn.functional import cross_entropy

from dltrain import optim
from dltrain.build import Run, build
from dltrain.cli import main
from dltrain.config.compose import compose
from dltrain.data.sources import HostExamples
from dltrain.engine import Engine, GraphedEngine, Precision, Ranks, why_eager
from dltrain.engine.optimizer import tensors
from dltrain.engine.probe import Probe, operation_seconds
from dltrain.run.pace import Pace
from dltrain.train import evaluate, fit
from dltrain.verbs import _bench_ranks

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]  # torch's warnings are told, and no failures

CUDA = torch.device("cuda")
STEPS = 9  # of which the first three, before a shape is recorded, and the fourth are eager where graphs are on
TOLERANCE = {"fp32": 0.01, "bf16": 0.15, "fp16": 0.05}  # relative, of a batch's loss
Batch = tuple[torch.Tensor, torch.Tensor]


def built(*overrides: str, device: str = "cuda", tunes: bool = False) -> Run:
    """A small run; unless it `tunes`, cuDNN tries no kernels, which would take longer than these steps."""
    sizes = ("data.num_train=200", "data.batch_size=16", f"trainer.limit_train_batches={STEPS}", "trainer.log_every=1")
    run = build(
        compose([*(set(LITTLE) - {"device=cpu"}), *sizes, "trainer.epochs=1", f"device={device}", *overrides]).config
    )
    torch.backends.cudnn.benchmark = tunes
    return run


def losses(run: Run) -> list[float]:
    events = fit(run.engine, run.batches["train"], epochs=1, log_every=1)
    return [event.row["loss"] for event in events if event.row and event.step < STEPS]


def on_gpu(batch: Batch) -> Batch:
    images, labels = batch
    return images.to(CUDA), labels.to(CUDA)


def gpu_engine(option: str, *, precision: str = "fp32", **changes: Any) -> Engine:
    return engine(option, network(dropout=0.0).to(CUDA), precision=precision, **changes)


class Waiting:
    """A block in which to wait for the device is an error."""

    def __enter__(self) -> None:
        torch.cuda.synchronize()
        set_waiting("error")

    def __exit__(self, *error: object) -> None:
        set_waiting("default")


def set_waiting(mode: str) -> None:
    with warnings.catch_warnings():  # torch warns that it is a prototype
        warnings.simplefilter("ignore")
        torch.cuda.set_sync_debug_mode(mode)


@pytest.mark.parametrize("model", networks())
def test_losses_are_those_of_a_cpu(model: str) -> None:
    chosen = (f"model={model}", "optim=sgd", "optim.lr=0.0001")
    expected = losses(built(*chosen, "device.precision=fp32", device="cpu"))
    for precision, tolerance in TOLERANCE.items():
        found = losses(built(*chosen, f"device.precision={precision}", "device.tf32=false"))
        assert found == pytest.approx(expected, rel=tolerance), precision


@pytest.mark.parametrize("option", sorted({*optimizers()} - SEARCHING))
@pytest.mark.parametrize("precision", TOLERANCE)
def test_nothing_waits_between_two_rows(option: str, precision: str) -> None:
    ours = gpu_engine(option, precision=precision, ema=0.9, clip_norm=1.0, clip_value=0.1)
    serving = [on_gpu(batch) for batch in batches().epoch(0)]
    while not ours.updated:  # float16 may overflow at first
        ours.step(serving[0], 0)
    if any(value.device.type == "cpu" for value in tensors(ours.optimizer)):
        pytest.skip("this torch keeps the optimizer's counters on the host")
    with Waiting():
        for step, batch in enumerate(serving[1:], start=1):
            ours.step(batch, step)
    assert ours.report(epoch=False)["loss"] is not None


def test_nothing_waits_between_two_rows_of_a_real_run() -> None:
    run = built("model=resnet18", "optim=adam", "augment=crop_flip", "trainer.log_every=99")
    events = fit(run.engine, run.batches["train"], epochs=1, log_every=99)
    next(events)
    with Waiting():
        for _ in range(STEPS - 2):
            next(events)
    assert [event.step for event in events] == [STEPS]


def test_an_evaluation_waits_once_at_its_end() -> None:
    run = built("model=lenet")
    assert evaluate(run.engine, run.batches["val"])["loss"] is not None
    with Waiting(), run.engine.evaluating() as totals:
        for batch in run.batches["val"].epoch(0):
            run.engine.score(batch, totals)
    assert totals.read()["loss"] is not None


@pytest.mark.parametrize("option", optimizers())
@pytest.mark.parametrize("bad", [0, 2])
def test_a_step_that_is_not_finite_might_as_well_not_have_been(option: str, bad: int) -> None:
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        found, expected = gpu_engine(option), gpu_engine(option)
        for step in range(4):
            found.step(on_gpu(poisoned() if step == bad else first_batch()), step)
            if step != bad:
                expected.step(on_gpu(first_batch()), step)
    for left, right in ((found.model, expected.model), (found.optimizer, expected.optimizer)):
        assert equal(left.state_dict(), right.state_dict())


@pytest.mark.parametrize("option", optimizers())
@pytest.mark.parametrize("precision", TOLERANCE)
def test_a_replayed_step_is_the_step(option: str, precision: str) -> None:
    settings: dict[str, Any] = {
        "precision": precision,
        "ema": 0.9,
        "clip_norm": 1.0,
        # Rates that float32 holds exactly, as a rate on the device is one.
        "lr": {"adadelta": 1.0}.get(option, 2.0**-7),
        "schedule": lambda step: 0.5 ** (step // 5),
    }
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        plain, recorded = gpu_engine(option, **settings), gpu_engine(option, kind=GraphedEngine, **settings)
        if why_eager(recorded.optimizer):
            pytest.skip("this optimizer's step cannot be recorded")
        held_out = {"val": [on_gpu(batch) for batch in batches(augmented=False).epoch(0)]}
        for epoch in range(5):  # four batches of 10 and one of 5, which is never recorded
            for number, batch in enumerate(batches().epoch(epoch), start=5 * epoch):
                for ours in (plain, recorded):
                    ours.step(on_gpu(batch), number)
            rows = [scored(ours, held_out["val"]) for ours in (plain, recorded)]
            assert rows[0] == pytest.approx(rows[1], rel=3e-2)
    assert recorded.execution == "CUDA graph"
    assert len(recorded.recordings) == 1
    before_norm = ("0.bias", "1.running_mean")  # whose gradient is of rounding errors alone
    for name, value in plain.model.state_dict().items():
        if name in before_norm:
            continue
        torch.testing.assert_close(recorded.model.state_dict()[name], value, rtol=1e-2, atol=1e-3)


def scored(ours: Engine, serving: list[Batch]) -> list[float]:
    with ours.evaluating() as totals:
        for batch in serving:
            ours.score(batch, totals)
    row = totals.read()
    return [row["loss"], row["accuracy"]]


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("model", networks())
def test_a_run_replays_its_steps_with_the_losses_of_eager_ones(model: str, precision: str) -> None:
    chosen = (f"model={model}", "optim=sgd", "optim.lr=0.001", f"device.precision={precision}", "device.tf32=false")
    tunes = model == "lenet"
    eager, replayed = built(*chosen, "device.graphs=false", tunes=tunes), built(*chosen, tunes=tunes)
    weights = [value for value in replayed.engine.parameters if value.dim() > 1]
    found: list[float] = []
    for event in fit(replayed.engine, replayed.batches["train"], epochs=1, log_every=1):
        if event.row and event.step < STEPS:
            found.append(event.row["loss"])
        if event.step == STEPS - 2:
            before = [value.clone() for value in weights]
    assert found == pytest.approx(losses(eager), rel=1e-2 if precision == "fp32" else 0.1)
    moved = [not torch.equal(*pair) for pair in zip(before, weights, strict=True)]
    assert all(moved), "replayed steps move the weights"
    assert (eager.engine.execution, replayed.engine.execution) == ("eager", "CUDA graph")


@pytest.mark.parametrize("model", ["rnn", "gru", "lstm"])
def test_recurrent_layers_under_bf16_are_not_in_float16(model: str) -> None:
    run, seen = built(f"model={model}", "device.precision=bf16"), []
    for layer in run.engine.model.modules():
        if isinstance(layer, torch.nn.RNNBase):
            layer.register_forward_hook(lambda _, __, made: seen.append(made[0].dtype))
    run.engine.step(next(iter(run.batches["train"].epoch(0))), 0)
    assert set(seen) == {torch.float32}


@pytest.mark.parametrize("tf32", ["true", "false"])
def test_batches_are_those_of_a_cpu(tf32: str) -> None:
    ours, theirs = (built("model=lenet", f"device.tf32={tf32}", device=device) for device in ("cuda", "cpu"))
    for (images, labels), (expected, answers) in zip(
        ours.batches["val"].epoch(0), theirs.batches["val"].epoch(0), strict=True
    ):
        torch.testing.assert_close(images.cpu().float(), expected.float(), rtol=0, atol=1e-4)
        assert torch.equal(labels.cpu(), answers)


def test_a_replayed_step_draws_its_own_dropout() -> None:
    found, expected = (
        engine("sgd", network(dropout=0.5).to(CUDA), lr=1e-30, kind=kind) for kind in (GraphedEngine, Engine)
    )
    drawn = []
    for step in range(8):
        for ours in (found, expected):
            ours.step(on_gpu(first_batch()), step)
        drawn.append(found.last_loss.item())
        assert drawn[-1] == pytest.approx(expected.last_loss.item(), rel=1e-5)
    assert len(set(drawn)) == len(drawn)


def test_a_replayed_step_that_is_not_finite_might_as_well_not_have_been() -> None:
    ours = gpu_engine("adam", kind=GraphedEngine)
    for step in range(6):
        ours.step(on_gpu(first_batch()), step)
    before = copy.deepcopy((ours.model.state_dict(), ours.optimizer.state_dict()["state"]))
    ours.step(on_gpu(poisoned()), 6)
    assert equal(ours.model.state_dict(), before[0])
    assert equal(ours.optimizer.state_dict()["state"], before[1])
    assert ours.report(epoch=False)["nonfinite_steps"] == 1


def test_a_loss_that_reads_the_host_runs_eagerly_and_says_why() -> None:
    def reading(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        loss = torch.nn.functional.cross_entropy(logits, targets)
        return loss if loss.item() > 0 else -loss

    ours, plain = (
        engine("sgd", network(dropout=0.5).to(CUDA), **how) for how in ({"kind": GraphedEngine, "loss": reading}, {})
    )
    for step in range(6):
        ours.step(on_gpu(first_batch()), step)
        plain.step(on_gpu(first_batch()), step)
    assert ours.execution.startswith("eager, because")
    assert ours.last_loss.item() == pytest.approx(plain.last_loss.item(), rel=1e-4)
    another = gpu_engine("adam", kind=GraphedEngine)
    for step in range(6):
        another.step(on_gpu(first_batch()), step)
    assert another.execution == "CUDA graph", "one that fails is not the end of others"


def test_float16_scales_until_gradients_fit_and_then_trains() -> None:
    ours = gpu_engine("momentum", precision="fp16")
    ours.precision.scale.fill_(2.0**100)
    before = copy.deepcopy(ours.model.state_dict())
    ours.step(on_gpu(first_batch()), 0)
    assert equal(ours.model.state_dict(), before)
    assert "nonfinite_steps" not in ours.report(epoch=False)
    for step in range(1, 120):
        ours.step(on_gpu(first_batch()), step)
    assert 1 < ours.precision.scale.item() < 2.0**100
    first, last = ours.report(epoch=False)["loss"], ours.last_loss.item()
    assert last < first


@pytest.mark.parametrize("model", ["lenet", "resnet18", "densenet", "mlp"])
def test_deterministic_runs_are_the_same_to_the_last_bit(model: str) -> None:
    chosen = (f"model={model}", "optim=adam", "device.deterministic=true", "augment=crop_flip")
    try:
        first, second = built(*chosen), built(*chosen)
        assert losses(first) == losses(second)
        assert equal(dict(first.model.state_dict()), dict(second.model.state_dict()))
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_deterministic_run_on_text_is_the_same_to_the_last_bit() -> None:
    chosen = ("data=markov_text", "model=lstm", "model.dropout=0.5", "loss=cross_entropy", "optim=adam")
    sizes = ("data.num_train=200", "data.val_size=20", f"trainer.limit_train_batches={STEPS}", "data.batch_size=8")
    how = ("device=cuda", "device.deterministic=true", "trainer.epochs=1")
    try:
        first, second = (build(compose([*chosen, *sizes, *how]).config) for _ in range(2))
        assert losses(first) == losses(second)
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_new_engine_goes_on_from_a_state_bit_for_bit() -> None:
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        serving = [on_gpu(batch) for batch in batches().epoch(0)]
        whole, fresh = (
            engine("adam", network().to(CUDA, memory_format=torch.channels_last), precision="fp16") for _ in range(2)
        )
        for step in range(3):
            whole.step(serving[step], step)
        fresh.load_state_dict(copy.deepcopy(whole.state_dict()))
        for step in (3, 4):
            whole.step(serving[step], step)
            fresh.step(serving[step], step)
    assert equal(fresh.model.state_dict(), whole.model.state_dict())
    assert equal(fresh.precision.state_dict(), whole.precision.state_dict())
    assert fresh.window.sums.tolist() == whole.window.sums.tolist()


def test_data_stay_on_the_gpu() -> None:
    run = built("model=lenet")
    for serving in run.batches.values():
        assert serving.source.inputs.device.type == serving.source.targets.device.type == "cuda"
        assert serving.source.inputs.dtype == torch.uint8
        assert all(part.device.type == "cuda" for part in next(serving.epoch(0)))


@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_images_train_as_resident_ones_do(workers: int) -> None:
    chosen = ("model=lenet", "optim=sgd", "optim.lr=0.0001", "augment=crop_flip")
    resident, streamed = built(*chosen), built(*chosen, "data.resident_limit=0", f"data.workers={workers}")
    for split, serving in streamed.batches.items():
        assert serving.workers == workers
        for found, expected in zip(serving.epoch(1), resident.batches[split].epoch(1), strict=True):
            assert equal(list(found), list(expected))
    assert losses(streamed) == pytest.approx(losses(resident), rel=1e-3)
    assert streamed.engine.execution == resident.engine.execution
    for serving in streamed.batches.values():
        serving.close()


def test_shards_change_hands_by_nccl() -> None:
    """In a world of one, which has nobody to give them to but itself."""
    torch.distributed.init_process_group("nccl", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        sharded, resident = batches(device=CUDA, ranks=Ranks(), sharded=True), batches(device=CUDA)
        for found, expected in zip(sharded.epoch(1), resident.epoch(1), strict=True):
            assert equal(list(found), list(expected))
    finally:
        torch.distributed.destroy_process_group()


def test_the_number_format_follows_the_device() -> None:
    run = built("model=mlp", "device.precision=auto")
    major, _ = torch.cuda.get_device_capability()
    assert run.engine.precision.name == ("bf16" if major >= 8 else "fp16" if major >= 7 else "fp32")
    assert Precision("fp16", CUDA).scale.device.type == "cuda"


def test_a_watched_step_is_what_it_would_have_been_and_waits_for_nothing() -> None:
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        watched, plain = gpu_engine("adam"), gpu_engine("adam")
        probe = Probe(watched)
        for step in range(3):
            for ours in (watched, plain):
                ours.step(on_gpu(first_batch()), step)
    assert equal(watched.state_dict()["model"], plain.state_dict()["model"])
    assert probe.operations > 50
    assert probe.waits == []


def test_what_waits_for_the_device_in_a_step_is_named() -> None:
    def reading(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        loss = cross_entropy(logits, targets)
        return loss if loss.item() < 1e9 else 2 * loss

    ours = gpu_engine("adam", loss=reading)
    probe = Probe(ours)
    for step in range(2):
        ours.step(on_gpu(first_batch()), step)
    assert [place.partition(":")[0] for place in probe.waits] == ["test_gpu.py"]


@pytest.mark.parametrize("graphs", [True, False])
def test_an_operation_costs_less_in_a_graph_than_outside(graphs: bool) -> None:
    seconds = operation_seconds(built("model=mlp", f"device.graphs={graphs}").engine, vars(optim)["SGD"])
    assert 1e-7 < seconds < (1e-5 if graphs else 1e-4)


@pytest.mark.parametrize("graphs", [True, False])
def test_the_rate_is_that_of_a_stopwatch_that_waits_for_the_device(graphs: bool) -> None:
    endless = ("trainer.overfit_batches=2", "trainer.limit_train_batches=300000", "data.batch_size=68")
    run = built("model=lenet", f"device.graphs={graphs}", *endless)
    pace, start = Pace(run.batches["train"], asynchronous=True), 0.0
    for event in pace.follow(fit(run.engine, pace, epochs=1, log_every=50)):
        if event.step == 50:
            torch.cuda.synchronize()
            start = time.perf_counter()
        if event.row and start and time.perf_counter() - start > 5:
            break
    seconds = time.perf_counter() - start
    assert seconds > 5
    assert pace.images_per_second() == pytest.approx(68 * (event.step - 50) / seconds, rel=0.15)


def test_a_bench_over_ranks_takes_the_gpus_that_there_are(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setattr(_bench_ranks, "SECONDS", {True: 0.05})
    sizes = ("model=mlp", "data=synthetic", "data.num_train=600", "data.num_test=64", "data.batch_size=16")
    words = ("bench", "scaling", "--quick", "--repeats", "2", "--output", str(tmp_path), *sizes, "device=cuda")
    assert main([*words, "data.val_size=64"]) == 0
    record = json.loads(next(tmp_path.glob("ranks-*.json")).read_text())
    assert record["counts"][-1] <= torch.cuda.device_count()
    alone = torch.cuda.device_count() == 1
    assert ("there is one cuda device here" in capsys.readouterr().out) == alone
    assert {result["ranks"] for result in record["results"]} == set(record["counts"])


@pytest.mark.parametrize(
    ("planted", "words"), [("a slow loader", "waiting for data, "), ("a tiny batch", "the batch is too small: ")]
)
def test_what_holds_a_run_up_is_named(planted: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    load = HostExamples.__getitem__

    def slow(self: HostExamples, place: Any) -> Any:
        time.sleep(0.05)
        return load(self, place)

    chosen = ["model.hidden_sizes=[4,4,4,4]", "data.batch_size=2", "trainer.limit_train_batches=200", "optim=sgd"]
    if planted == "a slow loader":
        monkeypatch.setattr(HostExamples, "__getitem__", slow)
        chosen = ["data.resident_limit=0", "data.workers=1", "trainer.limit_train_batches=25"]
    common = {*LITTLE, "device=cuda", "model=mlp", "trainer.epochs=1", "trainer.overfit_batches=2"} - {"device=cpu"}
    sentence = summary(run(*common, *chosen))["bottleneck"]
    assert sentence.startswith(words)
    assert "update of the weights" not in sentence, "which the host only queues"


def test_norms_over_ranks_take_the_steps_of_batch_norm_on_one() -> None:
    """Also where there is a group of one rank, as of NCCL, in which they look for others."""
    chosen = ("model=lenet", "optim=sgd", "device.graphs=false", "device.deterministic=true")
    try:
        expected = losses(built(*chosen, "model.norm=batch"))
        run = built(*chosen, "model.norm=sync_batch")
        dist.init_process_group("nccl", store=dist.HashStore(), rank=0, world_size=1)
        assert losses(run) == expected
    finally:
        torch.use_deterministic_algorithms(False)
        if dist.is_initialized():
            dist.destroy_process_group()
