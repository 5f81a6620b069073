"""Checkpoints: what comes back, what the manifest notices, the order of publication, and what a crash leaves."""

import copy
import hashlib
import json
import os
import random
from itertools import islice
from pathlib import Path

import pytest
import torch
from engines import batches, engine, equal, network
from helpers import optimizers
from safetensors.torch import load_file
from torch import Tensor, nn

from dltrain.run import checkpoint
from dltrain.run.folder import RunError, WriteError
from dltrain.train import fit

MODEL = {"layer.weight": torch.arange(24.0).reshape(2, 3, 2, 2), "layer.bias": torch.ones(2)}
STATE = {"step": 7, "class_names": ["a", "b"]}
PROC = Path("/proc/self/fd").is_dir()  # where a descriptor's path can be asked for
FILES = ["ema.safetensors", "manifest.json", "model.safetensors", "state.json"]


@pytest.fixture
def published(tmp_path: Path) -> Path:
    return checkpoint.save(tmp_path / "checkpoints", 7, {"model": MODEL, "ema": MODEL}, STATE)


def round_trip(folder: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    found, _ = checkpoint.load(checkpoint.save(folder / "checkpoints", 1, {"model": tensors}, {}))
    return found["model"]


def test_a_checkpoint_holds_what_the_design_lists_and_comes_back(published: Path) -> None:
    assert published.name == "step-00000007"
    assert sorted(path.name for path in published.iterdir()) == FILES
    assert list(published.parent.iterdir()) == [published]
    tensors, state = checkpoint.load(published)
    assert equal(tensors, {"model": MODEL, "ema": MODEL})
    assert state == STATE
    manifest = json.loads((published / "manifest.json").read_text())
    content = (published / "model.safetensors").read_bytes()
    expected = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert manifest["files"]["model.safetensors"] == expected
    assert set(manifest["files"]) == {*FILES} - {"manifest.json"}


@pytest.mark.parametrize("option", optimizers())
def test_a_run_goes_on_bit_for_bit_from_a_checkpoint(option: str, tmp_path: Path) -> None:
    whole, stopped = (engine(option, network().to(memory_format=torch.channels_last), ema=0.9) for _ in range(2))
    list(fit(whole, batches(), epochs=1))
    list(islice(fit(stopped, batches(), epochs=1), 3))

    state = stopped.state_dict()
    tensors, values = checkpoint.flatten(state["optim"])
    json_state = {"optim": values, "totals": state["totals"]}
    saved = {"model": state["model"], "optim": {**tensors, "scale": torch.ones(())}, "ema": state["ema"]}
    path = checkpoint.save(tmp_path / "checkpoints", 3, saved, json_state)
    names = {name for name, _ in stopped.model.named_parameters()}
    assert {name.rpartition(".")[0] for name in tensors} in (names, set()) or option == "lbfgs"  # one for all

    loaded, read = checkpoint.load(path)
    fresh = engine(option, network().to(memory_format=torch.channels_last), ema=0.9)
    optim = checkpoint.unflatten(loaded["optim"], read["optim"])
    fresh.load_state_dict(
        {"model": loaded["model"], "ema": loaded["ema"], "optim": optim, "precision": {}, "totals": read["totals"]}
    )
    list(fit(fresh, batches(), epochs=1, start=3))
    ours, theirs = fresh.state_dict(), whole.state_dict()
    assert all(equal(ours[key], theirs[key]) for key in ("model", "optim", "ema"))
    assert fresh.epoch.sums.tolist() == whole.epoch.sums.tolist()


def test_shared_tensors_are_written_once_and_come_back_under_every_name(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    path = checkpoint.save(tmp_path / "checkpoints", 1, {"model": model.state_dict()}, {})
    assert sorted(load_file(path / "model.safetensors")) == ["0.weight", "1.bias"]
    loaded = copy.deepcopy(model)
    for parameter in loaded.parameters():
        parameter.data.zero_()
    loaded.load_state_dict(checkpoint.load(path)[0]["model"])
    assert equal(dict(loaded.state_dict()), dict(model.state_dict()))
    assert loaded[0].weight is loaded[1].weight


BASE = torch.arange(12.0)
KINDS = {
    "0-dim": torch.tensor(3.0),
    "bf16": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "bf16 0-dim": torch.tensor(0.5, dtype=torch.bfloat16),
    "int64": torch.tensor([2**60 + 1]),
    "bool": torch.tensor([True, False]),
    "empty": torch.zeros(0, 3),
    "channels_last": torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last),
    "transposed": torch.rand(3, 2).T,
    "requires_grad": nn.Parameter(torch.rand(2)),
    "not finite": torch.tensor([float("inf"), -0.0]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_tensor_comes_back(kind: str, tmp_path: Path) -> None:
    found = round_trip(tmp_path, {"tensor": KINDS[kind]})["tensor"]
    assert found.is_contiguous()
    assert equal(found, KINDS[kind].detach())


def test_views_of_one_memory_and_two_empty_tensors_all_come_back(tmp_path: Path) -> None:
    tensors = {"a": BASE[:6], "b": BASE[6:], "c": BASE[:6].reshape(2, 3), "d": torch.zeros(0), "e": torch.zeros(0)}
    assert equal(round_trip(tmp_path, tensors), tensors)


def test_equal_tensors_that_are_not_shared_stay_apart(tmp_path: Path) -> None:
    found = round_trip(tmp_path, {"a": torch.ones(2), "b": torch.ones(2)})
    found["a"].zero_()
    assert found["b"].tolist() == [1.0, 1.0]


def test_the_hash_of_weights_is_that_of_their_bytes_by_name() -> None:
    tensors = {"b": torch.tensor([1.0, 2.0]), "a": torch.tensor(3, dtype=torch.int64)}
    raw = (3).to_bytes(8, "little") + bytes.fromhex("0000803f00000040")
    assert checkpoint.weights_sha256(tensors) == hashlib.sha256(raw).hexdigest()
    assert checkpoint.weights_sha256(dict(sorted(tensors.items()))) == checkpoint.weights_sha256(tensors)


@pytest.mark.parametrize("kind", KINDS)
def test_the_hash_of_weights_takes_every_kind_and_sees_every_bit(kind: str) -> None:
    tensor = KINDS[kind].detach()
    plain = tensor.clone(memory_format=torch.contiguous_format)
    assert checkpoint.weights_sha256({"a": tensor}) == checkpoint.weights_sha256({"a": plain})
    if tensor.numel():
        plain.view(-1).view(torch.uint8)[-1] ^= 1
        assert checkpoint.weights_sha256({"a": tensor}) != checkpoint.weights_sha256({"a": plain})


@pytest.mark.parametrize("file", FILES)
def test_a_flipped_bit_is_noticed_in_every_file(published: Path, file: str) -> None:
    path = published / file
    content = path.read_bytes()
    places = random.Random(0).sample(range(8 * len(content)), 40)
    for place in [0, 8 * len(content) - 1, *places]:
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(RunError, match=file) as caught:
            checkpoint.load(published)
        assert caught.value.exit_code == 66
    path.write_bytes(content)
    checkpoint.verify(published)


DAMAGES = {
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "emptied": lambda path: path.write_bytes(b""),
    "made longer": lambda path: path.write_bytes(path.read_bytes() + b"\n"),
    "missing": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", FILES)
def test_a_file_that_is_not_whole_is_noticed(published: Path, file: str, damage: str) -> None:
    DAMAGES[damage](published / file)
    with pytest.raises(RunError, match=file):
        checkpoint.load(published)
    assert not checkpoint.is_sound(published)


def test_a_file_that_does_not_belong_is_noticed(published: Path) -> None:
    (published / "more.safetensors").write_bytes(b"")
    with pytest.raises(RunError, match=r"more\.safetensors is missing or does not belong there"):
        checkpoint.load(published)


def test_files_that_changed_places_are_noticed(published: Path, tmp_path: Path) -> None:
    other = checkpoint.save(tmp_path / "other", 7, {"model": {"layer.bias": torch.zeros(2)}, "ema": MODEL}, STATE)
    (published / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    with pytest.raises(RunError, match=r"model\.safetensors is damaged"):
        checkpoint.load(published)


@pytest.mark.parametrize("text", ["[]", "{}", "null", '{"files": 3, "sha256": ""}', '{"files": {}}', "\x00"])
def test_a_manifest_that_says_something_else_is_damaged(published: Path, text: str) -> None:
    (published / "manifest.json").write_text(text)
    with pytest.raises(RunError, match=r"manifest\.json"):
        checkpoint.verify(published)


def test_a_checkpoint_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"manifest\.json is missing"):
        checkpoint.load(tmp_path / "step-00000001")


def test_everything_is_on_disk_before_the_one_rename_and_the_rename_before_the_end(tmp_path, monkeypatch) -> None:
    done: list[tuple[str, str]] = []
    fsync, rename = os.fsync, Path.rename

    def note_fsync(descriptor: int) -> None:
        done.append(("fsync", Path(f"/proc/self/fd/{descriptor}").resolve().name if PROC else ""))
        fsync(descriptor)

    def note_rename(path: Path, target: Path) -> Path:
        done.append(("rename", target.name))
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "rename", note_rename)
    checkpoint.save(tmp_path / "checkpoints", 7, {"model": MODEL, "ema": MODEL}, STATE)
    *before, rename_event, after = done
    assert rename_event == ("rename", "step-00000007")
    assert [what for what, _ in before] == ["fsync"] * (len(FILES) + 1)
    assert after[0] == "fsync"
    if PROC:
        assert sorted(name for _, name in before[:-1]) == FILES
        assert before[-1][1].startswith(".step-00000007-")
        assert after[1] == "checkpoints"


CRASHES = [
    (checkpoint, "save_file"),
    (checkpoint, "_manifest"),
    (Path, "write_text"),
    (Path, "write_bytes"),
    (Path, "chmod"),
    (os, "fsync"),
    (Path, "rename"),
]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "killed"])
@pytest.mark.parametrize(("owner", "name"), CRASHES, ids=[name for _, name in CRASHES])
def test_a_crash_leaves_neither_half_a_checkpoint_nor_a_draft(owner, name, error, tmp_path, monkeypatch) -> None:
    def fail(*arguments: object, **keywords: object) -> None:
        raise error

    monkeypatch.setattr(owner, name, fail)
    with pytest.raises(WriteError if isinstance(error, OSError) else KeyboardInterrupt) as caught:
        checkpoint.save(tmp_path / "checkpoints", 7, {"model": MODEL}, STATE)
    if isinstance(error, OSError):
        assert "step-00000007: No space left on device" in str(caught.value)
    assert not list((tmp_path / "checkpoints").iterdir())


def test_a_state_that_is_no_json_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        checkpoint.save(tmp_path / "checkpoints", 7, {"model": MODEL}, {"loss": float("nan")})
    assert not (tmp_path / "checkpoints").exists()


def test_tensors_that_cannot_be_written_are_named_and_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(
        WriteError, match=r"cannot write .*step-00000001: .*No such file.*[0-9,]+ bytes needed, [0-9,]+ bytes free"
    ):
        checkpoint.save(tmp_path / "checkpoints", 1, {"no/such": MODEL}, {})
    assert not list((tmp_path / "checkpoints").iterdir())


def test_a_sound_checkpoint_is_never_changed_and_a_damaged_one_is_replaced(published: Path) -> None:
    before = (published / "manifest.json").read_bytes()
    checkpoint.save(published.parent, 7, {"model": {}}, {"step": 8})
    assert (published / "manifest.json").read_bytes() == before
    (published / "model.safetensors").write_bytes(b"damaged")
    checkpoint.save(published.parent, 7, {"model": MODEL}, {"step": 8})
    assert checkpoint.load(published)[1] == {"step": 8}
    assert list(published.parent.iterdir()) == [published]


def test_checkpoints_are_listed_by_step_and_old_ones_pruned(tmp_path: Path) -> None:
    for step in (3, 99_999_999, 100_000_000, 20):
        checkpoint.save(tmp_path, step, {"model": MODEL, "optim": {}}, {})
    for stray in ("step-notes", ".step-00000009-abc", ".deleted-step-00000001"):
        (tmp_path / stray).mkdir()
    (tmp_path / ".DS_Store").write_text("")
    assert [checkpoint.number(path) for path in checkpoint.steps(tmp_path)] == [3, 20, 99_999_999, 100_000_000]
    checkpoint.prune(tmp_path, {3, 99_999_999, 100_000_000})
    assert [checkpoint.number(path) for path in checkpoint.steps(tmp_path)] == [3, 99_999_999, 100_000_000]
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith("step-0")} == {
        "step-notes",
        "step-99999999",
        "step-100000000",
        ".DS_Store",
    }
    assert checkpoint.steps(tmp_path / "missing") == []
