"""Optional sinks of rows, beside the record: a class a file, which `dltrain.loggers.several` guards."""

from .mlflow import mlflow
from .tensorboard import tensorboard
from .wandb import wandb

__all__ = ["mlflow", "tensorboard", "wandb"]
