"""Several nodes make one run, and ranks that torchrun starts again go on with theirs. All on this machine."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import faults
import nodes
import pytest
import ranks
import torch
from helpers import LITTLE, rows, summary
from test_ranks import COMMAND, NUMBERS, codes, port, said, several
from torch import nn

from dltrain import load
from dltrain.build.ranks import check_norms
from dltrain.cli import main
from dltrain.config import stored
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


def test_a_run_with_norms_over_ranks_is_read_on_a_cpu_and_trained_on_cuda_alone(capsys) -> None:
    assert main([*LITTLE, "model=lenet", "trainer.epochs=1", "name=run"]) == 0
    path = RUNS / "run/config.yaml"
    path.write_text(path.read_text().replace("\n  norm: batch\n", "\n  norm: sync_batch\n"))
    assert main(["eval", "run"]) == 0
    config = stored.read(path).config
    model = load(RUNS / "run").model
    assert any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())
    capsys.readouterr()
    assert main(["resume", "run", "trainer.epochs=2"]) == 78
    assert "trains on CUDA alone, not on cpu" in capsys.readouterr().err

    cuda = torch.device("cuda")
    check_norms(model, config, cuda, Ranks(0, 2), trains=True)
    config = stored.read(path, ["trainer.accumulate=2"]).config
    check_norms(model, config, cuda, Ranks(), trains=True)
    with pytest.raises(ConfigError, match="different numbers of parts"):
        check_norms(model, config, cuda, Ranks(0, 2), trains=True)


PAGE = (Path(__file__).parents[1] / "docs/scaling.md").read_text()
OURS = "".join(part for part in re.split("^(?=## )", PAGE, flags=re.MULTILINE) if re.match("## (Several|Batch)", part))


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", OURS, re.MULTILINE | re.DOTALL)


def composes(words: list[str]) -> bool:
    return main([*words, "--cfg", "job"]) == 0


def test_the_commands_of_the_page_are_read_by_torchrun_and_by_us() -> None:
    """What they do is seen above, in smaller, and in `test_ranks.py`."""
    from torch.distributed.run import parse_args

    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("torchrun")]
    assert len(lines) == 3
    for line in lines:
        read = parse_args(shlex.split(line)[1:])
        assert (read.module, read.training_script) == (True, "dltrain")
        assert composes(read.training_script_args)


@pytest.mark.parametrize(("place", "program"), [(0, "torchrun"), (1, "dltrain")])
def test_the_scripts_for_slurm_start_what_they_should(place: int, program: str, tmp_path: Path) -> None:
    """With a made-up `srun` that starts the second of two tasks."""
    script = [block for block in blocks("bash") if "#SBATCH" in block][place]
    told = {
        "scontrol": "echo first; echo second",
        "srun": 'SLURM_PROCID=5 SLURM_LOCALID=1 exec "$@"',
        program: 'env > variables; printf "%s\\n" "$@" > words',
    }
    for name, line in told.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    job = {"SLURM_JOB_ID": "123456", "SLURM_JOB_NODELIST": "nodes", "SLURM_NNODES": "2"}
    tasks = {"SLURM_NTASKS": "8", "SLURM_NTASKS_PER_NODE": "4", "PATH": f"{tmp_path}:/usr/bin:/bin"}
    subprocess.run(["bash", "-euc", script], env={**job, **tasks}, check=True)
    words = Path("words").read_text().splitlines()
    if program == "torchrun":
        from torch.distributed.run import parse_args

        read = parse_args(words)
        assert (read.nnodes, read.rdzv_endpoint, read.rdzv_id) == ("2", "first:29500", "123456")
        words = read.training_script_args
    else:
        variables = dict(line.split("=", 1) for line in Path("variables").read_text().splitlines() if "=" in line)
        ours = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
        assert [variables[name] for name in ours] == ["5", "8", "1", "4", "first", "23456"]
    assert "name=job-123456" in words
    assert composes(words)


@pytest.mark.long
def test_the_program_for_submitit_trains_on_two_ranks() -> None:
    pytest.importorskip("submitit")
    (program,) = blocks("python")
    Path("submit.py").write_text(program)
    words = ["submit.py", "local", "2", *WORDS, "name=run"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.strip() == "[0, 0]"
    assert summary(RUNS / "run")["ranks"] == 2


def test_what_reads_a_run_is_one_process(monkeypatch, capsys) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["eval", "run"]) == 78
    assert "dltrain eval is one process: start it without torchrun" in capsys.readouterr().err
