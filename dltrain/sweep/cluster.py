"""Jobs on a Slurm cluster, through submitit: an array of tasks; one that must give way goes on later."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

from dltrain.config.errors import ConfigError
from dltrain.run.signals import EXIT_CODES, Interrupted, asked, leave, stoppable
from dltrain.sweep.launcher import KILL_AFTER_SECONDS, Outcome, Work, said
from dltrain.sweep.slots import Slot

POLL_SECONDS = {"slurm": 5.0, "local": 0.2}
SECOND_SIGNAL_SECONDS = 3.0  # Slurm asks with SIGTERM and, where the job may come again, with SIGUSR2 too
ANY_NUMBER = 10_000  # of times that a job may run out of its minutes


@dataclass(frozen=True)
class Task:
    """What submitit pickles: one job, which it may run several times."""

    work: Work
    job: Any
    slot: Slot
    timeout: float | None = None
    grace_seconds: float = 20.0

    def __call__(self) -> tuple[int, str]:
        """Run the job; returns its exit code and what went wrong.

        Where the cluster takes the node back (SIGUSR2), the job saves and ends, and submitit puts it into the queue
        again, from which it goes on. One that takes longer than the timeout, since it last began, ends as failed.
        """
        requeue: Any = signal.getsignal(signal.SIGUSR2)
        preempted: list[int] = []

        def preempt(number: int, frame: FrameType | None) -> None:
            preempted.append(number)
            stop: Any = signal.getsignal(signal.SIGTERM)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if not asked:  # by a SIGTERM just before
                stop(signal.SIGTERM, frame)

        signal.signal(signal.SIGUSR2, preempt)
        late: list[str] = []
        done = threading.Event()
        threading.Thread(target=self._end_in_time, args=(done, late), daemon=True).start()
        code, message = self._run()
        done.set()
        if late:
            return 1, late[0]
        if asked and not preempted:
            time.sleep(SECOND_SIGNAL_SECONDS)
        if preempted and code in (130, 143):
            requeue(signal.SIGUSR2, None)
        return code, message

    def _end_in_time(self, done: threading.Event, late: list[str]) -> None:
        """Have the job save and end once its time is over; where it is deaf, just end."""
        if not done.wait(self.timeout):
            late.append(f"timeout: no end within {self.timeout:g} s")
            os.kill(os.getpid(), signal.SIGTERM)
            if not done.wait(self.grace_seconds + KILL_AFTER_SECONDS):
                leave(EXIT_CODES[signal.SIGTERM])

    def checkpoint(self) -> Any:
        """What submitit runs when the job comes again: the same, which goes on from its last checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _run(self) -> tuple[int, str]:
        try:
            with stoppable():
                return self.work(self.job, self.slot), ""
        except Interrupted as interruption:
            return interruption.exit_code, ""
        except Exception as error:
            kind = "" if hasattr(error, "exit_code") else f"{type(error).__name__}: "
            return getattr(error, "exit_code", 1), f"{kind}{' '.join(str(error).split())}"


@dataclass
class Submitted:
    """A job that is queued or runs."""

    job: Any
    task: Any
    started: float = field(default_factory=time.monotonic)
    stopped: str = ""

    def stop(self, why: str, *, grace_seconds: float) -> None:
        """Cancel it, for a reason; while it runs it saves before it ends."""
        if not self.stopped:
            self.stopped = why
            self.task.cancel(check=False)

    def outcome(self) -> Outcome:
        """How it ended, once it did."""
        from submitit.core.utils import FailedJobError, UncompletedJobError

        if self.stopped and not self.task.paths.result_pickle.exists():
            return Outcome(143, "", self.stopped)  # submitit would wait for a result for a while
        try:
            code, message = self.task.result()
            return Outcome(code, message or (said(self.task.paths.stderr) if code else ""), self.stopped)
        except (FailedJobError, UncompletedJobError) as error:
            words = " ".join(str(error).split("\n")[0].split())
            return Outcome(143 if self.stopped else 1, f"{words}; see {self.task.paths.stderr}", self.stopped)


def check(configs: Sequence[Any]) -> None:
    """Raise ConfigError where jobs cannot be sent from here as their configurations ask, the first one's `sweep`."""
    executor()
    sweep = configs[0].sweep
    for device in (config.device for config in configs):
        if device.name != "cpu" and device.count > max(1, sweep.slurm.gpus):
            raise ConfigError(f"device.count={device.count}: a job asks for sweep.slurm.gpus={sweep.slurm.gpus}")
    if sweep.jobs != "auto":
        raise ConfigError(f"sweep.jobs={sweep.jobs}: of a cluster's jobs, sweep.slurm.at_once run at a time")
    missing = [name for name in ("sbatch", "srun") if shutil.which(name) is None]
    if sweep.launcher == "submitit_slurm" and missing:
        raise ConfigError(f"sweep.launcher=submitit_slurm: there is no {missing[0]} here; start it where Slurm is")


def executor() -> Any:
    """What submitit submits with. Raises ConfigError where it is missing."""
    try:
        from submitit import AutoExecutor
    except ImportError as error:
        raise ConfigError("hydra/launcher=submitit_slurm needs submitit: pip install submitit") from error
    return AutoExecutor


class ClusterLauncher:
    """Has submitit run jobs, `most` at a time; as `Launcher` does it here. `cluster` is slurm, or local to try it."""

    def __init__(self, work: Work, config: Any, folder: Path, *, cluster: str, all_known: bool) -> None:
        """Where all jobs are known beforehand they are one array. Raises ConfigError where submitit is missing."""
        slurm, self.work, self.most = config.sweep.slurm, work, config.sweep.slurm.at_once
        self.all_known, self.wait_seconds = all_known, POLL_SECONDS[cluster]
        gpus = 0 if config.device.name == "cpu" else slurm.gpus
        self.slot = Slot(slurm.cpus)
        self.executor: Any = executor()(folder / "submitit", cluster=cluster, slurm_max_num_timeout=ANY_NUMBER)
        self.executor.update_parameters(
            name="dltrain", timeout_min=slurm.minutes, cpus_per_task=slurm.cpus, gpus_per_node=gpus,
            mem_gb=slurm.memory_gb, slurm_array_parallelism=self.most,
            **{f"slurm_{key}": slurm[key] for key in ("partition", "account") if slurm[key]},
        )  # fmt: skip
        self.timeout, self.grace_seconds = config.sweep.timeout, config.trainer.grace_seconds
        self.running: list[Submitted] = []

    def run(
        self, jobs: Iterable[Any], *, received: Sequence[int] = (), look: Callable[[list[Any]], None] | None = None
    ) -> Iterator[tuple[Any, Outcome]]:
        """Each job and its outcome, as they end; once `received` holds a signal's exit code, all are cancelled."""
        waiting = iter(jobs)
        while True:
            if not received:
                self._submit(list(waiting if self.all_known else islice(waiting, self.most - len(self.running))))
            if not self.running:
                return
            time.sleep(self.wait_seconds)
            for each in self.running if received else ():
                each.stop("interrupted", grace_seconds=0.0)
            for ended in [each for each in self.running if each.task.done()]:
                self.running.remove(ended)
                yield ended.job, ended.outcome()
            if look:
                look(self.running)

    def _submit(self, jobs: list[Any]) -> None:
        if not jobs:
            return
        with self.executor.batch():  # which makes one array of them
            limits = self.timeout, self.grace_seconds
            tasks = [self.executor.submit(Task(self.work, job, self.slot, *limits)) for job in jobs]
        self.running += [Submitted(job, task) for job, task in zip(jobs, tasks, strict=True)]
