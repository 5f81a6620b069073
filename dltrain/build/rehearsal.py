"""A step on blank inputs, before any data are decoded."""

import copy
from functools import partial

import torch
from torch import nn

from dltrain.components import worded
from dltrain.config.errors import ConfigError
from dltrain.data.facts import Served


def rehearse(model: nn.Module, served: Served, *, microbatch: int | None, batch_size: int) -> None:
    """Train a copy on blank inputs, so that what does not fit is refused before any data are decoded.

    Two examples stand for any number above one. (On the meta device this would import torch's compiler.)
    """
    key, examples = ("trainer.microbatch", microbatch) if microbatch else ("data.batch_size", batch_size)
    blank = served.blank(min(examples, 2))
    shape = "x".join(map(str, blank.shape[1:])) or "a number"
    where = f"the model cannot take inputs of {shape}; choose another model, or other data"
    if examples == 1:
        where = f"{key}=1: the model cannot train on a single input of {shape}"
    copied = copy.deepcopy(model).train()
    for module in copied.modules():
        if isinstance(module, nn.SyncBatchNorm):  # which in training insists on a GPU
            module.eval()
    with torch.no_grad():
        try:
            outputs = worded(where, partial(copied, blank))
        except (RuntimeError, IndexError) as error:
            raise ConfigError(f"{where}: {str(error).splitlines()[0]}") from error
    if outputs.shape != (expected := (len(blank), *served.output_shape)):
        raise ConfigError(f"the model makes {tuple(outputs.shape)} of {len(blank)} inputs, and must make {expected}")
