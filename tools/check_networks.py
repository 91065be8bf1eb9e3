"""Compares the networks of the catalog with the modules of timm and torchvision.

    python tools/check_networks.py [--source timm] [PATTERN ...]

Requires timm and torchvision. Each module gets random weights and running statistics, which resrt
then builds an engine from. The logits for a batch of 3 images of an odd size must agree to 1e-4 of
the largest. Networks that the source lacks are reported. Exits with 1 if any network differs.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
from collections.abc import Callable

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


def randomise(module: nn.Module) -> None:
    """Set running statistics and affine parameters that no two channels share."""
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.0)
            nn.init.normal_(part.bias, std=0.1)
            nn.init.normal_(part.running_mean, std=0.1)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
        elif isinstance(part, (nn.Conv2d, nn.Linear)) and part.bias is not None:
            nn.init.normal_(part.bias, std=0.1)


def difference(name: str, source: str, size: int = SIZE) -> float:
    """Return the largest difference of a network's logits as a fraction of the largest logit."""
    module = SOURCES[source](name).eval()
    randomise(module)
    weights = {key: value.numpy() for key, value in module.state_dict().items()}
    images = np.random.default_rng(0).standard_normal((3, 3, size, size)).astype(np.float32)
    with torch.inference_mode():
        expected = module(torch.from_numpy(images)).numpy()
    del module
    engine = resrt.build(name, weights, input_size=size, precision="fp32", max_batch=3)
    return float(np.abs(engine.infer(images) - expected).max() / np.abs(expected).max())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("patterns", nargs="*", default=["*"], metavar="PATTERN")
    parser.add_argument("--source", choices=SOURCES, default="timm")
    options = parser.parse_args()
    # torchvision has timm's names for its ResNets, which are the same networks.
    sources = {"timm", options.source}
    names = [model.name for model in resrt.list_models() if model.source in sources]
    failed = 0
    for name in names:
        if not any(fnmatch.fnmatch(name, pattern) for pattern in options.patterns):
            continue
        try:
            found = difference(name, options.source)
        except (RuntimeError, ValueError) as error:
            print(f"{name:24} FAILED  {type(error).__name__}: {error}", flush=True)
            failed += 1
            continue
        verdict = "ok" if found <= TOLERANCE else "DIFFERS"
        failed += verdict != "ok"
        print(f"{name:24} {verdict:8}{found:.1e}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
