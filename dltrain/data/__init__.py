"""Data sets by name (`data=` chooses one of `__all__`); what is done with them stands in the other modules."""

from .cifar10 import cifar10
from .fashion_mnist import fashion_mnist
from .idx import idx
from .synthetic import synthetic

__all__ = ["cifar10", "fashion_mnist", "idx", "synthetic"]
