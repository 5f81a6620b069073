"""Data that several ranks divide: shards, shares of what is evaluated, pictures that one of them decodes."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import faults
import numpy as np
import pytest
import rank_data
import torch
from helpers import rows, run
from test_image_folder import folder
from test_ranks import COMMAND, NUMBERS, codes, port, said

from dltrain.data.shards import _laid_out

Found = list[dict[str, Any]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What both ranks of `rank_data.py` have found, and what the first one did after the second was killed."""
    place, free = tmp_path_factory.mktemp("data"), port()
    sound, spoilt = folder(place / "sound", each=6), folder(place / "spoilt", parts=("train", "test"))
    for name in ("train/0/0.png", "test/1/3.png"):
        (spoilt / name).write_text("no")
    arguments = (free, (str(sound), str(spoilt)), str(place / "cache"), place / "found.json")
    started = [faults.CONTEXT.Process(target=rank_data.main, args=(rank, *arguments)) for rank in (0, 1)]
    for process in started:
        process.start()
    assert codes(started) == [0, -9]
    return json.loads((place / "found.json").read_text())


def test_sharded_and_streamed_batches_are_the_resident_ones(found: Found) -> None:
    for own in found[:2]:
        for each in (own["same"], own["same in pairs"]):
            assert len(each) == 2 * len(rank_data.CASES) + 1
            assert [name for name, same in each.items() if not same] == []


def test_a_batch_that_is_watched_is_the_same_and_waits_for_nothing(found: Found) -> None:
    assert [own["watched"] for own in found[:2]] == [[True, []]] * 2


def test_every_rank_keeps_its_part_and_sends_what_others_want(found: Found) -> None:
    """As they are stored, the first 24 examples are the first rank's; of 11 it takes 6, and of the last 3 both all."""
    first, second = found[:2]
    assert [own["held"] for own in (first, second)] == [[24, False], [23, False]]
    assert first["at once"] == [[[14, 10], [14, 13]]]
    assert second["at once"] == [[[13, 13], [10, 13]]]
    assert first["in pairs"] == [[[12, 10], [12, 0]], [[2, 0], [2, 10]], [[0, 0], [0, 3]]]
    assert second["in pairs"] == [[[0, 0], [10, 0]], [[10, 10], [0, 10]], [[3, 3], [0, 3]]]


def test_every_example_is_evaluated_once_and_kept_by_who_evaluates_it(found: Found) -> None:
    first, second = (own["evaluated"] for own in found[:2])
    assert first["served"] + second["served"] == list(range(44))
    assert [own["held"] for own in (first, second)] == [[22, False]] * 2
    assert first["any"] == [46, 3, 30]


def test_statistics_are_the_same_bits(found: Found) -> None:
    assert found[0]["statistics"]
    assert found[1]["statistics"]
    assert all(own["folder"]["preparation"] for own in found[:2])


def test_a_picture_is_decoded_by_one_rank(found: Found) -> None:
    """36 pictures, 12 to train on, which make three batches of 4; once for the statistics, and once for the level."""
    first, second = (own["folder"] for own in found[:2])
    assert set(Counter(first["cached"] + second["cached"]).values()) == {1}
    assert (len(first["cached"]), len(second["cached"])) == (18, 18)
    train = {name: 1 for name in first["cached"] + second["cached"] if name.startswith("train/")}
    assert len(train) == 12
    assert Counter(first["epoch"] + second["epoch"]) == train
    assert (len(first["epoch"]), len(second["epoch"])) == (6, 6)
    assert Counter(first["loaded"] + second["loaded"]) == dict.fromkeys(train, 2)
    assert Counter(first["sharded"] + second["sharded"]) == {
        name: 3 if name in train else 1 for name in first["cached"] + second["cached"]
    }
    assert all(own["same"] and own["apart"] for own in (first, second))


def test_what_one_rank_cannot_read_or_write_is_refused_by_all(found: Found) -> None:
    first, second = (own["damaged"] for own in found[:2])
    for key in ("no space", "refused", "counts", "note", "fingerprint"):
        assert first[key] == second[key]
    assert first["no space"].startswith("74: ")
    assert "No space left on device; data.cache=false" in first["no space"]
    assert first["refused"].startswith("66: 2 of 16 pictures cannot be read: ")
    assert first["counts"] == {"train": 7, "test": 7}
    assert first["note"].startswith("2 pictures that cannot be read are left out: ")
    assert first["again"] == second["again"] == first["hidden"] == []


def test_each_machine_decodes_all(found: Found) -> None:
    assert len(found[0]["machines"]) == len(set(found[0]["machines"])) == 36
    assert sorted(found[0]["machines"]) == sorted(found[1]["machines"])


def test_a_rank_that_is_killed_leaves_nothing_half_decoded(found: Found) -> None:
    assert not found[2]["there"]
    assert found[2]["hidden"] == []


def test_a_run_on_shards_has_the_losses_of_one_rank() -> None:
    words = (*COMMAND, "trainer.epochs=1", "data.batch_size=128", "model.dropout=0")
    alone = run(*words, name="alone")
    process = faults.start(*words, "device.count=2", "data.resident_limit=300000", "name=run")
    assert codes([process]) == [0], said()
    sharded = Path("outputs/runs/run")
    assert "600 kB sharded over 2 ranks, 300 kB resident on the device of each" in (sharded / "train.log").read_text()
    for own, expected in zip(rows(sharded), rows(alone), strict=True):
        for key in NUMBERS:
            assert own[key] == (pytest.approx(expected[key], abs=1e-5) if key == "loss" else expected[key])


def test_a_rank_that_stores_nothing_takes_what_it_receives_as_it_is() -> None:
    images = torch.arange(24, dtype=torch.uint8).view(6, 1, 2, 2)
    nothing = torch.from_numpy(images.numpy()[np.array([], int)])
    assert nothing.stride() == (0, 0, 0, 0)
    assert torch.equal(_laid_out(images, nothing), images)
