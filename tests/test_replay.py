"""`dltrain replay`: the same run again from its folder, and whatever is otherwise by name."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from faults import RUN
from helpers import LITTLE, summary

import dltrain
from dltrain.cli import main
from dltrain.run.record import FILE
from dltrain.verbs._replay_differences import _of_part
from dltrain.verbs._replay_verdict import DIFFERENT, IDENTICAL, NOISE, Outcome, judge

AIRFOIL = Path(__file__).parent / "data/airfoil_self_noise.dat"
CSV = (
    "data=csv", "data.path=table.dat", "data.batch_size=128", "trainer.epochs=2", "device=cpu", "device.threads=1",
    "device.precision=fp32", "name=first",
)  # fmt: skip
FIRST = Path("outputs/runs/first")
AGAIN = Path("outputs/runs/first-replay")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a data set on disk and a run of it."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shutil.copy(AIRFOIL, "table.dat")
        assert main(list(CSV)) == 0
    return folder


@pytest.fixture
def first(trained, monkeypatch, tmp_path):
    """A copy of the run of its own, whose data stay where they were."""
    shutil.copytree(trained / "outputs", "outputs")
    return FIRST


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


def replay(capsys, *words: str, expected: int) -> str:
    capsys.readouterr()
    assert main(["replay", *words]) == expected
    return capsys.readouterr().out


def test_the_same_run_comes_again_and_the_first_is_not_touched(first, capsys):
    before = content(first)
    said = replay(capsys, "first", expected=0)
    assert "nothing known differs" in said
    assert said.splitlines()[-1].startswith("identical: every row, the results and the weights")
    assert content(first) == before
    assert summary(AGAIN)["weights_sha256"] == summary(first)["weights_sha256"]
    told = json.loads((AGAIN / "replay.json").read_text())
    assert (told["word"], told["exit_code"], told["rows"], told["differences"]) == (
        "identical",
        0,
        told["equal_rows"],
        [],
    )
    assert replay(capsys, "first", "--to", "other", expected=0)
    assert Path("outputs/runs/other/replay.json").is_file()


def test_one_byte_of_the_data_is_named(first, trained, capsys):
    table = trained / "table.dat"
    data = table.read_bytes()
    try:
        table.write_bytes(data.replace(b"126.201", b"126.301", 1))
        said = replay(capsys, "first", expected=70)
    finally:
        table.write_bytes(data)
    assert re.search(r"^differs: data: the fingerprint: [0-9a-f]{64} now, [0-9a-f]{64} then$", said, re.MULTILINE)
    assert re.search(r"^first   train row of step \d+: loss ", said, re.MULTILINE)
    assert said.splitlines()[-1].startswith("different: because of data: the fingerprint")


def test_one_key_is_named_with_both_values(first, capsys):
    edit(first / "config.yaml", "  lr: ", "  lr: 0.5  # ")
    said = replay(capsys, "first", expected=70)
    assert "differs: optim.lr: 0.5 now, 0.001 then" in said
    assert said.splitlines()[-1] == "different: because of optim.lr: 0.5 now, 0.001 then"


def test_one_version_is_named(first, capsys, monkeypatch):
    edit(first / "environment.json", f'"numpy": "{__import__("numpy").__version__}"', '"numpy": "1.0"')
    monkeypatch.setattr(dltrain, "__version__", "9.9")
    said = replay(capsys, "first", "--check", expected=70)
    assert f"differs: numpy: {__import__('numpy').__version__} now, 1.0 then" in said
    assert "differs: dltrain: 9.9 now, " in said
    assert not AGAIN.exists()
    assert replay(capsys, "first", expected=0).splitlines()[-1].startswith("identical: ")


def test_only_what_is_known_is_said_to_be_as_it_was(first, capsys):
    def same() -> str:
        return replay(capsys, "first", "--check", expected=0).strip().splitlines()[-1]

    assert re.fullmatch(r"nothing known differs; as it was: configuration, data, (code, )?versions, machine", same())
    (first / "environment.json").unlink()
    assert same() == "nothing known differs; as it was: configuration, data"
    shutil.rmtree(first / "checkpoints")
    assert same() == "nothing is known of then"


def test_another_number_of_threads_is_noise(capsys):
    assert main([*LITTLE, "device.threads=1", "device.precision=fp32", "trainer.epochs=2", "name=first"]) == 0
    edit(FIRST / "config.yaml", "threads: 1", "threads: 2")
    try:
        said = replay(capsys, "first", expected=0)
    finally:
        torch.set_num_threads(1)
    assert "differs: device.threads: 2 now, 1 then" in said
    assert re.search(r"^test    accuracy .* now, .* then, noise to ", said, re.MULTILINE)
    assert said.splitlines()[-1].startswith("within noise: what differs (device.threads, ")


def test_a_resumed_run_and_an_interrupted_one_are_replayed_as_far_as_they_went(capsys):
    assert main([*RUN, "model.hidden_sizes=[8]", "trainer.epochs=2", "name=first"]) == 0
    assert main(["resume", "first", "trainer.epochs=3"]) == 0
    said = replay(capsys, "first", "--check", expected=0)
    assert "note: resumed at step 10: trainer.epochs: 3 now, 2 then, which has shaped no step" in said
    said = replay(capsys, "first", expected=0)
    assert "differs: " not in said
    assert said.splitlines()[-1].startswith("identical: ")

    lines = (FIRST / FILE).read_bytes().splitlines(keepends=True)
    cut = [line for line in lines if json.loads(line)["step"] <= 7]
    (FIRST / FILE).write_bytes(b"".join(cut))
    (FIRST / "summary.json").unlink()
    said = replay(capsys, "first", "--to", "part", expected=0)
    assert "not known: the weights" in said
    assert said.splitlines()[-1].startswith("identical: every row (weights cannot be compared)")
    assert summary(Path("outputs/runs/part"))["steps"] == 7 - 1
    (FIRST / FILE).unlink()
    assert main(["replay", "first"]) == 66


def test_the_commands_of_its_page_run(first, capsys):
    page = (Path(__file__).parents[1] / "docs/replay.md").read_text()
    lines = re.findall(r"^dltrain (.*?)(?:  #.*)?$", page, re.MULTILINE)
    assert len(lines) == 3
    for line in lines:
        replay(capsys, *line.split()[1:], expected=0)


def test_a_free_change_that_altered_bits_is_a_difference():
    part = {"step": 10, "changes": {"trainer.epochs": [2, 3]}}
    assert [free for exact in (True, False) for _, free in _of_part({**part, "bit_exact": exact})] == [
        True,
        False,
        False,
    ]


def row(split: str, step: int, loss: float, accuracy: float, lr: float | None = None) -> dict:
    return {"split": split, "step": step, "loss": loss, "accuracy": accuracy, **({"lr": lr} if lr else {})}


OLD = [row("train", 5, 2.0, 0.2, 0.1), row("train", 10, 1.0, 0.5, 0.1), row("val", 10, 1.0, 0.5)]


@pytest.mark.parametrize(
    ("new", "word", "said"),
    [
        (OLD, IDENTICAL, "every row"),
        ([row("train", 5, 2.001, 0.2, 0.1), OLD[1], row("val", 10, 1.1, 0.55)], NOISE, "nothing that is known"),
        ([row("train", 5, 2.03, 0.2, 0.1), *OLD[1:]], DIFFERENT, "first train losses"),
        ([*OLD[:2], row("val", 10, 1.1, 0.9)], DIFFERENT, "val accuracy is more than"),
        ([OLD[0], row("train", 10, 1.0, 0.5, 0.05), OLD[2]], DIFFERENT, "not the same learning rates"),
        (OLD[:2], DIFFERENT, "not the same rows"),
    ],
)
def test_the_rule_of_noise(new, word, said):
    verdict = judge(Outcome(OLD, {}), Outcome(new, {}), [], num_examples={"val": 200}, until=None)
    assert verdict.word == word
    assert said in verdict.reason
    assert verdict.exit_code == (70 if word == DIFFERENT else 0)
    assert (verdict.first is None) == (word == IDENTICAL)
