"""Walking a configuration: its keys, its values, and the texts in them."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig


def container(config: "DictConfig", *, resolve: bool = False) -> dict[str, Any]:
    """The configuration as plain values, without what is Hydra's."""
    from omegaconf import OmegaConf

    plain: Any = OmegaConf.to_container(own(config), resolve=resolve)
    return dict(plain)


def own(config: "DictConfig") -> "DictConfig":
    """The configuration without what is Hydra's."""
    if "hydra" not in config:
        return config
    from omegaconf import OmegaConf

    ours: DictConfig = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    return ours


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
