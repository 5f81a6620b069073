"""Weights & Biases."""

import netrc
import os
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

KEYS = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")


class wandb:  # noqa: N801 (as it is chosen)
    """A run of Weights & Biases, whose files are in the run folder's `wandb/`; a resumed run goes on with it.

    `mode` is online, offline, shared or disabled; null is WANDB_MODE, or else online where a key is known and offline
    where none is: nothing ever asks for one. `wandb sync FOLDER/wandb/offline-run-*` uploads later. The other keywords
    are those of `wandb.init`. Raises ValueError.
    """

    def __init__(
        self,
        *,
        project: str = "dltrain",
        entity: str | None = None,
        group: str | None = None,
        tags: list[str] | None = None,
        mode: str | None = None,
    ) -> None:
        try:
            import wandb as client
        except ImportError as error:
            raise ValueError("the package wandb is not installed: pip install wandb") from error
        self.client: Any = client
        knows_a_key = _knows_a_key(client.Settings().base_url)
        mode = mode or os.environ.get("WANDB_MODE") or ("online" if knows_a_key else "offline")
        if mode not in ("online", "offline", "shared", "disabled"):
            raise ValueError(f"mode={mode}: choose online, offline, shared or disabled")
        if mode in ("online", "shared") and not knows_a_key:
            raise ValueError(f"mode={mode} needs a key: run wandb login once, or set WANDB_API_KEY")
        self.choices = {"project": project, "entity": entity, "group": group, "tags": tags, "mode": mode}

    def start(self, folder: Path, *, name: str, config: dict[str, Any]) -> str | None:
        """Begin a run of this name, or go on with the one whose id the folder keeps."""
        kept = folder / "wandb" / "id"
        kept.parent.mkdir(exist_ok=True)
        if not kept.is_file():
            kept.write_text(uuid.uuid4().hex[:12])
        self.run = self.client.init(
            id=kept.read_text(),
            resume="allow" if self.choices["mode"] == "online" else None,
            name=name,
            dir=str(folder),
            settings=self.client.Settings(silent=True, console="off"),
            **self.choices,
        )
        self.run.config.update(config, allow_val_change=True)
        self.run.define_metric("*", step_metric="step")  # theirs only grows, ours may go back
        return self.run.url if self.choices["mode"] == "online" else f"{Path(self.run.dir).parent}, by wandb sync"

    def add(self, row: dict[str, Any]) -> None:
        """Log a row; null is left out."""
        numbers = {f"{row['split']}/{key}": value for key, value in row.items() if key not in ("split", "step")}
        known = {key: value for key, value in numbers.items() if value is not None}
        self.run.log({"step": row["step"], **known})

    def close(self, status: str) -> None:
        """Finish the run; it has failed there unless it is completed."""
        self.run.finish(exit_code=0 if status == "completed" else 1)


def _knows_a_key(server: str) -> bool:
    """Whether W&B would find a key for its server without asking for one."""
    host = urlsplit(server).hostname
    try:
        known = netrc.netrc(os.environ.get("NETRC")).hosts
    except (OSError, netrc.NetrcParseError):
        known = {}
    return host in known or any(os.environ.get(key) for key in KEYS)
