"""dltrain trains the networks of the deep-learning course notes from composed Hydra configs."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """Import `load` on first use, so that `import dltrain` costs nothing."""
    if name != "load":
        raise AttributeError(f"module 'dltrain' has no attribute {name!r}")
    from dltrain.trained import load

    return load
