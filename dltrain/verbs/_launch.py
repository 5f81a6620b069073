"""Several ranks of one run on this machine, started and watched over by torchrun's elastic agent."""

import logging
import math
import multiprocessing
import os
import signal
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from dltrain.config.compose import Composition
from dltrain.config.errors import ConfigError
from dltrain.run.signals import (
    EXIT_CODES,
    asked,
    end,
    end_at_once,
    end_with_the_parent,
    hear_once,
    listening,
    unheard,
    wait_to_be_ended,
)
from dltrain.sweep.launcher import KILL_AFTER_SECONDS, LOST, start_server
from dltrain.sweep.slots import available_cores
from dltrain.verbs._guarded import guarded

SIGNALS = "SIGINT,SIGTERM,SIGUSR1"  # a hangup kills the launcher, and stops the ranks like that
OWN_WORK_SECONDS = 10  # that a rank may take besides its grace
PRELOAD = ("torch._dynamo", "torch.distributed.launcher.api")  # which ranks import that average gradients
FEW_RANKS = 8  # on a CPU, for which there need not be as many processors
LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


class RankLost(Exception):  # noqa: N818
    """A rank ended without a word."""

    exit_code = 1


def run_ranks(composition: Composition, work: Callable[..., int], *, forked: bool = False, **keywords: Any) -> int:
    """Do some work with a composition, on as many ranks as it asks for; returns the exit code of what ended them.

    One rank is this process, and so is each of those that torchrun has started. `work` is a function of a module.
    Ranks are `forked` from a process that has imported torch and run nothing with it, whose devices were counted
    without CUDA, which cannot be forked. Raises ConfigError where there are too few devices, and RankLost where a rank
    was killed.
    """
    if composition.config.device.count == 1 or "RANK" in os.environ:
        return work(composition, **keywords)
    if not forked:
        check_devices(composition.config.device.name, composition.config.device.count)
    return _launch(composition, work, keywords, forked=forked)


def _launch(composition: Composition, work: Callable[..., int], keywords: dict[str, Any], *, forked: bool) -> int:
    """Start the ranks as new processes, which talk on the loopback interface alone."""
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for library in ("GLOO", "NCCL"):
        os.environ.setdefault(f"{library}_SOCKET_IFNAME", LOOPBACK)
    grace = composition.config.trainer.grace_seconds + OWN_WORK_SECONDS
    os.environ["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = str(math.ceil(grace))
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # no stack of C++ where a connection ends
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=composition.config.device.count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        start_method="fork" if forked else "forkserver",  # of a process that has imported torch for all of them
        logs_specs=DefaultLogsSpecs(log_dir=os.devnull),  # or else it leaves folders in /tmp
    )
    config.signals_to_handle = SIGNALS
    _silence()
    if not forked:
        _start_server()
    code, told = multiprocessing.Pipe(duplex=False)
    try:
        with _own_signals():
            elastic_launch(config, rank)(work, composition, keywords, told)
    except SignalException as stop:
        asked.append(EXIT_CODES[stop.sigval])
        _end_the_rest(composition.config.trainer.grace_seconds)
        return int(code.recv()) if code.poll() else asked[-1]  # the run may have been at its end
    except ChildFailedError as error:
        ended = {number: failure.exitcode for number, failure in error.failures.items()}
        return int(code.recv()) if LOST in ended.values() and code.poll() else _code(ended)
    return 0


def rank(work: Callable[..., int], composition: Composition, keywords: dict[str, Any], told: Connection) -> None:
    """Be one of the ranks, to the exit code of its work, which the launcher is told of the first one."""
    hear_once()
    end_with_the_parent(composition.config.trainer.grace_seconds + KILL_AFTER_SECONDS)
    with listening():
        code = guarded(lambda: work(composition, **keywords))
    if os.environ["RANK"] == "0":
        told.send(code)
    end_at_once()
    for number in EXIT_CODES:
        signal.signal(number, lambda *_: end(code))
    if wait_to_be_ended(seconds=0):
        end(code)
    sys.exit(code)  # to torch, which waits for all ranks: for ever, once a signal has ended the agent


def _start_server() -> None:
    """Start what ranks are forked from; signals wait until it has imported all, or they would meet half-made ranks."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dltrain.build", "dltrain.verbs._start", *PRELOAD])
    with unheard():
        start_server()
        first = context.Process(target=int)
        first.start()
        first.join()


def _silence() -> None:
    """Have torch's agent log nothing: the ranks say themselves why they end."""
    for name in [*logging.root.manager.loggerDict]:
        if name.startswith(("torch.distributed.elastic", "torch.multiprocessing")):
            logging.getLogger(name).setLevel(logging.CRITICAL)


@contextmanager
def _own_signals() -> Iterator[None]:
    """Afterwards signals are heard as before, and no longer by the agent."""
    before = {number: signal.getsignal(number) for number in EXIT_CODES}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_the_rest(patience: float) -> None:
    """End the ranks that the agent does not know, since a signal came while it started them."""
    left = multiprocessing.active_children()
    for each in left:
        each.terminate()
    for each in left:
        each.join(patience)
        each.kill()


def _code(ended: dict[int, int]) -> int:
    """Of ranks that ended with some code that which says why; the others have then lost one that they wait for."""
    for number, code in ended.items():
        if code == LOST:
            raise RankLost("the server that ranks are forked from was killed: all were ended; dltrain resume goes on")
        if code < 0:
            name = signal.Signals(-code).name
            raise RankLost(f"rank {number} was killed by {name}: all were ended; dltrain resume goes on")
    return max(ended.values())


def check_devices(name: str, count: int) -> None:
    """Refuse more ranks than there are devices for on this machine. Raises ConfigError."""
    import torch

    from dltrain.engine import select

    kind = select(name).type
    most = {"cuda": torch.cuda.device_count(), "mps": 1}.get(kind, max(FEW_RANKS, available_cores()))
    if count > most:
        there = f"there {'are' if most > 1 else 'is'} {most} {kind} here"
        raise ConfigError(f"device.count={count}: {f'at most {most} ranks on this CPU' if kind == 'cpu' else there}")
