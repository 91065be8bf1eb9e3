"""Prints weights/catalog.toml: where the pretrained weights of the catalog's networks are.

    python tools/make_catalog.py PaddleClas > weights/catalog.toml

It needs timm installed, whose own table of pretrained weights it reads, and a checkout (or an
unpacked wheel) of PaddleClas, whose model files' addresses it reads without running them.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import resrt

PADDLECLAS_HOST = "https://paddle-imagenet-models-name.bj.bcebos.com/dygraph"

# PaddleClas's model files have one address for each architecture; the other weights of that
# architecture stand on its pages alone. Its use_ssld would make an address out of the first one,
# legendary_models/ResNet50_vd_ssld_pretrained.pdparams, which later pages list with the accuracy
# of ResNet50_vd_ssld_v2 (0.830): not the weights that are published as ResNet50_vd_ssld (0.824).
DOCUMENTED = "docs/zh_CN/models/models_intro.md (of an early release 2)"
ONLY_DOCUMENTED = {
    name: f"{PADDLECLAS_HOST}/{name}_pretrained.pdparams"
    for name in (
        "ResNet34_vd_ssld",
        "ResNet50_vd_v2",
        "ResNet50_vd_ssld",
        "ResNet50_vd_ssld_v2",
        "Fix_ResNet50_vd_ssld_v2",
        "ResNet101_vd_ssld",
    )
}

HEADER = """\
# Where pretrained weights are, and how photographs are prepared for them.
# tools/make_catalog.py wrote this, from {sources}.
#
# A table is named by its network and, where a network has several, a tag: resnet50.a1_in1k. A
# network's first table is its default. `url` is an address, `hub` a repository of the Hugging Face
# hub that holds `file`; `address_from` is where its publisher gives that address.
# `pipeline` is whose way of resizing and cropping it is (cpp/include/resrt/images.h); timm's is
# torchvision's. `resize` is the shorter side in pixels before the middle `crop` is cut out;
# `test_resize` and `test_crop` are those at which timm found the weights to be most accurate.
# `top1` and `top5` are PaddleClas's own figures, fractions on ImageNet-1k's validation set.
#
# No address has been tried. PaddleClas's pages list only the networks that have `top1` here; that
# the other files are there is its model files' word alone. PaddleClas states no licence for its
# weights but that of its repository.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paddleclas", type=Path, help="the folder that ppcls/ lies in")
    root = parser.parse_args().paddleclas

    import timm

    print(
        HEADER.format(sources=f"PaddleClas {_paddleclas_version(root)} and timm {timm.__version__}")
    )
    for name, entry in (*_of_paddleclas(root), *_of_timm()):
        print(f"\n[{name if name.isidentifier() else json.dumps(name)}]")
        for key, value in entry.items():
            if value is not None:
                print(f"{key} = {json.dumps(value)}")


def _of_paddleclas(root: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    addresses = {name: (url, DOCUMENTED) for name, url in ONLY_DOCUMENTED.items()}
    for file in sorted(root.glob("ppcls/arch/backbone/*/*.py")):
        for name, url in _model_urls(file).items():
            addresses[name] = (url, file.relative_to(root).as_posix())
    for model in resrt.list_models(source="PaddleClas"):
        if model.name not in addresses:
            continue
        url, address_from = addresses[model.name]
        published = model.published
        yield (
            model.name,
            {
                "url": url,
                "address_from": address_from,
                "format": "pdparams",
                "licence": "apache-2.0",
                "classes": 1000,
                "resize": published.resize_short if published else 256,
                "crop": published.crop if published else 224,
                "interpolation": "bilinear",
                "pipeline": "paddleclas",
                "mean": [0.485, 0.456, 0.406],
                "std": [0.229, 0.224, 0.225],
                "top1": published and published.top1,
                "top5": published and published.top5,
            },
        )


def _model_urls(file: Path) -> Mapping[str, str]:
    """The dict that PaddleClas's model files call MODEL_URLS."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "MODEL_URLS":
            urls: dict[str, str] = ast.literal_eval(node.value)
            return {name: url for name, url in urls.items() if url.startswith("https://")}
    return {}


def _paddleclas_version(root: Path) -> str:
    version = root / "version.txt"
    return version.read_text().strip() if version.exists() else "(of an unknown version)"


def _of_timm() -> Iterator[tuple[str, dict[str, Any]]]:
    import timm
    from timm.models import get_pretrained_cfg, is_model, list_pretrained

    for model in resrt.list_models(source="timm"):
        if not is_model(model.name):
            continue
        # In timm's own order, the first of which is its default; list_pretrained would sort them.
        tagged = set(list_pretrained(f"{model.name}.*"))
        for tag in timm.models._registry._model_default_cfgs[model.name].tags:
            name = f"{model.name}.{tag}"
            cfg = get_pretrained_cfg(name)
            # Without classes it is features alone, which a classifier cannot be built of.
            if name in tagged and cfg.hf_hub_id and cfg.num_classes:
                yield name, _timm_entry(name, cfg, f"timm {timm.__version__}")


def _timm_entry(name: str, cfg: Any, address_from: str) -> dict[str, Any]:
    crop = cfg.input_size[-1]
    test_crop = cfg.test_input_size[-1] if cfg.test_input_size else None
    test_resize = None
    if cfg.test_input_size or cfg.test_crop_pct:
        test_crop = test_crop or crop
        test_resize = _resize(test_crop, cfg.test_crop_pct or cfg.crop_pct)
    assert cfg.crop_mode == "center"
    return {
        "hub": cfg.hf_hub_id + name if cfg.hf_hub_id.endswith("/") else cfg.hf_hub_id,
        "file": "model.safetensors",
        "address_from": address_from,
        "format": "safetensors",
        "licence": cfg.license or "unknown",
        "classes": cfg.num_classes,
        "resize": _resize(crop, cfg.crop_pct),
        "crop": crop,
        "test_resize": test_resize,
        "test_crop": test_crop,
        "interpolation": cfg.interpolation,
        "pipeline": "torchvision",
        "mean": list(cfg.mean),
        "std": list(cfg.std),
    }


def _resize(crop: int, crop_pct: float) -> int:
    """timm's rule, rounding included."""
    return math.floor(crop / crop_pct)


if __name__ == "__main__":
    main()
