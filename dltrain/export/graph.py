"""A model with its preprocessing inside, as one module that a graph can be taken of."""

import copy

import torch
from torch import Tensor, nn

from dltrain.data.preparation import Pixels
from dltrain.data.resize import resize_matrix
from dltrain.trained import Trained


class Graph(nn.Module):
    """Images uint8 (N, C, H, W), as they are stored, to logits (N, num_classes).

    The operations are those of `Pixels`, in its order, so that eager results are the same to the bit. A resize is two
    matrix products, which no exporter has to know how to antialias, and which fix H and W.
    """

    mean: Tensor
    deviation: Tensor
    down: Tensor | None
    across: Tensor | None

    def __init__(self, model: nn.Module, pixels: Pixels, *, height: int, width: int) -> None:
        super().__init__()
        self.model = model
        side = pixels.image_size
        resized = (height, width) != (side, side)
        self.register_buffer("mean", pixels.mean)
        self.register_buffer("deviation", pixels.deviation)
        self.register_buffer("down", resize_matrix(height, side) if resized else None)
        self.register_buffer("across", resize_matrix(width, side) if resized else None)

    def forward(self, images: Tensor) -> Tensor:
        values = (images.float() - self.mean) / self.deviation
        if self.down is not None and self.across is not None:
            values = self.down @ (values @ self.across.T)
        logits: Tensor = self.model(values)
        return logits


def graph_of(trained: Trained, height: int, width: int) -> nn.Module:
    """The graph of a copy, as exporters leave traces on what they are given."""
    assert isinstance(trained.preparation, Pixels)
    model = copy.deepcopy(trained.model).requires_grad_(False)
    return Graph(model, trained.preparation, height=height, width=width).eval()


def program_of(trained: Trained, example: Tensor) -> torch.export.ExportedProgram:
    """The graph as torch.export takes it, for any number of images of the example's (N, C, H, W) sizes."""
    images = example[:1].repeat(2, 1, 1, 1)  # of a single one the exporter would take the number for a constant
    graph = graph_of(trained, *images.shape[-2:])
    return torch.export.export(graph, (images,), dynamic_shapes={"images": {0: torch.export.Dim("N")}})
