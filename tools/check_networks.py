"""Compares the networks of the catalog with the modules of timm or torchvision.

    python tools/check_networks.py [--source torchvision] [PATTERN ...]
    python tools/check_networks.py --list tests/parameter_shapes.json.gz

Requires timm or torchvision. Each module gets random weights and running statistics, from which
resrt builds an engine. The logits of a batch of 3 images of an odd size must agree to 1e-4 of the
largest. Exits with 1 if a network differs or the source does not have it.

With --list, nothing is computed: the names and shapes of the modules' parameters are added to the
file, which the tests compare with the catalog where timm and torchvision are not installed.
"""

from __future__ import annotations

import argparse
import fnmatch
import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

import resrt

SIZE = 97
TOLERANCE = 1e-4


def timm_module(name: str) -> nn.Module:
    import timm

    return timm.create_model(name)


def torchvision_module(name: str) -> nn.Module:
    import torchvision

    return torchvision.models.get_model(name)


SOURCES: dict[str, Callable[[str], nn.Module]] = {
    "timm": timm_module,
    "torchvision": torchvision_module,
}


# The catalog has these once, as timm's, which have the same names and parameters.
TORCHVISION_RESNETS = [
    *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
    *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"),
    *("wide_resnet50_2", "wide_resnet101_2"),
]


def randomise(module: nn.Module, images: torch.Tensor) -> None:
    """Set parameters and running statistics to values that no two channels share.

    The running variances are at least those of the activations. Otherwise activations would grow
    with every block, until in deep networks PyTorch's own float32 and float64 disagree.
    """
    torch.manual_seed(0)
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.Linear)) and part.bias is not None:
            nn.init.normal_(part.bias, std=0.1)
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.0)
        nn.init.normal_(norm.bias, std=0.1)
        norm.momentum = None  # the running statistics become those of one batch
    with torch.inference_mode():
        module.train()(images)
    for norm in norms:
        norm.running_var *= torch.empty_like(norm.running_var).uniform_(1.0, 2.0)
        norm.running_mean += torch.empty_like(norm.running_mean).normal_(std=0.1)


def difference(name: str, source: str, size: int = SIZE) -> float:
    """Return the largest difference of a network's logits as a fraction of the largest logit."""
    images = np.random.default_rng(0).standard_normal((3, 3, size, size)).astype(np.float32)
    module = SOURCES[source](name)
    randomise(module, torch.from_numpy(images))
    with torch.inference_mode():
        expected = module.eval()(torch.from_numpy(images)).numpy()
    weights = {key: value.numpy() for key, value in module.state_dict().items()}
    engine = resrt.build(name, weights, input_size=size, precision="fp32", max_batch=3)
    return float(np.abs(engine.infer(images) - expected).max() / np.abs(expected).max())


def description(name: str, source: str) -> dict[str, object]:
    """Return what tests/parameter_shapes.json.gz has for a network."""
    # torchvision's RegNets compute their widths with tensors.
    with torch.device("meta" if source == "timm" else "cpu"):
        module = SOURCES[source](name)
    shapes = {key: list(value.shape) for key, value in module.state_dict().items()}
    return {
        "source": source,
        "trainable": sum(parameter.numel() for parameter in module.parameters()),
        "shapes": {k: v for k, v in shapes.items() if not k.endswith(".num_batches_tracked")},
    }


def add_to_listing(path: Path, names: list[str], source: str) -> None:
    listing = json.loads(gzip.decompress(path.read_bytes()))
    for name in names:
        listing.setdefault(name, description(name, source))
    text = json.dumps(dict(sorted(listing.items())), separators=(",", ":"))
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def check(names: list[str], source: str) -> int:
    """Print each network's difference and return how many are wrong."""
    failed = 0
    for name in names:
        try:
            found = difference(name, source)
        except (RuntimeError, ValueError) as error:
            print(f"{name:24} FAILED  {type(error).__name__}: {error}", flush=True)
            failed += 1
            continue
        verdict = "ok" if found <= TOLERANCE else "DIFFERS"
        failed += verdict != "ok"
        print(f"{name:24} {verdict:8}{found:.1e}", flush=True)
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("patterns", nargs="*", metavar="PATTERN")
    parser.add_argument("--source", choices=SOURCES, default="timm")
    parser.add_argument("--list", type=Path, metavar="FILE", help="add the parameters' shapes")
    options = parser.parse_args()
    names = [model.name for model in resrt.list_models(source=options.source)]
    if options.source == "torchvision":
        names += TORCHVISION_RESNETS
    patterns = options.patterns or ["*"]
    names = [name for name in names if any(fnmatch.fnmatch(name, p) for p in patterns)]
    if options.list is not None:
        add_to_listing(options.list, names, options.source)
        return 0
    return int(check(names, options.source) > 0)


if __name__ == "__main__":
    sys.exit(main())
