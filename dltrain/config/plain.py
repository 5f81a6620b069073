"""The configuration of a run that is there already, as plain values: quick, for a look at a thousand of them."""

from pathlib import Path
from typing import Any

from dltrain.config.errors import ConfigError
from dltrain.config.tree import leaves


def settings(path: Path) -> dict[str, Any]:
    """Dotted keys and values. Raises ConfigError."""
    import yaml

    try:
        content = yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no configuration")
    return dict(leaves(content))
