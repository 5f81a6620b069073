"""What each of two gloo ranks does in tests of data that they divide, in a process of its own."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ranks import be
from torch import Tensor

from dltrain.build.supply import Supply
from dltrain.config import schema
from dltrain.config.compose import compose
from dltrain.data import image_folder, picture_store, pictures, shards
from dltrain.data.batches import Batches
from dltrain.data.dataset import DataError
from dltrain.data.preparation import AsStored
from dltrain.data.statistics import mean_and_deviation
from dltrain.data.stored import Chosen
from dltrain.engine import Ranks, joined
from dltrain.engine.probe import Probe

COUNT = 47  # four batches of 11 and one of 3, which is too small to be shared
CASES: dict[str, dict[str, Any]] = {
    "stored": {},
    "shuffled": {"shuffle": True},
    "augmented": {"shuffle": True, "augmented": True},
    "sequence": {"sequence": torch.arange(COUNT).flip(0)},
    "limited": {"shuffle": True, "limit": 3},
    "overfit": {"shuffle": True, "augmented": True, "overfit": 2, "limit": 5},
    "grey": {"shuffle": True, "grey": True},
    "numbers": {"dtype": np.float32},
}


def serve(
    ranks: Ranks, count: int = COUNT, *, augmented: bool = False, grey: bool = False, dtype: Any = None, **changes: Any
) -> Batches:
    from engines import batches

    made, random = batches(count), np.random.default_rng(0)
    changes |= {"augment": made.augment} if augmented else {}
    inputs: Any = random.integers(0, 256, (count, 2, 8, 8)).astype(dtype or np.uint8)
    inputs = Chosen(inputs[:, 0][:, None], np.arange(count)) if grey else inputs
    prepare = made.prepare if dtype is None else AsStored()
    return Batches(inputs, np.arange(count), batch_size=11, prepare=prepare, ranks=ranks, **changes)


def same(found: Iterator[tuple[Tensor, Tensor]], expected: Iterator[tuple[Tensor, Tensor]]) -> bool:
    """Whether two epochs have the same batches, whose strides choose torch's kernels."""
    pairs = [each for pair in zip(found, expected, strict=True) for each in zip(*pair, strict=True)]
    return all(torch.equal(a, b) and a.stride() == b.stride() for a, b in pairs) and bool(pairs)


def batches_are_those_of_the_whole(ranks: Ranks) -> dict[str, bool]:
    """Whether sharded and streamed batches are the resident ones, from the beginning of epochs and from their midst."""
    found = {}
    for name, case in CASES.items():
        whole = serve(ranks, **case)
        for kind, how in (("sharded", {"sharded": True}), ("streamed", {"workers": 0})):
            other = serve(ranks, **case, **how)
            outcomes = [same(other.epoch(*at), whole.epoch(*at)) for at in ((0, 0), (1, 0), (1, 2))]
            found[f"{name} {kind}"] = all(outcomes)
            other.close()
    single = serve(ranks, 1, sharded=True)
    found["a single example"] = same(single.epoch(0), serve(ranks, 1).epoch(0))
    return found


def watched(ranks: Ranks) -> list[Any]:
    """Whether a batch that is watched while ranks exchange it is what it would have been, and the places that wait."""
    from engines import engine

    probe, case = Probe(engine()), {"shuffle": True, "augmented": True, "sharded": True}
    outcome = same(probe.watched(serve(ranks, **case)).epoch(0), serve(ranks, **case).epoch(0))
    exchanged = probe.making.operations > 10
    return [outcome and exchanged, probe.making.waits]


def exchanges(ranks: Ranks, **changes: Any) -> list[tuple[list[int], list[int]]]:
    """How many rows an epoch sends to each rank, and has from each, by exchange."""
    seen: list[tuple[list[int], list[int]]] = []
    exchange = ranks.exchange

    def watched(rows: Tensor, sent: list[int], received: list[int]) -> Tensor:
        seen.append((sent, received))
        return exchange(rows, sent, received)

    ranks.exchange = watched  # type: ignore[method-assign]
    list(serve(ranks, sharded=True, **changes).epoch(0))
    del ranks.exchange
    return seen[::2]  # of inputs; targets go the same way


def held(ranks: Ranks, **how: Any) -> list[Any]:
    """How many examples a rank has on its device, and whether the memory of all the others stays with them."""
    inputs = np.zeros((COUNT, 1, 2, 2), np.uint8)
    batches = Batches(inputs, np.arange(COUNT), batch_size=11, prepare=AsStored(), ranks=ranks, **how)
    return [len(batches.source.inputs), np.shares_memory(inputs, batches.source.inputs.numpy())]


def evaluated(ranks: Ranks) -> dict[str, Any]:
    """What a rank evaluates and keeps, and what the first one is asked for."""
    own = serve(ranks, evaluated=True, limit=4)
    places = torch.tensor([46, 3, 30])
    asked = own.stored(places)[1].tolist() if ranks.leads else None
    return {
        "served": [int(target) for _, targets in own.epoch(0) for target in targets],
        "held": held(ranks, evaluated=True, limit=4),
        "any": asked,
    }


def statistics(ranks: Ranks) -> bool:
    """Whether ranks that count a share each have the bits of one."""
    images = np.random.default_rng(0).integers(0, 256, (601, 2, 8, 8)).astype(np.uint8)
    pairs = [
        (mean_and_deviation(images, standardize=kind, team=ranks), mean_and_deviation(images, standardize=kind))
        for kind in ("channel", "feature")
    ]
    return all(torch.equal(a, b) for pair in pairs for a, b in zip(*pair, strict=True))


