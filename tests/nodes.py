"""Nodes on this machine: processes that are torchrun's agent, as `torchrun ... -m dltrain ...` is on each node."""

import os
import signal
from pathlib import Path
from typing import Any

import faults


def start(*words: str, ranks: int, nodes: int = 1, restarts: int = 0, port: str = "0", dies_at: int = 0) -> Any:
    """Start a node with its ranks, the last of which dies after a step, in their first start alone."""
    arguments = (words, str(Path.cwd()), ranks, nodes, restarts, port, dies_at)
    process = faults.CONTEXT.Process(target=_node, args=arguments)
    process.start()
    return process


def _node(words: tuple[str, ...], where: str, ranks: int, nodes: int, restarts: int, port: str, at: int) -> None:
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.setpgid(0, 0)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo0" if os.uname().sysname == "Darwin" else "lo"
    config = LaunchConfig(
        min_nodes=nodes,
        max_nodes=nodes,
        nproc_per_node=ranks,
        run_id="launch",
        rdzv_backend="c10d",
        rdzv_endpoint=f"127.0.0.1:{port}",
        local_addr="127.0.0.1",
        max_restarts=restarts,
        start_method="fork",
    )
    elastic_launch(config, faults._child)(words, where, "step" * (at > 0), at, die_in_first_start, faults.nothing)


def die_in_first_start() -> None:
    if os.environ["LOCAL_RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        faults.die()
