"""How fast a step could be at most, by arithmetic and by memory, and how near to that it comes."""

from statistics import median
from typing import Any, NamedTuple

NUMBER_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
WEIGHT_BYTES = 4  # weights and gradients stay in float32


class Floor(NamedTuple):
    """Images a second: reached, and if a step were its matrix products or its traffic alone; None where unknown."""

    rate: float | None
    products: float | None
    memory: float | None

    @property
    def mfu(self) -> float | None:
        """Model FLOP/s utilization: what is reached of the rate of matrix products. Source: PaLM, appendix B."""
        return self.rate / self.products if self.rate and self.products else None

    @property
    def share(self) -> float | None:
        """What is reached of the lower of the two."""
        known = [most for most in (self.products, self.memory) if most]
        return self.rate / min(known) if known and self.rate else None


def floor(result: dict[str, Any], machine: dict[str, Any]) -> Floor:
    """The floor of a result's step on a machine."""
    operations, moved = machine["matmul_flops_per_second"].get(result["precision"]), moved_bytes(result)
    return Floor(
        rate=result["images"] / median(result["seconds"]) if result["seconds"] else None,
        products=operations / result["train_flops_per_image"] if operations else None,
        memory=machine["copy_bytes_per_second"] / moved if moved else None,
    )


def moved_bytes(result: dict[str, Any]) -> float | None:
    """Bytes that plain SGD moves for an image if every layer runs by itself; None where a file does not tell.

    A layer's output is written and read once forward, and its gradient once backward. Weights are read forward and
    backward, gradients written, and the update reads both and writes weights: all of that once a batch.
    """
    if "outputs_per_image" not in result:
        return None
    outputs = 4 * result["outputs_per_image"] * NUMBER_BYTES[result["precision"]]
    return float(outputs + 6 * result["parameters"] * WEIGHT_BYTES / result["batch_size"])
