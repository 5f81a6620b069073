"""What the configuration of a sweep's job has at a key that its own words do not name."""

from pathlib import Path

from dltrain.config.compose import Composition
from dltrain.config.errors import ConfigError
from dltrain.config.plain import settings
from dltrain.config.tree import container, leaves, spoken
from dltrain.run.listing import choices


def configured(key: str, composition: Composition | ConfigError | None, folder: Path) -> str | None:
    """The value of a group or of a dotted key, from the composition or else the run's folder; None where neither is."""
    if isinstance(composition, Composition):
        known = {**dict(leaves(container(composition.config))), **composition.choices}
    elif (path := folder / "config.yaml").is_file():
        known = {**settings(path), **choices(path)}
    else:
        return None
    return spoken(known[key]).replace(", ", ",") if key in known else None
