"""Paddle's .pdiparams with a program beside it, as `make_paddle_inference.py` wrote them."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

import resrt
from resrt import weights
from resrt.weights.formats import paddle_program
from resrt.weights.formats.checkpoint import Malformed
from support.samples import SAMPLES, bounded_memory

CONFIG = resrt.ResNet(
    depths=[1, 1],
    block="basic",
    width=8,
    stem="deep",
    stem_channels=8,
    downsample="average_pool",
    project_first=True,
    attention="squeeze_excite",
    attention_reduction=4,
    attention_divisor=1,
)
PROGRAMS = ("paddle_json.json", "paddle_pdmodel.pdmodel")


@pytest.fixture(params=PROGRAMS)
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The parameters, beside a program of either kind."""
    program = SAMPLES / request.param
    shutil.copy(program, tmp_path / f"model{program.suffix}")
    shutil.copy(program.with_suffix(".pdiparams"), tmp_path / "model.pdiparams")
    return tmp_path / "model.pdiparams"


def program_beside(file: Path) -> Path:
    (program,) = (path for path in file.parent.iterdir() if path != file)
    return program


def test_logits_are_those_of_paddle(file: Path) -> None:
    """An odd size, at which the padding of the average pooling counts."""
    expected = np.load(SAMPLES / "paddle_inference.npz")
    engine = resrt.build(CONFIG, file, precision="fp32", input_size=45, tune=0)
    assert engine.info.classes == 5
    logits = engine.infer(expected["images"].astype(np.float32))
    largest = np.abs(expected["logits"]).max()
    np.testing.assert_allclose(logits, expected["logits"], rtol=0, atol=1e-5 * largest)


def test_arrays_have_paddles_names(file: Path) -> None:
    found = weights.read(file)
    assert found.format == "Paddle's .pdiparams"
    assert found.arrays["linear_4.w_0"].shape == (16, 5)
    assert found.trained == (5, 3)
    with_program = found.sha256
    program = program_beside(file)
    program.write_bytes(program.read_bytes().replace(b"softmax", b"sigmoid"))
    assert weights.read(file).sha256 != with_program


def test_a_folder_that_paddleclas_exported(file: Path) -> None:
    expected = weights.read(file)
    program = program_beside(file)
    program.rename(program.with_stem("inference"))
    file.rename(file.with_stem("inference"))
    found = weights.read(file.parent)
    assert found.arrays.keys() == expected.arrays.keys()
    assert found.sha256 == expected.sha256


def test_another_network(file: Path) -> None:
    with pytest.raises(resrt.WeightsError, match="matches resnet18 neither by its names nor by"):
        resrt.build("resnet18", file)


def test_a_program_is_needed(file: Path) -> None:
    program_beside(file).unlink()
    with pytest.raises(
        resrt.WeightsError, match=r"copy 'model\.json' or 'model\.pdmodel' there, or give the .pdp"
    ):
        weights.read(file)


def test_a_program_alone_has_no_weights(file: Path) -> None:
    with pytest.raises(resrt.WeightsError, match=r"give the \.pdiparams file beside it"):
        weights.read(program_beside(file))


def test_the_program_of_another_model(file: Path) -> None:
    content = file.read_bytes()
    last = len(content) - 16 * 5 * 4
    head = content.rindex(bytes(16), 0, last)
    file.write_bytes(content[:head])
    with pytest.raises(resrt.WeightsError, match="has 54 tensors, but the program beside it 55"):
        weights.read(file)


def test_truncated_parameters(file: Path) -> None:
    whole = file.read_bytes()
    for size in range(22, len(whole), 997):
        file.write_bytes(whole[:size])
        with pytest.raises(resrt.WeightsError):
            weights.read(file)


def test_a_huge_tensor_is_not_allocated(file: Path) -> None:
    head = bytes(16) + (12).to_bytes(4, "little")
    described = b"\x08\x05" + 2 * (b"\x10" + b"\xff\xff\xff\x7f")
    file.write_bytes(head + described + bytes(100))
    with bounded_memory(1 << 20), pytest.raises(resrt.WeightsError, match="not a valid .pdiparams"):
        weights.read(file)


