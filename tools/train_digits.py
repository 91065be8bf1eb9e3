"""Train the demo's network on scikit-learn's handwritten digits, and write its files.

    python tools/train_digits.py [--epochs 120] [--out weights]

A fifth of the 1,797 scans is held out first and written to digits_held_out.npz. It is used only for
the evaluation at the end. Requires torch and scikit-learn.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from safetensors.torch import save_file
from sklearn.datasets import load_digits

from resrt import images
from resrt.graphs.torch_network import TorchNetwork
from resrt.operations import demo

SEED = 0
BATCH = 64


def split() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return scans, uint8 (N, 8, 8), and digits: those for training, then those held out."""
    digits = load_digits()
    scans = (digits.images * (255 / 16)).round().astype(np.uint8)
    order = np.random.default_rng(SEED).permutation(len(scans))
    held_out, training = order[: len(scans) // 5], order[len(scans) // 5 :]
    labels = digits.target.astype(np.uint8)
    return scans[training], labels[training], scans[held_out], labels[held_out]


def to_batch(scans: np.ndarray) -> torch.Tensor:
    """Preprocess scans as the engine does."""
    shape = demo.graph().input_shape
    return torch.from_numpy(images.preprocess_batch(scans, demo.PREPROCESSING, shape))


def jitter(batch: torch.Tensor) -> torch.Tensor:
    """Apply small random rotations, scalings and shifts."""
    n = len(batch)
    angle = torch.empty(n).uniform_(-0.25, 0.25)
    scale = torch.empty(n).uniform_(0.88, 1.12)
    shift = torch.empty(n, 2, 1).uniform_(-0.12, 0.12)
    rotation = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(n, 2, 2)
    theta = torch.cat([rotation * scale.view(n, 1, 1), shift], 2)
    grid = F.affine_grid(theta, list(batch.shape), align_corners=False)
    return F.grid_sample(batch, grid, padding_mode="border", align_corners=False)


def train(network: TorchNetwork, batch: torch.Tensor, digits: torch.Tensor, epochs: int) -> None:
    parameters = [value for value in network.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=3e-3, weight_decay=0.02)
    steps = epochs * math.ceil(len(batch) / BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=steps)
    network.train()
    for epoch in range(epochs):
        total = 0.0
        for rows in torch.randperm(len(batch)).split(BATCH):
            logits = network(jitter(batch[rows]))
            loss = F.cross_entropy(logits, digits[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(rows)
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1}: loss {total / len(batch):.4f}")
    network.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=120)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "weights")
    options = parser.parse_args()

    torch.manual_seed(SEED)
    scans, digits, held_out_scans, held_out_digits = split()
    np.savez_compressed(
        options.out / "digits_held_out.npz", scans=held_out_scans, digits=held_out_digits
    )
    network = TorchNetwork(demo.graph())
    train(network, to_batch(scans), torch.from_numpy(digits).long(), options.epochs)
    save_file(
        network.weights(),
        options.out / "digits.safetensors",
        {"network": demo.NAME, "source": "tools/train_digits.py", "data": "UCI optdigits"},
    )
    with torch.inference_mode():
        predicted = network(to_batch(held_out_scans)).argmax(1).numpy()
    print(f"held out: {np.mean(predicted == held_out_digits):.2%} of {len(held_out_digits)}")


if __name__ == "__main__":
    main()
