"""What ranks divide: the same steps whatever that is, half of it on each of two ranks, checkpoints for any number."""

import json
import re
from pathlib import Path
from typing import Any

import faults
import pytest
import ranks
import strategies
import torch
from engines import batches, network, node
from helpers import LITTLE, main, summary
from strategies import CASES, STEPS, STRATEGIES
from test_ranks import codes, port
from torch import Tensor, nn

from dltrain.build.optimizer import make_optimizer, optimizer_maker
from dltrain.build.ranks import check_work, share
from dltrain.build.supply import Supply
from dltrain.config.compose import compose
from dltrain.config.errors import ConfigError
from dltrain.config.schema import Trainer
from dltrain.engine import Ranks
from dltrain.engine.memory import parts
from dltrain.engine.sharded import ShardedModel, blocks
from dltrain.engine.strategies import STRATEGIES as BY_NAME
from dltrain.optim import parameter_groups
from dltrain.run import checkpoint

DIVIDING = STRATEGIES[1:]
RUN = Path("outputs/runs/run")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two ranks have done all that `strategies.py` does."""
    folder, free = tmp_path_factory.mktemp("strategies"), port()
    started = [faults.CONTEXT.Process(target=strategies.main, args=(rank, 2, free, folder)) for rank in range(2)]
    for process in started:
        process.start()
    assert codes(started) == [0, 0]
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "found.json").read_text())


@pytest.mark.parametrize("case", [*CASES])
def test_whatever_is_divided_the_steps_are_those_of_one_rank(found, case: str) -> None:
    one = ranks.steps(Ranks(), **CASES[case])
    for strategy in STRATEGIES:
        two = found[strategy][case]
        assert two["losses"] == pytest.approx(one["losses"], abs=1e-5)
        assert two["norm"] == pytest.approx(one["norm"], rel=1e-5)
        assert two["counted"] == pytest.approx(one["counted"], rel=1e-4)
    assert one["losses"][-1] < one["losses"][0]


@pytest.mark.parametrize("strategy", DIVIDING)
def test_what_is_not_finite_on_one_rank_changes_nothing_on_any(found, strategy: str) -> None:
    """Neither with a fused optimizer, which leaves its state itself, nor with another."""
    assert found[strategy]["kept"] == {"adam": [True, True], "nadam": [True, True]}


def test_what_is_wrong_with_rows_of_one_rank_is_known_to_all(found) -> None:
    assert [rank["flags"] for rank in found["fsdp2"]["parts"]] == [[False, False]] * 2


def test_each_rank_holds_about_half_of_what_is_divided(found) -> None:
    whole = found["ddp"]["parts"][0]
    assert whole["state"] > 2 * whole["held"]
    for strategy, divided in (("zero1", {"state"}), ("fsdp2", {"state", "held", "gradients"})):
        each = found[strategy]["parts"]
        for key in ("state", "held", "gradients"):
            parts = [rank[key] for rank in each]
            if key in divided:
                assert whole[key] <= sum(parts) < 1.02 * whole[key]
                assert max(parts) < 0.6 * whole[key]
            else:
                assert parts == [whole[key]] * 2


@pytest.mark.parametrize("strategy", DIVIDING)
def test_the_first_rank_alone_has_whole_weights(found, strategy: str) -> None:
    whole = found["ddp"]["parts"][0]["weights"]
    assert [rank["weights"] for rank in found[strategy]["parts"]] == [whole, 0 if strategy == "fsdp2" else whole]


@pytest.mark.parametrize("before", STRATEGIES)
def test_a_checkpoint_goes_on_under_any_strategy_and_on_one_rank(folder, found, before: str) -> None:
    without = found["going on"][before]["on"]
    for after in STRATEGIES:
        with_it = found["going on"][before][after]
        assert with_it == (without if after == before else pytest.approx(without, abs=1e-5))
    assert without[0] != pytest.approx(without[-1], abs=1e-3)

    alone = strategies.restored(strategies.made(Ranks()), folder / before)
    again = strategies.restored(strategies.made(Ranks()), folder / "ddp")
    assert strategies.trained(alone, STEPS) == pytest.approx(strategies.trained(again, STEPS), abs=1e-5)


def test_a_run_of_divided_weights_ends_whole_and_goes_on_undivided_on_one_rank(capsys) -> None:
    """With one of torchvision's models, as docs/scaling.md has it (Where a model does not fit) with a larger one."""
    words = [*LITTLE, "data.batch_size=8", "trainer.limit_train_batches=2", "trainer.ema=0.5"]
    words += ["model=torchvision", "model.arch=shufflenet_v2_x0_5", "device.precision=fp32", "device.threads=1"]
    assert faults.run(*words, "device.count=2", "trainer.strategy=fsdp2", "trainer.epochs=1", "name=run") == 0
    ended = summary(RUN)
    assert (ended["status"], ended["ranks"], ended["steps"]) == ("completed", 2, 2)
    assert ended["weights_sha256"] == checkpoint.weights_sha256(tensors_of(2)["model"])
    assert main(["eval", "run", "--split", "val"]) == 0
    evaluated = json.loads((RUN / "evaluation-val.json").read_text())
    assert evaluated["metrics"]["loss"] == pytest.approx(ended["val"]["loss"], abs=1e-5)

    assert main(["resume", "run", "device.count=1", "trainer.strategy=ddp", "trainer.epochs=2"]) == 0
    assert "ranks 2 then, 1 now, strategy fsdp2 then, ddp now" in " ".join(capsys.readouterr().out.split())
    assert (summary(RUN)["bit_exact"], summary(RUN)["steps"]) == (False, 4)


