"""Which part of a step to look at first."""

from collections.abc import Mapping, Sequence

from dltrain.run.console import quantity


def bottleneck(
    shares: Mapping[str, float],
    *,
    operations: int,
    flops_per_second: float,
    waits: Sequence[str] = (),
    making_waits: Sequence[str] = (),
    asynchronous: bool = False,
) -> str:
    """What takes most of the time, in words, and what to do about it where something can be done.

    `shares` are those of a Pace; `operations` of a step, and the places at which it and the making of a batch wait for
    the device, are those of a Probe. Such a place stalls an asynchronous device. To a CPU it means nothing, so it is
    said of a GPU.
    """
    largest = max(shares, key=lambda name: shares[name])
    share = f"{100 * shares[largest]:.0f} % of the time"
    update = "" if asynchronous else " and the update of the weights"
    words = {
        "data": f"waiting for data, {share}",
        "recording": f"recording, {share}: see trainer.log_every and trainer.checkpoint_every",
        "overhead": f"the batch is too small: {share} is the overhead of {operations} operations a step"
        f"{update}, not arithmetic; raise data.batch_size",
        "computing": f"computing, {share}, at {quantity(flops_per_second, 'FLOP/s')}",
    }
    in_a_step = _waiting(waits, "every step", asynchronous)
    in_a_batch = _waiting(making_waits, "the making of every batch", asynchronous)
    return "; ".join([words[largest], *in_a_step, *in_a_batch])


def _waiting(waits: Sequence[str], where: str, asynchronous: bool) -> list[str]:
    if not waits:
        return []
    first, *others = dict.fromkeys(waits)
    more = f" (and {len(others)} more)" if others else ""
    effect = "makes the device wait for the host" if asynchronous else "would make a GPU wait for the host"
    return [f"{first}{more} reads a result in {where}, which {effect}"]
