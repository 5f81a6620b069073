"""`dltrain resume`: what it takes, what it refuses, and what it says."""

import json
import re
from pathlib import Path

import pytest
import torch
from faults import RUN, outcome
from helpers import rows, summary

from dltrain.cli import main

ROOT = Path(__file__).parents[1]
FOLDER = Path("outputs/runs/run")
LITTLE_RUN = (*RUN, "model.hidden_sizes=[8]", "name=run")


def trained(*words: str) -> Path:
    assert main([*LITTLE_RUN, *words]) == 0
    return FOLDER


def test_a_run_trained_longer_is_the_run_that_was_always_longer(capsys):
    trained("trainer.epochs=2")
    assert main(["resume", "run", "trainer.epochs=3"]) == 0
    said = capsys.readouterr().out
    assert "going on from step 10 (epoch 2)" in said
    assert "trainer.epochs is 3 from here on, and was 2" in said
    longer = outcome(FOLDER.resolve())
    trained("name=whole")
    assert longer == outcome(Path("outputs/runs/whole").resolve())
    assert "epochs: 3" in (FOLDER / "config.yaml").read_text()


def test_fewer_epochs_than_were_done_are_complete(capsys):
    trained("trainer.epochs=2")
    assert main(["resume", "run", "trainer.epochs=1"]) == 0
    assert "is complete: nothing was trained" in capsys.readouterr().out
    assert main([*LITTLE_RUN, "trainer.epochs=1"]) == 0


def test_a_run_that_stopped_early_goes_on_with_more_patience():
    trained("trainer.epochs=6", "trainer.early_stop=1", "optim.lr=0.3")
    before = summary(FOLDER)["epochs"]
    assert before < 6
    assert main(["resume", "run", "trainer.early_stop=null"]) == 0
    assert summary(FOLDER)["epochs"] == 6


def test_a_smaller_microbatch_is_used():
    trained("trainer.epochs=1")
    assert main(["resume", "run", "trainer.epochs=2", "trainer.microbatch=8", "--allow-changes"]) == 0
    assert summary(FOLDER)["microbatch"] == 8


@pytest.mark.parametrize(
    ("file", "content", "code"),
    [
        ("config.yaml", "", 78),
        ("config.yaml", "model: 3\n", 78),
        ("config.yaml", "[1", 78),
        ("summary.json", "[]", 0),
        ("summary.json", '{"status":"completed"}', 0),
        ("metrics.jsonl", "x" * 3000, 66),
    ],
)
def test_damage_is_named_in_one_line(file, content, code, capsys):
    trained("trainer.epochs=1")
    (FOLDER / file).write_text(content)
    capsys.readouterr()
    assert main(["resume", "run", "trainer.epochs=2"][: 2 if file == "summary.json" else 3]) == code
    said = capsys.readouterr().err
    assert "unforeseen" not in said
    assert said.count("\n") == (code != 0)


def test_a_schedule_over_all_epochs_is_stretched_and_that_is_said(capsys):
    words = [word for word in LITTLE_RUN if not word.startswith("schedule")]
    assert main([*words, "schedule=cosine", "trainer.epochs=2"]) == 0
    assert main(["resume", str(FOLDER), "trainer.epochs=4"]) == 0
    said = "schedule=cosine is stretched over 4 epochs: 0.5 of the rate at this step, where it was 0"
    assert said in capsys.readouterr().out
    assert summary(FOLDER)["epochs"] == 4
    assert summary(FOLDER)["bit_exact"] is False


def test_what_would_change_the_past_is_refused_unless_it_is_wanted(capsys):
    trained("trainer.epochs=1")
    assert main(["resume", "run", "optim.lr=0.5", "trainer.epochs=2"]) == 78
    assert "optim.lr=0.5: the run in outputs/runs/run has taken its steps with 0.001" in capsys.readouterr().err
    assert main(["resume", "run", "optim.lr=0.5", "trainer.epochs=2", "--allow-changes"]) == 0
    assert summary(FOLDER)["resumed"][0]["changes"] == {"optim.lr": [0.001, 0.5], "trainer.epochs": [1, 2]}
    assert summary(FOLDER)["bit_exact"] is False
    assert [row["lr"] for row in rows(FOLDER, "train")][-1] == 0.5


def test_another_machine_is_told_of_and_remembered(capsys, monkeypatch):
    trained("trainer.epochs=1")
    monkeypatch.setattr(torch, "__version__", "9.9.0")
    assert main(["resume", "run", "trainer.epochs=2"]) == 0
    assert re.search(
        r"not the same bits as without the interruption: torch \S+ then, 9.9.0 now", capsys.readouterr().out
    )
    assert summary(FOLDER)["bit_exact"] is False
    assert list(summary(FOLDER)["resumed"][0]["execution"]) == ["torch"]


