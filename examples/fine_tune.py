"""Fine-tunes a network of timm on a folder of photographs, and makes an engine of it.

    python examples/fine_tune.py flowers/train flowers/test --output flowers.engine
    resrt classify flowers.engine photos/

Each folder has a subfolder of photographs for each class. Requires PyTorch and timm. timm's
pretrained weights are downloaded from the Hugging Face hub; --from-scratch needs no download.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import timm
import torch
from timm.data import resolve_model_data_config
from torch.utils.data import DataLoader, Dataset

import resrt


class Photographs(Dataset[tuple[torch.Tensor, int]]):
    """The photographs of a folder, preprocessed as the engine will do it."""

    def __init__(self, folder: Path, steps: resrt.Preprocessing, flip: bool = False) -> None:
        self.classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
        self.files = [
            (file, label)
            for label, name in enumerate(self.classes)
            for file in resrt.find_images([folder / name])
        ]
        self.steps = steps
        self.flip = flip

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, int]]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        file, label = self.files[index]
        image = torch.from_numpy(resrt.preprocess(file, self.steps))
        if self.flip and torch.rand(()) < 0.5:
            image = image.flip(2)
        return image, label


def preprocessing(model: torch.nn.Module, size: int | None) -> resrt.Preprocessing:
    """Return the preprocessing that timm configures for a model."""
    config = resolve_model_data_config(model)
    size = size or config["input_size"][1]
    return resrt.Preprocessing(
        resize=int(size / config["crop_pct"]),
        interpolation=config["interpolation"],
        mean=config["mean"],
        std=config["std"],
        input_size=(size, size),
    )


def train(model: torch.nn.Module, photographs: Photographs, options: argparse.Namespace) -> None:
    """Train all layers with AdamW and a learning rate that falls to zero."""
    loader = DataLoader(
        photographs,
        batch_size=options.batch_size,
        shuffle=True,
        num_workers=options.workers,
        # An engine's process must not be forked, so workers are spawned.
        multiprocessing_context="spawn" if options.workers else None,
        persistent_workers=options.workers > 0,
    )
    optimiser = torch.optim.AdamW(model.parameters(), lr=options.learning_rate)
    steps = options.epochs * len(loader)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, options.learning_rate, steps)
    for epoch in range(options.epochs):
        losses = []
        for images, labels in loader:
            loss = torch.nn.functional.cross_entropy(model(images), labels, label_smoothing=0.1)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("train", type=Path, help="a folder with a subfolder for each class")
    parser.add_argument("test", type=Path, help="the same, with other photographs")
    parser.add_argument("--output", default="fine_tuned.engine", help="default: %(default)s")
    parser.add_argument("--network", default="resnet18", help="default: %(default)s")
    parser.add_argument("--from-scratch", action="store_true", help="no pretrained weights")
    parser.add_argument("--input-size", type=int, help="default: that of the pretrained weights")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--workers", type=int, default=2, help="processes that read photographs")
    options = parser.parse_args()

    names = sorted(path.name for path in options.train.iterdir() if path.is_dir())
    model = timm.create_model(
        options.network, pretrained=not options.from_scratch, num_classes=len(names)
    )
    steps = preprocessing(model, options.input_size)
    train(model, Photographs(options.train, steps, flip=True), options)

    model.eval()
    weights = {name: array.numpy() for name, array in model.state_dict().items()}
    engine = resrt.build(options.network, weights, labels=names, preprocessing=steps)
    engine.save(options.output)

    images = torch.stack([image for image, _ in islice(Photographs(options.test, steps), 8)])
    with torch.inference_mode():
        expected = model(images).numpy()
    difference = np.abs(engine.infer(images.numpy()) - expected).max() / np.abs(expected).max()
    print(f"{options.output}: {engine.info.precision}, {difference:.1e} from PyTorch's logits")

    accuracy = resrt.eval(engine, options.test)
    print(f"top-1 accuracy on {accuracy.total} photographs: {accuracy.top1}")
    for found in resrt.classify(engine, resrt.find_images([options.test]), topk=1):
        best = found.predictions[0]
        print(f"{found.image}: {best.label} ({best.probability:.0%})")


if __name__ == "__main__":
    main()