@contextmanager
def decoding(decode: Callable[..., Any] | None = None) -> Iterator[list[str]]:
    """The pictures that this rank decodes meanwhile, by a decoder of the test's own."""
    seen: list[str] = []
    original = pictures.decode

    def watched(path: Path, shape: Any) -> Any:
        seen.append("/".join(path.parts[-3:]))
        return (decode or original)(path, shape)

    pictures.decode = watched
    try:
        yield seen
    finally:
        pictures.decode = original


def supply(root: str, ranks: Ranks, *words: str) -> Supply:
    chosen = ("data=image_folder", f"data.root={root}", "data.image_size=28", "data.batch_size=4", "model=mlp")
    config = compose([*chosen, *words]).config
    return Supply(config, schema.Trainer(**config.trainer), ranks)


def folder(ranks: Ranks, root: str) -> dict[str, Any]:
    """Which pictures a rank decodes: into the cache, and in an epoch without one."""
    device = {"device": torch.device("cpu"), "memory_format": torch.contiguous_format}
    with decoding() as cached:
        kept, preparation = supply(root, ranks).load(**device)
    words = ("data.cache=false", "data.resident_limit=0", "data.workers=0")
    with decoding() as loaded:
        streamed, other = supply(root, ranks, *words).load(**device)
    with decoding() as epoch:
        found = same(streamed["train"].epoch(0), kept["train"].epoch(0))
    with decoding() as sharded:
        apart, _ = supply(root, ranks, "data.cache=false").load(**device)
    _, expected = supply(root, Ranks()).load(**device)
    return {
        "cached": cached, "loaded": loaded, "epoch": epoch, "sharded": sharded, "same": found,
        "apart": apart["train"].sharded and same(apart["train"].epoch(0), kept["train"].epoch(0)),
        "preparation": preparation.state() == other.state() == expected.state(),
    }  # fmt: skip


def refusal(work: Callable[[], Any]) -> str:
    """What is said of data that cannot be used."""
    try:
        work()
    except DataError as error:
        return f"{error.exit_code}: {error}"
    return "nothing"


def damaged(ranks: Ranks, root: str) -> dict[str, Any]:
    """What ranks make of a folder with pictures that cannot be read, and of a disk that is full for the second."""

    def full(path: Path, shape: Any) -> Any:
        if ranks.rank == 1:
            raise OSError(28, "No space left on device")
        return np.zeros(shape.array, np.uint8)

    def data(**how: Any) -> Any:
        made = image_folder(root=root, image_size=16, **how)
        made.divide(ranks)
        return made

    with decoding(full):
        no_space = refusal(data(fit="crop").load)
    refused = refusal(data().load)
    with decoding() as again:
        skipped = data(corrupt="skip")
        counts = skipped.facts().num_examples
    return {
        "no space": no_space, "refused": refused, "again": again, "counts": counts, "note": skipped.facts().notes[0],
        "fingerprint": ranks.once(skipped.fingerprint), "hidden": hidden(),
    }  # fmt: skip


def hidden() -> list[str]:
    """Unfinished files in the cache."""
    return [path.name for path in Path(os.environ["XDG_CACHE_HOME"]).rglob(".*")]


def on_two_machines(ranks: Ranks, root: str) -> list[str]:
    """What each rank decodes where none shares its machine and its cache."""
    os.environ.update(
        LOCAL_RANK="0", LOCAL_WORLD_SIZE="1", XDG_CACHE_HOME=f"{os.environ['XDG_CACHE_HOME']}-{ranks.rank}"
    )
    with decoding() as seen:
        made = image_folder(root=root, image_size=16)
        made.divide(ranks)
        made.load()
    return seen


def killed(ranks: Ranks, root: str) -> dict[str, Any]:
    """What the first rank finds after the second was killed while they decoded."""

    def die(path: Path, shape: Any) -> Any:
        if ranks.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return np.zeros(shape.array, np.uint8)

    made = image_folder(root=root, image_size=8)
    made.divide(ranks)
    with decoding(die):
        try:
            made.load()
        except Exception as error:
            cause = type(error).__name__
    return {"cause": cause, "there": made._entry.with_suffix(".npy").exists(), "hidden": hidden()}


def main(rank: int, port: str, folders: tuple[str, str], cache: str, result: Path) -> None:
    """Do everything; the first rank, which outlives the other, writes what all have found."""
    be(rank, 2, port)
    os.environ["XDG_CACHE_HOME"] = cache
    torch.set_num_threads(1)
    sound, spoilt = folders
    picture_store.ROUND = 1
    pictures.PART = 3
    with joined(torch.device("cpu")) as ranks:
        found: dict[str, Any] = {"same": batches_are_those_of_the_whole(ranks), "at once": exchanges(ranks)}
        shards.MOST_BYTES = 1
        found["watched"] = watched(ranks)
        shards.MOST_BYTES = 22 * 128
        found |= {"same in pairs": batches_are_those_of_the_whole(ranks), "in pairs": exchanges(ranks)}
        found |= {"held": held(ranks, sharded=True), "evaluated": evaluated(ranks)}
        found |= {"statistics": statistics(ranks), "folder": folder(ranks, sound), "damaged": damaged(ranks, spoilt)}
        os.environ["XDG_CACHE_HOME"] = f"{cache}-killed"
        local = {key: os.environ[key] for key in ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "XDG_CACHE_HOME")}
        found["machines"] = on_two_machines(ranks, sound)
        os.environ.update(local)
        every = ranks.gather(found)
        result.write_text(json.dumps([*every, killed(ranks, sound)]))
        os._exit(0)  # there is no other rank to part from
