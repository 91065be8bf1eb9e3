"""Logits of PaddleClas's and timm's own networks, through the ordinary readers."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import resrt
from conftest import GOLDEN, Golden


def save_as_source_does(golden: Golden, source: str, folder: Path) -> Path:
    if source == "timm":
        path = folder / "model.safetensors"
        save_file(golden.weights(), path)
    else:
        path = folder / "model.pdparams"
        # As paddle.save writes a state dict: arrays by name, and its own table of names.
        table = {name: f"param_{i}" for i, name in enumerate(golden.shapes)}
        state = {**golden.weights(), "StructuredToParameterName@@": table}
        path.write_bytes(pickle.dumps(state, protocol=4))
    return path


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("*.npz")))
def test_logits_are_the_sources_own(name: str, tmp_path: Path) -> None:
    golden = Golden.read(GOLDEN / f"{name}.npz")
    weights = save_as_source_does(golden, name.split("_")[0], tmp_path)
    graph = resrt.build_graph(golden.model, input_size=golden.size)
    assert graph.cost.parameters == golden.trainable

    logits = resrt.build(graph, weights, precision="fp32", max_batch=2).infer(golden.images())
    largest = np.abs(golden.logits).max()
    np.testing.assert_allclose(logits, golden.logits, rtol=0, atol=1e-4 * largest)

    for precision in resrt.backends()[0].precisions:
        if precision == "fp32":
            continue
        reduced = resrt.build(graph, weights, precision=precision, max_batch=2)
        for ours, reference in zip(reduced.infer(golden.images()), golden.logits, strict=True):
            cosine = ours @ reference / (np.linalg.norm(ours) * np.linalg.norm(reference))
            assert cosine >= 0.999
            assert ours.argmax() == reference.argmax()
