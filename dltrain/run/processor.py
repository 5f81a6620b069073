"""How much of the processor other processes use, which holds up threads that wait for each other."""

import multiprocessing
import os
import time
from pathlib import Path

MANY = 0.3  # cores


class Processor:
    """Counts from when it was made. Linux tells; elsewhere nothing is known, nor where ranks are taken for others."""

    def __init__(self, *, alone: bool = True) -> None:
        self.begun, self.seconds = time.monotonic(), _by_others() if alone else None

    def used_by_others(self) -> float | None:
        """Cores that other processes kept busy on average; None where that cannot be told."""
        now, elapsed = _by_others(), time.monotonic() - self.begun
        if now is None or self.seconds is None or elapsed <= 0:
            return None
        return max(0.0, (now - self.seconds) / elapsed)

    def words(self, *, threads: int) -> str | None:
        """What to say where that hinders so many threads."""
        others = self.used_by_others()
        if others is None or others < MANY or threads == 1:
            return None
        return (
            f"other processes keep {others:.1f} of {os.cpu_count()} cores busy, and threads wait for each other: "
            f"alone it is faster, up to several times, and device.threads={max(1, threads - 1)} may be now"
        )


def _by_others() -> float | None:
    """Seconds of all cores that were spent on other processes, or by the host on other machines."""
    stat = Path("/proc/stat")
    if not stat.is_file():
        return None
    user, nice, system, _, _, irq, softirq, steal, *_ = map(int, stat.read_text().split("\n", 1)[0].split()[1:])
    ticks = os.sysconf("SC_CLK_TCK")
    own = sum(os.times()[:4]) + sum(_of(child.pid) for child in multiprocessing.active_children()) / ticks
    return (user + nice + system + irq + softirq + steal) / ticks - own


def _of(pid: int | None) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has ended meanwhile
        return 0
    return int(fields[11]) + int(fields[12])
