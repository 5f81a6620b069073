"""Walking a configuration: its keys, its values, and the texts in them."""

import json
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf


def container(config: DictConfig, *, resolve: bool = False) -> dict[str, Any]:
    """The configuration as plain values, without what is Hydra's."""
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    plain: Any = OmegaConf.to_container(own, resolve=resolve)
    return dict(plain)


def leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values; an empty mapping and None are leaves too."""
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def texts(value: Any) -> list[str]:
    """The texts of a value and of all that it holds."""
    if isinstance(value, dict):
        return texts([*value, *value.values()])
    if isinstance(value, list):
        return [text for each in value for text in texts(each)]
    return [value] if isinstance(value, str) else []


def spoken(value: Any) -> str:
    """A value as the command line writes it."""
    return value if isinstance(value, str) else json.dumps(value)