def test_the_environment_of_every_part_of_a_run_is_kept(monkeypatch):
    def environments():
        last = json.loads((FOLDER / "environment.json").read_text())
        return [*last.pop("earlier", []), last]

    trained("trainer.epochs=1")
    assert main(["resume", "run", "trainer.epochs=2"]) == 0
    assert len(environments()) == 1
    with monkeypatch.context() as patch:
        patch.setattr("dltrain.verbs._start.threads", lambda: 77)
        assert main(["resume", "run", "trainer.epochs=3"]) == 0
    assert main(["resume", "run", "trainer.epochs=4"]) == 0
    assert [each["threads"] for each in environments()] == [1, 77, 1]


def test_a_preset_goes_on_without_its_file(tmp_path):
    conf = tmp_path / "conf" / "experiment"
    conf.mkdir(parents=True)
    (conf / "mine.yaml").write_text("# @package _global_\ndefaults:\n  - override /optim: sgd\noptim:\n  lr: 0.05\n")
    words = [word for word in LITTLE_RUN if not word.startswith("optim")]
    assert main(["--config-dir", str(conf.parent), *words, "experiment=mine", "trainer.epochs=1"]) == 0
    conf.joinpath("mine.yaml").unlink()
    assert main(["resume", "run", "trainer.epochs=2"]) == 0
    assert rows(FOLDER, "train")[0]["lr"] == 0.05
    assert summary(FOLDER)["bit_exact"] is True


def test_random_numbers_that_are_drawn_otherwise_are_noticed(capsys, monkeypatch):
    trained("trainer.epochs=1")
    randperm = torch.randperm
    monkeypatch.setattr(torch, "randperm", lambda *arguments, **keywords: randperm(*arguments, **keywords).flip(0))
    assert main(["resume", "run", "trainer.epochs=2"]) == 0
    assert "random numbers are drawn otherwise than they were" in capsys.readouterr().out
    assert summary(FOLDER)["bit_exact"] is False


def test_other_data_are_refused(capsys):
    trained("trainer.epochs=1")
    state = next((FOLDER / "checkpoints").glob("step-*/state.json"))
    assert json.loads(state.read_text())["data_fingerprint"]
    config = FOLDER / "config.yaml"
    config.write_text(config.read_text().replace("num_test: 200", "num_test: 201"))
    assert main(["resume", "run", "trainer.epochs=2"]) == 78
    assert "these are not the data that the run began with" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["resume"], 2, "takes one run"),
        (["resume", "a", "b"], 2, "takes one run"),
        (["resume", "nothing"], 78, "no run 'nothing'"),
        (["resume", "run", "trainer.epochs=banana"], 78, "trainer.epochs=banana: must be a whole number"),
        (["resume", "run", "trainer.epoch=3"], 78, "did you mean trainer.epochs"),
        (["resume", "run", "optim=sgd"], 78, "a run goes on with the optim it has"),
    ],
)
def test_what_cannot_be_read_or_done_is_refused_in_one_line(words, code, message, capsys):
    trained("trainer.epochs=2")
    before = (FOLDER / "summary.json").read_bytes()
    capsys.readouterr()
    assert main(words) == code
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert (FOLDER / "summary.json").read_bytes() == before


def test_a_run_of_an_older_version_gets_the_usual_values_of_newer_keys():
    trained("trainer.epochs=1")
    config = FOLDER / "config.yaml"
    config.write_text(re.sub(r"  (grace_seconds|collective_timeout|max_skipped): .*\n", "", config.read_text()))
    (FOLDER / "summary.json").unlink()
    assert main(["resume", "run"]) == 0
    assert summary(FOLDER)["status"] == "completed"


def test_a_run_folder_goes_on_where_it_was_moved_to(tmp_path):
    trained("trainer.epochs=1")
    FOLDER.rename(tmp_path / "moved")
    assert main(["resume", str(tmp_path / "moved"), "trainer.epochs=2"]) == 0
    assert summary(tmp_path / "moved")["steps"] == 10


def test_every_promise_names_a_test_that_is_there():
    promised = re.findall(r"`(tests/\w+\.py)(?:::(\w+))?`", (ROOT / "docs" / "reliability.md").read_text())
    assert len(promised) > 30
    for file, name in promised:
        assert f"def {name}" in (ROOT / file).read_text(), name
