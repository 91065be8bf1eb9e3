"""The golden weights in every format and naming give the same parameters and the same logits."""

from __future__ import annotations

import io
import pickle
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import resrt
from resrt import weights
from support.golden import GOLDEN, Golden
from support.onnx_models import export

Arrays = dict[str, np.ndarray]
GOLDENS = sorted(path.stem for path in GOLDEN.glob("*.npz"))


def write_safetensors(path: Path, arrays: Arrays) -> None:
    save_file(arrays, path)


def write_pdparams(path: Path, arrays: Arrays) -> None:
    path.write_bytes(pickle.dumps(arrays, protocol=2))


def write_npz(path: Path, arrays: Arrays) -> None:
    with path.open("wb") as file:
        np.savez(file, **arrays)


def write_wts(path: Path, arrays: Arrays) -> None:
    lines = [str(len(arrays))]
    for name, array in arrays.items():
        lines.append(f"{name} {array.size} {array.astype('>f4').tobytes().hex(' ', 4)}")
    path.write_text("\n".join(lines) + "\n")


def write_pth(path: Path, arrays: Arrays) -> None:
    """Write a zip like torch.save's, of a pickle that refers to storages, and the storages."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    class FloatStorage:
        pass

    def _rebuild_tensor_v2() -> None:
        pass

    for value, module in ((FloatStorage, torch), (_rebuild_tensor_v2, utils)):
        value.__module__, value.__qualname__ = module.__name__, value.__name__
        setattr(module, value.__name__, value)

    class Storage:
        def __init__(self, key: str, size: int) -> None:
            self.key, self.size = key, size

    class Tensor:
        def __init__(self, key: str, array: np.ndarray) -> None:
            self.key, self.array = key, array

        def __reduce__(self) -> tuple[object, ...]:
            strides = tuple(stride // 4 for stride in self.array.strides)
            storage = Storage(self.key, self.array.size)
            return _rebuild_tensor_v2, (storage, 0, self.array.shape, strides, False, {})

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: object) -> object:
            if isinstance(value, Storage):
                return ("storage", FloatStorage, value.key, "cpu", value.size)
            return None

    state = {name: Tensor(str(i), array) for i, (name, array) in enumerate(arrays.items())}
    stream = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch", torch)
        patch.setitem(sys.modules, "torch._utils", utils)
        Pickler(stream, protocol=2).dump({"state_dict": state, "epoch": 90})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", stream.getvalue())
        archive.writestr("archive/byteorder", "little")
        for i, array in enumerate(arrays.values()):
            archive.writestr(f"archive/data/{i}", array.tobytes())
        archive.writestr("archive/version", "3\n")


WRITERS: dict[str, Callable[[Path, Arrays], None]] = {
    "safetensors": write_safetensors,
    "pdparams": write_pdparams,
    "npz": write_npz,
    "pth": write_pth,
}


def assert_same(path: Path, graph: resrt.Graph, expected: weights.Weights) -> None:
    loaded = weights.load(path, graph)
    assert loaded.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(loaded[name].view(np.uint32), array.view(np.uint32))


@pytest.mark.parametrize("name", GOLDENS)
def test_every_format_gives_the_same_parameters(name: str, tmp_path: Path) -> None:
    golden = Golden.read(GOLDEN / f"{name}.npz")
    graph = resrt.build_graph(golden.model, input_size=golden.size)
    theirs = golden.weights()
    ours = weights.fit(theirs, graph)
    is_small = len(ours) < 150
    for extension, write in WRITERS.items():
        for arrays in (theirs, ours) if is_small else (theirs,):
            path = tmp_path / f"model.{extension}"
            write(path, arrays)
            assert_same(path, graph, ours)
            path.unlink()
    path = tmp_path / "model.onnx"
    path.write_bytes(export(graph, ours).SerializeToString())
    assert_same(path, graph, ours)
    write_wts(tmp_path / "model.wts", ours)
    assert_same(tmp_path / "model.wts", graph, ours)


@pytest.mark.parametrize("name", ["paddle_ResNet18", "timm_resnet18"])
def test_every_format_gives_the_same_logits(name: str, tmp_path: Path) -> None:
    golden = Golden.read(GOLDEN / f"{name}.npz")
    arrays, images = golden.weights(), golden.images()
    expected = resrt.build(golden.model, arrays, max_batch=2).infer(images)
    for extension, write in WRITERS.items():
        path = tmp_path / f"model.{extension}"
        write(path, arrays)
        logits = resrt.build(golden.model, path, max_batch=2).infer(images)
        np.testing.assert_array_equal(logits, expected)


def test_flat_arrays_of_a_convention_with_transposed_matrices(tmp_path: Path) -> None:
    golden = Golden.read(GOLDEN / "paddle_ResNet18.npz")
    write_wts(tmp_path / "model.wts", golden.weights())
    with pytest.raises(
        resrt.WeightsError, match="PaddlePaddle's names, but a .wts file does not say"
    ):
        resrt.build("ResNet18", tmp_path / "model.wts")
