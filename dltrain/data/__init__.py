"""Data sets by name (`data=` chooses one of `__all__`): those of the modules here that list their own name.

Other modules help them, or say what is done with examples.
"""

import pkgutil
from collections.abc import Callable
from importlib import import_module
from typing import Any

NETWORK = "download"  # which imports more than all else, and is needed where something is missing


def _collect() -> dict[str, Callable[..., Any]]:
    names = [info.name for info in pkgutil.iter_modules(__path__) if info.name != NETWORK]
    modules = {name: import_module(f"{__name__}.{name}") for name in names}
    return {name: getattr(module, name) for name, module in modules.items() if name in getattr(module, "__all__", ())}


_sets = _collect()
__all__ = list(_sets)
globals().update(_sets)
