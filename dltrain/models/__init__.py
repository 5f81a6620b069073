"""The networks that `model=` can name: all that the modules of this package list in `__all__`.

A module without `__all__` (`layers`, `summary`) helps the others and offers no network.
"""

import pkgutil
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from torch import nn


def _collect() -> dict[str, Callable[..., nn.Module]]:
    networks: dict[str, Callable[..., nn.Module]] = {}
    for info in pkgutil.iter_modules(__path__):
        module = import_module(f"{__name__}.{info.name}")
        for name in getattr(module, "__all__", ()):
            networks[name] = getattr(module, name)
    return networks


# Only now that all modules are loaded: `lenet`, the network, takes the place of `lenet`, the module.
_networks = _collect()
__all__ = list(_networks)
globals().update(_networks)

if TYPE_CHECKING:

    def __getattr__(name: str) -> Callable[..., nn.Module]: ...
