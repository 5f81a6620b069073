"""Several ranks of one run on this machine, started and watched over by torchrun's elastic agent."""

import logging
import math
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from dltrain.config.compose import Composition
from dltrain.config.errors import ConfigError
from dltrain.run.signals import EXIT_CODES, hear_once, listening, unheard
from dltrain.verbs._guarded import guarded

SIGNALS = "SIGINT,SIGTERM,SIGUSR1"  # a hangup kills the launcher, and stops the ranks like that
OWN_WORK_SECONDS = 10  # that a rank may take besides its grace
LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


class RankLost(Exception):  # noqa: N818
    """A rank ended without a word."""

    exit_code = 1


def run_ranks(composition: Composition, work: Callable[..., int], **keywords: Any) -> int:
    """Do some work with a composition, on as many ranks as it asks for; returns the exit code of what ended them.

    One rank is this process, and so is each of those that torchrun has started. `work` is a function of a module.
    Raises ConfigError where there are too few devices, and RankLost where a rank was killed.
    """
    if composition.config.device.count == 1 or "RANK" in os.environ:
        return work(composition, **keywords)
    return _launch(composition, work, keywords)


def _launch(composition: Composition, work: Callable[..., int], keywords: dict[str, Any]) -> int:
    """Start the ranks as new processes, which talk on the loopback interface alone."""
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    count = composition.config.device.count
    _check_devices(composition.config.device.name, count)
    for library in ("GLOO", "NCCL"):
        os.environ.setdefault(f"{library}_SOCKET_IFNAME", LOOPBACK)
    grace = composition.config.trainer.grace_seconds + OWN_WORK_SECONDS
    os.environ["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = str(math.ceil(grace))
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # no stack of C++ where a connection ends
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id="dltrain",
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        start_method="forkserver",  # of a process that has imported torch for all of them
        logs_specs=DefaultLogsSpecs(),
    )
    config.signals_to_handle = SIGNALS
    _silence()
    _start_server()
    try:
        elastic_launch(config, rank)(work, composition, keywords)
    except SignalException as stop:
        for child in multiprocessing.active_children():  # after a third signal
            child.kill()
        return EXIT_CODES[stop.sigval]
    except ChildFailedError as error:
        return _code({number: failure.exitcode for number, failure in error.failures.items()})
    return 0


def rank(work: Callable[..., int], composition: Composition, keywords: dict[str, Any]) -> None:
    """Be one of the ranks, to the exit code of its work."""
    hear_once()
    threading.Thread(target=_end_with_the_launcher, daemon=True).start()
    with listening():
        code = guarded(lambda: work(composition, **keywords))
    sys.exit(code)


def _end_with_the_launcher() -> None:
    """Stop where the launcher was killed, which could not pass that on."""
    launcher = multiprocessing.parent_process()
    assert launcher is not None
    launcher.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _start_server() -> None:
    """Start what ranks are forked from; signals wait until it has imported all, or they would meet half-made ranks."""
    from dltrain.sweep.launcher import start_server

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dltrain.build", "dltrain.verbs._start"])
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


def _code(ended: dict[int, int]) -> int:
    """Of ranks that ended with some code that which says why; the others have then lost one that they wait for."""
    for number, code in ended.items():
        if code < 0:
            name = signal.Signals(-code).name
            raise RankLost(f"rank {number} was killed by {name}: all were ended; dltrain resume goes on")
    return max(ended.values())


def _check_devices(name: str, count: int) -> None:
    """Refuse more ranks than there are GPUs for."""
    import torch

    from dltrain.engine import select

    kind = select(name).type
    there = torch.cuda.device_count() if kind == "cuda" else 1 if kind == "mps" else count
    if count > there:
        raise ConfigError(f"device.count={count}: there {'are' if there > 1 else 'is'} {there} {kind} here")
