"""Ranks on several nodes, which must have disk and data in common, and ranks that torchrun starts again.

It does that to all where one has failed (--max-restarts), and where a node joins: they go on with their run.
"""

import glob
import os
import platform
import tempfile
from pathlib import Path

from dltrain.build import Run
from dltrain.config import stored
from dltrain.config.compose import Composition
from dltrain.config.errors import ConfigError
from dltrain.config.tree import container
from dltrain.engine import Ranks
from dltrain.run.folder import read_json, writing

APART = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"  # for torchrun: ranks meet in a store that is new at every start
NO_ID = "none"  # what torchrun calls a launch that was given no id


def launch_id() -> str | None:
    """That of the launch by torchrun that started this process and may start it again; None where none does."""
    return os.environ["TORCHELASTIC_RUN_ID"] if int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) else None


def restarts(ranks: Ranks) -> int:
    """How often ranks of this launch have failed; all must come to it."""
    return ranks.highest([int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))])[0]


def begun(parent: Path, composition: Composition, ranks: Ranks) -> Path | None:
    """The run without a name that an earlier start of this launch has begun; all must come to it.

    A complete one is it only after a restart: else somebody has used the id before. Raises ConfigError where the ranks
    could be started again and would not know their run.
    """
    again = restarts(ranks) > 0
    return ranks.once(lambda: _begun(parent, composition, complete=again))


def _begun(parent: Path, composition: Composition, *, complete: bool) -> Path | None:
    if (number := launch_id()) is None:
        return None
    if number == NO_ID:
        raise ConfigError("--max-restarts: ranks that start again must know their run; add --rdzv-id=ID, or name=NAME")
    alike = glob.escape(f"-{composition.choices['model']}-{composition.choices['optim']}")
    for folder in sorted(parent.glob(f"*{alike}*"), reverse=True):
        if (read_json(folder / "environment.json") or {}).get("launch") == number:
            config = container(stored.read(folder / "config.yaml").config)
            same = stored.changes(config, container(composition.config)).keys() <= {"device.count"}
            return folder if same and (complete or status(folder) != "completed") else None
    return None


def status(folder: Path) -> str | None:
    """How the run in a folder ended; None where it has not."""
    return (read_json(folder / "summary.json") or {}).get("status")


def check(folder: Path, ranks: Ranks) -> None:
    """Refuse a folder that the nodes do not share: each rank reads checkpoints from it. All must come to it.

    And restarts in which ranks could meet the addresses of those before them. Raises ConfigError.
    """
    if ranks.size == int(os.environ.get("LOCAL_WORLD_SIZE", "1")):
        return
    ranks.once(check_restarts)
    mark = ranks.once(lambda: _mark(folder))
    places = ranks.gather((platform.node(), (folder / mark).exists()))
    ranks.once(lambda: (folder / mark).unlink(missing_ok=True))
    for rank, (node, seen) in enumerate(places):
        if not seen:
            first, _ = places[0]
            raise ConfigError(
                f"{folder.absolute()}: what rank 0 writes there on {first}, rank {rank} on {node} does not see; "
                "outputs_dir must be on a disk that all nodes share"
            )


def check_restarts() -> None:
    """Refuse restarts of several nodes where the store keeps what ranks have left there. Raises ConfigError."""
    if launch_id() is not None and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        raise ConfigError(f"--max-restarts on several nodes: new ranks could wait for dead ones; set {APART}=1")


def _mark(folder: Path) -> str:
    """Make a file; returns its name."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, path = tempfile.mkstemp(prefix=".nodes-", dir=folder)
        os.close(descriptor)
    return Path(path).name


def check_data(run: Run) -> None:
    """Refuse data that are not the same for all ranks, each of which reads them for itself. Raises ConfigError."""
    fingerprints = run.engine.ranks.gather(run.data_fingerprint)
    for rank, fingerprint in enumerate(fingerprints):
        if fingerprint != fingerprints[0]:
            raise ConfigError(f"data={run.config.data.name}: those of rank {rank} are not those of rank 0")
