"""What the configurations of a sweep's jobs have: their own where they have begun, else what their words mean now."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dltrain.config.compose import Composition
from dltrain.config.errors import ConfigError
from dltrain.config.plain import settings
from dltrain.config.tree import container, leaves, spoken
from dltrain.run.folder import RunError
from dltrain.run.listing import choices

# What may differ between runs that are averaged: it changes nothing of what they learn, or is said beside them.
NO_SETTING = (
    "seed", "name", "outputs_dir", "sweep.", "logger", "device.threads", "data.workers", "data.resident_limit",
    "trainer.log_every", "trainer.checkpoint_every", "trainer.keep", "trainer.max_save_failures",
    "trainer.grace_seconds", "trainer.collective_timeout",
)  # fmt: skip
Compositions = Mapping[int, Composition | ConfigError]


class Configurations:
    """Those of the jobs of a sweep's folder, by number, `compositions` being of the jobs that are to run."""

    def __init__(self, folder: Path, compositions: Compositions) -> None:
        self.folder, self.compositions = folder, compositions
        self.known: dict[int, dict[str, Any]] = {}

    def value(self, number: int, key: str) -> str | None:
        """A job's value of a group or of a dotted key, as the command line writes it; None where it has none."""
        values = self._values(number)
        return spoken(values[key]).replace(", ", ",") if key in values else None

    def apart(self, found: Sequence[Mapping[str, str]]) -> list[str]:
        """The keys in which jobs differ that have the same settings, whatever their seeds."""
        first: dict[tuple[tuple[str, str], ...], dict[str, Any]] = {}
        keys: dict[str, None] = {}
        for number, each in enumerate(found):
            same = tuple(sorted((key, value) for key, value in each.items() if key != "seed"))
            values = self._values(number)
            known = first.setdefault(same, values)
            keys |= {key: None for key in values if key in known and values[key] != known[key]}
        named = {f"{key}.name" for key in keys}  # of a group, whose choice says as much
        return [key for key in keys if not key.startswith(NO_SETTING) and key not in {*found[0], *named}]

    def told_apart(self, found: list[dict[str, str]]) -> tuple[list[dict[str, str]], list[str]]:
        """Jobs' settings with what else tells them apart, and the keys of that."""
        keys = self.apart(found)
        for number, each in enumerate(found):
            values = {key: self.value(number, key) for key in keys}
            each.update({key: value for key, value in values.items() if value is not None})
        return found, keys

    def _values(self, number: int) -> dict[str, Any]:
        if number not in self.known:
            self.known[number] = self._read(number)
        return self.known[number]

    def _read(self, number: int) -> dict[str, Any]:
        path, composition = self.folder / str(number) / "config.yaml", self.compositions.get(number)
        if path.is_file():
            try:
                return {**settings(path), **choices(path)}
            except (ConfigError, RunError):  # of a damaged file, which the job itself will say
                return {}
        if isinstance(composition, Composition):
            return {**dict(leaves(container(composition.config))), **composition.choices}
        return {}