def tensors_of(step: int) -> dict[str, dict[str, Tensor]]:
    return checkpoint.load(RUN / "checkpoints" / checkpoint.folder_name(step))[0]


def test_blocks_are_members_of_containers_and_never_share_parameters() -> None:
    """Nor are they what torch's own layers use without running it."""
    tied = nn.Linear(8, 8)
    attention = nn.MultiheadAttention(64, 4)
    model = nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 1, bias=False)), attention, tied)
    model.also = nn.ModuleList([nn.Linear(8, 9)])
    model.also[0].weight = nn.Parameter(torch.zeros(9, 8))
    model.tied = nn.Linear(8, 8)
    model.tied.weight = tied.weight
    assert blocks(model) == [attention]


@pytest.mark.parametrize("examples", [2, 3, 10, 11, 21, 31])
@pytest.mark.parametrize("batch_size", [2, 3, 10])
def test_all_ranks_evaluate_as_many_batches_of_all_examples(examples: int, batch_size: int) -> None:
    """Or else one would gather weights, and no other come."""
    each = [
        [*batches(examples, batch_size=batch_size, augmented=False, ranks=Ranks(rank, 2), evaluated=True).epoch(0)]
        for rank in range(2)
    ]
    assert len(each[0]) == len(each[1])
    assert sum(len(labels) for own in each for _, labels in own) == examples


@pytest.mark.parametrize("sizes", [(2, 2), (2, 3), (5, 6), (7, 7), (7, 8)])
@pytest.mark.parametrize("microbatch", [None, 1, 2, 3])
def test_all_ranks_compute_their_parts_of_a_batch_in_as_many_steps(sizes, microbatch: int | None) -> None:
    counts = set()
    for size in sizes:
        inputs = torch.zeros(size)
        pieces = parts((inputs, inputs), microbatch, shares=sizes)
        assert all(len(piece) for piece, _ in pieces)
        counts.add(len(pieces))
    assert len(counts) == 1


def test_optimizers_that_need_whole_matrices_are_told_from_those_that_do_not() -> None:
    """By trying: the halves of a matrix, or two matrices, each by itself and together."""
    fitting = {}
    for option in ("muon", "adam", "adadelta", "nadam", "scratch_nesterov"):
        make = optimizer_maker(node(option), model := network(), "fp64")
        groups = make(parameter_groups(model)).param_groups
        fitting[option] = [BY_NAME[name](Ranks(0, 2)).suits(groups, make) for name in DIVIDING]
    assert fitting.pop("muon") == [True, False]
    assert all(each == [True, True] for each in fitting.values())
    make = lambda groups: torch.optim.Adafactor(groups, lr=0.1)  # noqa: E731
    assert not BY_NAME["fsdp2"](Ranks(0, 2)).suits([{"params": [*model.parameters()]}], make)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["optim=muon"], "trainer.strategy=fsdp2: a step of optim.name=Muon needs the whole; choose ddp or zero1"),
        (["data.batch_size=1"], "trainer.strategy=fsdp2: batches of one example leave a rank without work"),
        (["trainer.max_batch_size=1"], "trainer.strategy=fsdp2: batches of one example leave a rank without work"),
        (["data.val_size=1"], "trainer.strategy=fsdp2: 1 val examples are too few for 3 ranks"),
        (["data.batch_size=2", "trainer.limit_val_batches=1"], "fsdp2: 2 val examples are too few for 3 ranks"),
    ],
)
def test_what_weights_cannot_be_divided_for_is_refused(words: list[str], told: str, monkeypatch) -> None:
    """Before a model is divided or data are decoded."""
    chosen = compose([*LITTLE, "model=mlp", "trainer.strategy=fsdp2", *words]).config
    model, strategy, supply = network(), ShardedModel(Ranks(0, 3)), Supply(chosen, Trainer(**chosen.trainer))

    def check() -> None:
        check_work(strategy, supply.num_served, batch_size=supply.batch_size)
        share(chosen, make_optimizer(chosen.optim, model, "fp32"), strategy, model, "fp32")

    monkeypatch.setattr(Ranks, "once", lambda _, work: work())
    with pytest.raises(ConfigError, match=re.escape(told)):
        check()


def test_a_parameter_that_is_a_single_number_is_named() -> None:
    model = nn.Linear(2, 2)
    model.scale = nn.Parameter(torch.ones(()))
    with pytest.raises(ValueError, match="scale is a single number"):
        ShardedModel(Ranks(0, 2)).divide(model)


def test_one_rank_holds_all_and_says_so(capsys) -> None:
    assert main([*LITTLE, "model=mlp", "trainer=smoke", "trainer.strategy=fsdp2"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "note: trainer.strategy=fsdp2: there is one rank, which holds all" in said