def changed(change: Callable[[Any], object]) -> memoryview:
    document = json.loads((SAMPLES / "paddle_json.json").read_text())
    change(document["program"]["regions"][0]["blocks"][0]["ops"])
    return memoryview(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ops: ops.clear() or ops.append(3), "its operators are invalid"),
        (lambda ops: ops[0].pop("#"), "'#' is missing"),
        (lambda ops: ops[0]["A"].__setitem__(3, None), "a parameter without a name of its own"),
        (lambda ops: ops.insert(1, ops[0]), "a parameter without a name of its own"),
        (lambda ops: ops.append(ops[-3]), "is written a second time"),
        (lambda ops: ops.extend([{}] * 50_001), "more than 50000 operators"),
    ],
)
def test_invalid_programs(change: Callable[[Any], object], message: str) -> None:
    with pytest.raises(Malformed, match=message):
        paddle_program.decode(changed(change))


def test_large_programs_are_not_read(file: Path) -> None:
    program = program_beside(file)
    with program.open("r+b") as sparse:
        sparse.truncate(8 << 30)
    with bounded_memory(1 << 20), pytest.raises(resrt.WeightsError, match="it has 8589934592 byte"):
        weights.read(file)
    # Of all JSON, empty lists take the most memory for their size.
    program.write_bytes(b'{"a":[' + b"[]," * (1 << 20))
    with bounded_memory(70 << 20), pytest.raises(resrt.WeightsError):
        weights.read(file)


@pytest.mark.parametrize(
    ("kind", "attribute", "op"),
    [
        ("dropout", ("mode", "upscale_in_train"), "Dropout"),
        ("dropout", ("mode", "downscale_in_infer"), "dropout"),
        ("swish", ("beta", 1), "Swish"),
        ("swish", ("beta", 2), "swish"),
        ("scale", ("scale", 1), "Identity"),
        ("scale", ("scale", 2), "scale"),
        ("matmul", ("transpose_y", True), "matmul"),
    ],
)
def test_operators_that_compute_something_else_are_not_taken(
    kind: str, attribute: tuple[str, Any], op: str
) -> None:
    def change(ops: Any) -> None:
        name, value = attribute
        ops[-2] |= {"#": f"1.{kind}", "A": [{"N": name, "AT": {"#": "", "D": value}}]}

    assert paddle_program.decode(changed(change)).model({}).nodes[-1].op == op


@pytest.mark.parametrize("content", [b"{", b"{}", b"[" * 100_000, b"{" * 100_000, b"", b"\x0a\x02"])
def test_what_is_no_program(content: bytes) -> None:
    with pytest.raises(Malformed):
        paddle_program.decode(memoryview(content))


def test_a_variable_may_be_written_again() -> None:
    """Each value has a name of its own, so that no operator follows itself."""
    content = (SAMPLES / "paddle_pdmodel.pdmodel").read_bytes()
    assert b"\x12\x0crelu_0.tmp_0" in content
    content = content.replace(b"\x12\x0crelu_0.tmp_0", b"\x12\x0crelu_1.tmp_0")
    found = paddle_program.decode(memoryview(content))
    known = set(found.parameters)
    written = [name for op in found.ops for name in op.outputs]
    assert len(written) == len(set(written))
    for op in found.ops:
        assert not (set(op.inputs) - known) & set(written)
        known.update(op.outputs)


def test_mutants(file: Path) -> None:
    """Whatever is in the two files, the result is arrays or a resrt.Error."""
    graph = resrt.build_graph(CONFIG, classes=5)
    random = Random(3)
    program = program_beside(file)
    originals = {path: path.read_bytes() for path in (file, program)}
    for number in range(300):
        path = (file, program)[number % 2]
        content = bytearray(originals[path])
        for _ in range(random.choice((1, 1, 2, 8))):
            at = random.randrange(len(content) if path is program else 4096)
            if random.random() < 0.7:
                content[at] = random.randrange(256)
            else:
                del content[at : at + random.randrange(1, 40)]
        path.write_bytes(content)
        with contextlib.suppress(resrt.Error):
            found = weights.read(file)
            assert found.fit is not None
            weights.fit(found.fit(graph), graph)
        path.write_bytes(originals[path])
