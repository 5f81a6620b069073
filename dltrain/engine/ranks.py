"""The processes that train one model together, each on its share of every batch."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from dltrain.engine.division import Division
from dltrain.engine.memory import OutOfMemory
from dltrain.engine.roll import Roll, call_roll

T = TypeVar("T")
FEWEST = 2  # examples of a share, which batch norm on vectors needs
BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}


class Part(tuple[Tensor, Tensor]):
    """Inputs and targets of one rank's share of a batch, which has `examples` in all."""

    examples: int


class Ranks(Division):
    """Process number `rank` of `size` that take the same steps; alone, which costs nothing, unless told otherwise.

    Batches are shared so that every example is with one rank, in order; a batch with fewer than two examples for each
    is computed whole by all of them. Sums and decisions are made common by collectives that all ranks must come to,
    within the limit of the `roll`. Groups besides torch's default one: `prompt`, of decisions, keeps to the limit
    where a GPU does not; in the `patient` one they meet where one may honestly be late.
    """

    def __init__(self, rank: int = 0, size: int = 1, *, roll: Roll | None = None) -> None:
        self.rank, self.size, self.roll = rank, size, roll
        self.prompt: Any = None
        self.patient: Any = None

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    @property
    def drawn_as(self) -> tuple[int, ...]:
        """What the draws of this rank depend on besides seed and step; nothing for the first one."""
        return (self.rank,) * (self.rank > 0)

    def threads(self) -> int | None:
        """This one's part of the machine's processors; None, which is torch's choice, alone."""
        if self.size == 1:
            return None
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", self.size)))

    def share(self, first: int, last: int, *, least: int = FEWEST, rank: int | None = None) -> tuple[int, int]:
        """Of the examples from first to last (exclusive) those of a rank, this one unless named.

        All of them where a share is too small.
        """
        count, rank = last - first, self.rank if rank is None else rank
        if count < least * self.size:
            return first, last
        small, larger = divmod(count, self.size)
        start = first + rank * small + min(rank, larger)
        return start, start + small + (rank < larger)

    def part(self, batch: tuple[Tensor, Tensor], examples: int) -> Part:
        """A share of a batch of so many examples."""
        part = Part(batch)
        part.examples = examples
        return part

    def weight(self, batch: tuple[Tensor, Tensor]) -> float:
        """What the mean over a share counts for in the mean over ranks, so that this is the mean over the batch."""
        if self.size == 1 or self._is_whole(batch):
            return 1.0
        assert isinstance(batch, Part)
        return len(batch[0]) * self.size / batch.examples

    def counts(self, batch: tuple[Tensor, Tensor]) -> bool:
        """Whether this rank counts the examples of a batch, which all of them may have whole."""
        return self.leads or not self._is_whole(batch)

    def _is_whole(self, batch: tuple[Tensor, Tensor]) -> bool:
        return isinstance(batch, Part) and len(batch[0]) == batch.examples

    def shares(self, batch: tuple[Tensor, Tensor]) -> tuple[int, int]:
        """The examples of the smallest and of the largest share of a batch."""
        if self.size == 1 or self._is_whole(batch):
            return len(batch[0]), len(batch[0])
        assert isinstance(batch, Part)
        return batch.examples // self.size, -(-batch.examples // self.size)

    def check_memory(self, lacking: str) -> None:
        """Give up where one of several ranks ran out of memory: the others would not try again. Raises OutOfMemory."""
        if self.size > 1:
            hint = "try trainer.microbatch, or a smaller data.batch_size"
            raise OutOfMemory(f"out of memory on rank {self.rank}: {lacking}; {hint}")

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Put the mean over ranks in each tensor's place, by one all-reduce. Nothing waits for a GPU."""
        if self.size > 1:
            flat = torch.cat([tensor.detach().reshape(-1).to(tensors[0].dtype) for tensor in tensors])
            dist.all_reduce(flat)
            flat /= self.size
            for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
                tensor.copy_(mean.view_as(tensor))

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over ranks."""
        if self.size > 1:
            tensor = tensor.clone()
            dist.all_reduce(tensor)
        return tensor

    def highest(self, numbers: Sequence[int]) -> list[int]:
        """Of each number the highest that a rank has."""
        if self.size == 1:
            return list(numbers)
        common = torch.tensor(numbers)
        dist.all_reduce(common, op=dist.ReduceOp.MAX, group=self.prompt)
        return common.tolist()

    def gather(self, own: T) -> list[T]:
        """What each rank has, in their order."""
        if self.size == 1:
            return [own]
        every: list[Any] = [None] * self.size
        dist.all_gather_object(every, own)
        return every

    def meet(self) -> None:
        """Wait for all, after work that may take one of them longer than another."""
        if self.size > 1:
            dist.barrier(group=self.patient)

    def once(self, work: Callable[[], T]) -> T:
        """Have the first rank do some work, and tell all what came of it: a result or an error. They are patient."""
        if self.size == 1:
            return work()
        outcome: list[Any] = [None, None]
        if self.leads:
            try:
                outcome[0] = work()
            except Exception as error:
                outcome[1] = error
        dist.broadcast_object_list(outcome, device=torch.device("cpu"), group=self.patient)
        if outcome[1] is not None:
            outcome[1].is_told = not self.leads
            raise outcome[1]
        result: T = outcome[0]
        return result


@contextmanager
def joined(device: torch.device, roll: Roll | None = None) -> Iterator[Ranks]:
    """The ranks of a roll, which is called where there is none yet; this process alone where there are no others.

    After an error connections end with the process alone: the others are to see its exit code first.
    """
    roll = roll or call_roll()
    if roll is None:
        yield Ranks()
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    ranks = Ranks(roll.rank, roll.size, roll=roll)
    _connect(device, ranks, roll)
    yield ranks
    ranks.meet()  # or else one that has less to do would end, and be taken for one that failed
    dist.destroy_process_group()


def _connect(device: torch.device, ranks: Ranks, roll: Roll) -> None:
    """Make the groups. What is late on GPUs has NCCL abort the process: decisions are to notice before."""
    limit, patience = timedelta(seconds=roll.timeout), timedelta(seconds=roll.patience)
    on_gpus = device.type == "cuda"
    several: dict[str, Any] = {"store": roll.store, "rank": roll.rank, "world_size": roll.size}
    dist.init_process_group(BACKENDS[device.type], timeout=patience if on_gpus else limit, **several)
    ranks.patient = dist.new_group(backend="gloo", timeout=patience)
    if on_gpus:
        ranks.prompt = dist.new_group(backend="gloo", timeout=limit)
