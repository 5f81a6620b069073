"""Several nodes make one run, and ranks that torchrun starts again go on with theirs. All on this machine."""

import os
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import faults
import nodes
import pytest
import ranks
from helpers import LITTLE, rows, summary
from test_ranks import COMMAND, NUMBERS, codes, port, said, several

from dltrain.cli import main
from dltrain.config.compose import compose
from dltrain.config.errors import ConfigError
from dltrain.engine import Ranks
from dltrain.verbs import _nodes

RUNS = Path("outputs/runs")
WORDS = (*COMMAND, "trainer.epochs=3", "trainer.checkpoint_every=4 steps", "trainer.log_every=3", "model.norm=batch")


def same(folder: Path, other: Path) -> bool:
    """Whether two runs have the same numbers and the same weights, bit for bit."""
    found, expected = ([{key: row.get(key) for key in NUMBERS} for row in rows(path)] for path in (folder, other))
    return found == expected and summary(folder)["weights_sha256"] == summary(other)["weights_sha256"]


def test_two_nodes_make_one_run_and_a_rank_that_was_killed_goes_on() -> None:
    """Both end with the bits of two ranks of one node that nothing happened to."""
    assert codes(several(*WORDS, "name=whole")) == [0, 0]
    free = port()
    assert codes([nodes.start(*WORDS, "name=nodes", nodes=2, ranks=1, port=free) for _ in range(2)]) == [0, 0], said()
    assert {path.name for path in RUNS.iterdir()} == {"whole", "nodes"}
    assert same(RUNS / "nodes", RUNS / "whole")
    assert summary(RUNS / "nodes")["ranks"] == 2

    assert codes([nodes.start(*WORDS, ranks=2, restarts=1, dies_at=9)]) == [0], said()
    (folder,) = {*RUNS.iterdir()} - {RUNS / "whole", RUNS / "nodes"}
    assert same(folder, RUNS / "whole")
    (resumed,) = summary(folder)["resumed"]
    assert (resumed["step"], summary(folder)["bit_exact"]) == (8, True)


def be_node(number: int, free: str, variables: dict[str, str]) -> None:
    """Be the only rank of the first of two nodes, or of the second."""
    ranks.be(number, 2, free)
    os.environ.update({"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", **variables})


def two_nodes(*words: str, second: Path, **variables: str) -> list[int]:
    """A command on two nodes, of which the second works in a folder of its own."""
    free, here, started = port(), Path.cwd(), []
    for number, folder in enumerate((here, second)):
        os.chdir(folder)
        started.append(faults.start(*words, prepare=partial(be_node, number, free, variables)))
    os.chdir(here)
    return codes(started)


def test_nodes_that_share_no_disk_are_refused_in_a_line_on_each(tmp_path: Path) -> None:
    (second := tmp_path / "second").mkdir()
    assert two_nodes(*WORDS, "name=run", second=second) == [78, 78]
    for words in (said(), " ".join((second / "terminal").read_text().split())):
        assert "outputs_dir must be on a disk that all nodes share" in words
    assert not [*RUNS.iterdir()]
    assert not [*(second / RUNS).glob("*")]


def test_restarts_of_several_nodes_need_a_store_that_is_new_each_time() -> None:
    restarted = {"TORCHELASTIC_MAX_RESTARTS": "1", "TORCHELASTIC_RUN_ID": "a", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    with pytest.MonkeyPatch.context() as patch:
        for key, value in restarted.items():
            patch.setenv(key, value)
        with pytest.raises(ConfigError, match="set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"):
            _nodes.check_restarts()
        patch.setenv("TORCHELASTIC_USE_AGENT_STORE", "False")
        _nodes.check_restarts()


def test_data_that_differ_between_ranks_are_refused() -> None:
    class Two(Ranks):
        def gather(self, own: str) -> list[str]:
            return [own, "others"]

    run = SimpleNamespace(engine=SimpleNamespace(ranks=Two()), data_fingerprint="own", config=compose([*WORDS]).config)
    with pytest.raises(ConfigError, match="data=synthetic: those of rank 1 are not those of rank 0"):
        _nodes.check_data(run)


def test_what_torchrun_starts_again_finds_its_run(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """By the launch's id and the configuration and, where nothing has failed, only as long as it is unfinished."""
    words = (*LITTLE, "model=mlp", "trainer.epochs=1")
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert main([*words]) == 78
    assert "add --rdzv-id=ID, or name=NAME" in capsys.readouterr().err

    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job-1")
    assert main([*words]) == 0
    (first,) = RUNS.iterdir()
    assert main([*words]) == 0, "the id was used before"
    assert len([*RUNS.iterdir()]) == 2
    (first / "summary.json").unlink()
    for folder in {*RUNS.iterdir()} - {first}:
        shutil.rmtree(folder)
    assert main([*words]) == 0
    assert [*RUNS.iterdir()] == [first]
    assert len(summary(first)["resumed"]) == 1

    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    capsys.readouterr()
    assert main([*words]) == 0
    assert "is complete: nothing was trained" in capsys.readouterr().out
    assert main([*words, "seed=2"]) == 0, "another run of that id"
    assert len([*RUNS.iterdir()]) == 2


def test_divergence_is_not_tried_again(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    words = [*LITTLE, "model=mlp", "optim=sgd", "optim.lr=1e30", "name=run"]
    assert main(words) == 65
    before = (RUNS / "run/metrics.jsonl").read_bytes()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    capsys.readouterr()
    assert main(words) == 65
    assert "has diverged, and would again: nothing was trained" in capsys.readouterr().out
    assert (RUNS / "run/metrics.jsonl").read_bytes() == before


def test_ranks_share_the_processors_of_their_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(12), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert Ranks(4, 6).threads() == 4
