"""Weights files of PaddleClas and timm give the logits of their own networks."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
from safetensors.numpy import save_file

import resrt
from support.golden import GOLDEN, Golden

Case: TypeAlias = tuple[Golden, resrt.Graph, Path]


def save_as_the_source(golden: Golden, source: str, folder: Path) -> Path:
    if source == "timm":
        path = folder / "model.safetensors"
        save_file(golden.weights(), path)
    else:
        path = folder / "model.pdparams"
        # paddle.save writes a state dict as arrays by name, with a table of names.
        table = {name: f"param_{i}" for i, name in enumerate(golden.shapes)}
        state = {**golden.weights(), "StructuredToParameterName@@": table}
        path.write_bytes(pickle.dumps(state, protocol=4))
    return path


@pytest.fixture(params=sorted(path.stem for path in GOLDEN.glob("*.npz")), scope="module")
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    source, _, _ = request.param.partition("_")
    golden = Golden.read(GOLDEN / f"{request.param}.npz")
    graph = resrt.build_graph(golden.model, input_size=golden.size)
    return golden, graph, save_as_the_source(golden, source, tmp_path_factory.mktemp("weights"))


def test_fp32_logits_equal_those_of_the_source(case: Case) -> None:
    golden, graph, weights = case
    assert graph.cost.parameters == golden.trainable
    logits = resrt.build(graph, weights, precision="fp32", max_batch=2).infer(golden.images())
    largest = np.abs(golden.logits).max()
    np.testing.assert_allclose(logits, golden.logits, rtol=0, atol=1e-4 * largest)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_logits_are_close(case: Case, precision: str) -> None:
    if precision not in resrt.backends()[0].precisions:
        pytest.skip(f"this processor does not support {precision}")
    golden, graph, weights = case
    logits = resrt.build(graph, weights, precision=precision, max_batch=2).infer(golden.images())
    for ours, reference in zip(logits, golden.logits, strict=True):
        cosine = ours @ reference / (np.linalg.norm(ours) * np.linalg.norm(reference))
        assert cosine >= 0.999
        assert ours.argmax() == reference.argmax()
