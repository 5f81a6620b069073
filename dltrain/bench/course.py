"""The training loop of the course notes, as people write it: DataLoader, Resize, and a sum read after every batch.

`python -m dltrain.bench.course` is the script that goes with it: data, an epoch, weights and a picture.
"""

import argparse
import json
from collections.abc import Iterable
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from dltrain import models


def loader(folder: Path, *, train: bool, image_size: int, batch_size: int, examples: int) -> DataLoader:
    """Batches of the first so many images, decoded and resized one by one by two workers."""
    from torchvision import datasets, transforms

    steps = [*([transforms.Resize(image_size)] if image_size != 28 else []), transforms.ToTensor()]
    images = datasets.FashionMNIST(folder, train=train, transform=transforms.Compose(steps))
    return DataLoader(Subset(images, range(examples)), batch_size=batch_size, shuffle=train, num_workers=2)


def train(
    model: nn.Module, batches: Iterable[Any], optimizer: torch.optim.Optimizer, *, device: torch.device, bf16: bool
) -> list[float]:
    """Train on the batches; returns the loss of each."""
    loss_function = nn.CrossEntropyLoss()
    model.train()
    losses, correct, examples = [], 0.0, 0
    for images, labels in batches:
        images, labels = images.to(device), labels.to(device)
        optimizer.zero_grad()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            logits = model(images)
            loss = loss_function(logits, labels)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            losses.append(loss.item())
            correct += count_correct(logits, labels)
            examples += len(labels)
    return losses


def evaluate(model: nn.Module, batches: Iterable[Any], *, device: torch.device, bf16: bool) -> float:
    """Accuracy over the batches."""
    model.eval()
    correct, examples = 0.0, 0
    with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
        for images, labels in batches:
            correct += count_correct(model(images.to(device)), labels.to(device))
            examples += len(labels)
    return correct / examples


def count_correct(logits: Tensor, labels: Tensor) -> float:
    return float((logits.argmax(1) == labels).sum())


def main() -> None:
    """Train one epoch from nothing, and leave weights and a picture of the loss."""
    parser = argparse.ArgumentParser()
    for name in ("data", "output"):
        parser.add_argument(f"--{name}", type=Path)
    for name in ("image-size", "batch-size", "train-examples", "test-examples", "threads"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--model")
    parser.add_argument("--settings", type=json.loads, help="of the model, as JSON")
    parser.add_argument("--device")
    parser.add_argument("--rate", type=float)
    chosen = parser.parse_args()

    from matplotlib import pyplot

    torch.set_num_threads(chosen.threads)
    device = torch.device(chosen.device)
    side = chosen.image_size
    facts = {"in_channels": 1, "image_size": side, "num_classes": 10, "input_shape": (1, side, side), "num_outputs": 10}
    make = getattr(models, chosen.model)
    known = {key: facts[key] for key in signature(make).parameters if key in facts}
    model = make(**chosen.settings, **known).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=chosen.rate)
    how = {"image_size": chosen.image_size, "batch_size": chosen.batch_size}
    batches = loader(chosen.data, train=True, examples=chosen.train_examples, **how)
    held_out = loader(chosen.data, train=False, examples=chosen.test_examples, **how)
    losses = train(model, batches, optimizer, device=device, bf16=False)
    accuracy = evaluate(model, held_out, device=device, bf16=False)
    chosen.output.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), chosen.output / "weights.pt")
    pyplot.plot(losses)
    pyplot.title(f"accuracy {accuracy:.4f}")
    pyplot.savefig(chosen.output / "curves.png")


if __name__ == "__main__":
    main()
