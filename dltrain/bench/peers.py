"""Trainers that people would use instead, where they are installed: the extra `bench`."""

import logging
import time
import warnings
from importlib.util import find_spec
from itertools import cycle, islice
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from dltrain.bench.contestants import Contestant, course_loaders
from dltrain.bench.machine import wait
from dltrain.bench.task import Work


def installed() -> list[type[Contestant]]:
    """The contestants whose package is there."""
    return [peer for package, peer in _peers().items() if find_spec(package)]


def absent() -> str:
    """What to say of those whose package is not there; nothing of none."""
    names = " and ".join(peer.name for package, peer in _peers().items() if not find_spec(package))
    return f"{names}: not installed, so not compared (the extra bench has them)" if names else ""


def _peers() -> dict[str, type[Contestant]]:
    return {"lightning": Lightning, "timm": Timm}


class Lightning(Contestant):
    """Lightning's Trainer around the same network, without logger, bar and checkpoints."""

    name = "Lightning"

    def __init__(self, work: Work, precision: str) -> None:
        super().__init__(work, precision)
        self.module = _lightning_module(work.model(), work.rate)
        for logger in [name for name in logging.root.manager.loggerDict if name.startswith("lightning")]:
            logging.getLogger(logger).setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module="lightning")
        self.train, self.test = course_loaders(work)

    def _trainer(self, **more: Any) -> Any:
        import lightning

        quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
        accelerator = {"cuda": "gpu"}.get(self.work.device.type, self.work.device.type)
        return lightning.Trainer(
            max_epochs=1,
            accelerator=accelerator,
            devices=1,
            num_sanity_val_steps=0,
            precision={"bf16": "bf16-mixed", "fp32": "32-true"}[self.precision],
            **dict.fromkeys(quiet, False),
            **more,
        )

    def steps(self, count: int) -> None:
        self.step_seconds(count)

    def step_seconds(self, count: int) -> float:
        """From the start of the first step to the end of the last: setting up a Trainer is no part of a step."""
        batches = list(islice(cycle(self.work.plain_batches), count))
        clock = _lightning_clock(self.work.device)
        self._trainer(callbacks=[clock]).fit(self.module, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
        self.losses = [self.module.last_loss.item()]
        return float(clock.end - clock.start)

    def epoch(self) -> None:
        self._trainer().fit(self.module, self.train, self.test)


def _lightning_clock(device: torch.device) -> Any:
    import lightning

    class Clock(lightning.Callback):  # type: ignore[misc,unused-ignore]
        """When the first step of a fit began, and when the last one ended."""

        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, number: int) -> None:
            if number == 0:
                wait(device)
                self.start = time.perf_counter()

        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, number: int) -> None:
            if trainer.is_last_batch:
                wait(device)
                self.end = time.perf_counter()

    return Clock()


def _lightning_module(model: nn.Module, rate: float) -> Any:
    import lightning

    class Module(lightning.LightningModule):  # type: ignore[misc,unused-ignore]
        """The network with its loss, as Lightning's documentation writes one."""

        def __init__(self) -> None:
            super().__init__()
            self.model, self.loss = model, nn.CrossEntropyLoss()

        def training_step(self, batch: Any, number: int) -> Any:
            images, labels = batch
            loss = self.loss(self.model(images), labels)
            self.last_loss = loss.detach()
            self.log("loss", loss, on_step=False, on_epoch=True)
            return loss

        def validation_step(self, batch: Any, number: int) -> None:
            images, labels = batch
            accuracy = (self.model(images).argmax(1) == labels).float().mean()
            self.log("accuracy", accuracy)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=rate)

    return Module()


class Timm(Contestant):
    """timm's loader with its defaults, its optimizer and meters, in the order of its training script."""

    name = "timm"

    def __init__(self, work: Work, precision: str) -> None:
        super().__init__(work, precision)
        from timm.data import create_loader
        from timm.optim import create_optimizer_v2
        from torchvision import datasets

        self.model = work.model()
        self.optimizer = create_optimizer_v2(self.model, opt="momentum", lr=work.rate, momentum=0.0, weight_decay=0.0)
        self.loss = nn.CrossEntropyLoss()
        self.loaders = {}
        for split, train in (("train", True), ("test", False)):
            images = datasets.FashionMNIST(work.folder, train=train)
            images.data, images.targets = (each[: work.examples[split]] for each in (images.data, images.targets))
            self.loaders[split] = create_loader(
                images,
                (1, work.image_size, work.image_size),
                work.batch_size,
                is_training=train,
                no_aug=True,
                num_workers=2,
                mean=(0.0,),
                std=(1.0,),
                interpolation="bilinear",
                crop_pct=1.0,
                device=work.device,
            )

    def steps(self, count: int) -> None:
        self._train(islice(cycle(self.work.plain_batches), count))

    def epoch(self) -> None:
        self._train(self.loaders["train"])
        self._validate()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.work.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16")

    def _train(self, batches: Any) -> None:
        from timm.utils import AverageMeter

        self.model.train()
        meter, seconds, end = AverageMeter(), AverageMeter(), time.time()
        for images, labels in batches:
            images, labels = images.to(self.work.device), labels.to(self.work.device)
            with self._autocast():
                loss = self.loss(self.model(images), labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            meter.update(loss.item(), len(images))
            seconds.update(time.time() - end)
            end = time.time()
        self.losses = [meter.val]

    def _validate(self) -> None:
        from timm.utils import AverageMeter, accuracy

        self.model.eval()
        top1 = AverageMeter()
        with torch.no_grad(), self._autocast():
            for images, labels in self.loaders["test"]:
                images, labels = images.to(self.work.device), labels.to(self.work.device)
                top1.update(accuracy(self.model(images), labels, topk=(1,))[0].item(), len(images))
