"""Small engines: a network with batch norm and dropout, an optimizer from its YAML, batches of noise."""

from typing import Any

import torch
from helpers import CONF
from omegaconf import DictConfig, OmegaConf
from torch import Generator, Tensor, nn

from dltrain.build.optimizer import make_optimizer, optimizer_maker
from dltrain.data.augment import crop_flip
from dltrain.data.batches import Batches
from dltrain.data.preparation import Pixels
from dltrain.engine import Engine, Precision, Ranks
from dltrain.engine.strategies import strategy_of
from dltrain.losses import cross_entropy, l2_penalty
from dltrain.metrics import correct

CLASSES = 3


def network(*, norm: bool = True, dropout: float = 0.3) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.BatchNorm2d(4) if norm else nn.Identity(),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(4 * 6 * 6, 8),
        nn.Linear(8, CLASSES),
    )


def optimizer(model: nn.Module, option: str, **changes: Any) -> torch.optim.Optimizer:
    return make_optimizer(node(option, **changes), model, "fp32")


def node(option: str, **changes: Any) -> DictConfig:
    """The configuration of an optimizer."""
    loaded = OmegaConf.load(CONF / "optim" / f"{option}.yaml")
    return OmegaConf.create({"optim": {**loaded, "decay_bias_and_norm": False, **changes}}).optim


def engine(
    option: str = "sgd",
    model: nn.Module | None = None,
    *,
    precision: str | Precision = "fp32",
    lr: float | None = None,
    kind: type[Engine] = Engine,
    ranks: Ranks | None = None,
    strategy: str = "ddp",
    l2: float = 0.0,
    **changes: Any,
) -> Engine:
    model = network() if model is None else model
    how = strategy_of(strategy, ranks or Ranks())
    how.divide(model)
    held = how.held(model)
    device = next(held.parameters()).device
    keywords: dict[str, Any] = {
        "loss": cross_entropy(num_classes=CLASSES),
        "metrics": {"accuracy": correct},
        "schedule": lambda step: 1.0,
        "precision": Precision(precision, device) if isinstance(precision, str) else precision,
        "penalty": l2_penalty(held, l2=l2),
        **changes,
    }
    chosen = (node(option, **({} if lr is None else {"lr": lr})), held, keywords["precision"].name)
    stepping = how.share(make_optimizer(*chosen), optimizer_maker(*chosen))
    return kind(model, stepping, strategy=how, **keywords)


def batches(count: int = 45, *, batch_size: int = 10, augmented: bool = True, **changes: Any) -> Batches:
    """Batches of noise whose first pixels tell the class; 45 examples are four batches of 10 and one of 5."""
    generator = Generator().manual_seed(0)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    images = torch.randint(256, (count, 2, 8, 8), generator=generator, dtype=torch.uint8)
    images[:, 0, :4, :4] = (100 * labels)[:, None, None].to(torch.uint8)
    return Batches(
        images,
        labels,
        batch_size=batch_size,
        prepare=Pixels(image_size=8, mean=torch.tensor(128.0), deviation=torch.tensor(64.0)),
        shuffle=augmented,
        augment=crop_flip(padding=1) if augmented else None,
        **changes,
    )


def first_batch() -> tuple[Tensor, Tensor]:
    return next(batches(augmented=False).epoch(0))


def poisoned(value: float = float("nan")) -> tuple[Tensor, Tensor]:
    """A batch with one pixel that is not a number."""
    images, labels = first_batch()
    images[0, 0, 0, 0] = value
    return images, labels


def equal(left: Any, right: Any) -> bool:
    """Whether two nested states are the same to the last bit."""
    if isinstance(left, Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(equal, left, right))
    return left == right
