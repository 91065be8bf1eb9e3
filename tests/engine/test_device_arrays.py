"""Batches in GPU memory, as far as they can be tested without a GPU.

The fakes say that they are on a GPU but are in host memory.
"""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import textwrap
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import resrt
from resrt import _core
from resrt.engine import device_arrays
from support.paths import ROOT

CUDA, ROCM, PINNED = 2, 10, 3


class DLPackArray:
    """An array like PyTorch's tensors."""

    def __init__(self, array: npt.NDArray[Any], device: tuple[int, int] = (CUDA, 0)) -> None:
        self.array = array
        self.device = device
        self.streams: list[int] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, *, stream: int) -> Any:
        self.streams.append(stream)
        return self.array.__dlpack__()


class InterfaceArray:
    """An array like Numba's."""

    def __init__(self, array: npt.NDArray[Any], **more: Any) -> None:
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (array.ctypes.data, False),
            "version": 3,
            "strides": None if array.flags.c_contiguous else array.strides,
            **more,
        }


class Core:
    """A fake engine on the second GPU that records its arguments."""

    info = SimpleNamespace(model="small", input_shape=(3, 32, 32))
    device = 1

    def __init__(self) -> None:
        self.given: list[tuple[int, int, int]] = []

    def device_of(self, pointer: int) -> int:
        return 1

    def infer_on_device(self, pointer: int, batch: int, stream: int, owner: Any) -> str:
        self.given.append((pointer, batch, stream))
        self.owner = owner
        return "logits"


@pytest.fixture
def core() -> Any:
    return Core()


@pytest.mark.parametrize(("stream", "used"), [(None, 1), (0, 1), (7, 7), (2**47, 2**47)])
def test_dlpack(core: Any, images: npt.NDArray[np.float32], stream: int | None, used: int) -> None:
    batch = DLPackArray(images, (CUDA, 1))
    assert device_arrays.infer(core, batch, stream) == "logits"
    assert core.given == [(images.ctypes.data, 6, used)]
    assert batch.streams == [used]  # the library makes this stream wait for the batch


@pytest.mark.parametrize(
    ("more", "stream", "used"),
    [({}, None, 1), ({"stream": None}, None, 1), ({"stream": 9}, None, 9), ({"stream": 9}, 7, 7)],
)
def test_cuda_array_interface(
    core: Any, images: npt.NDArray[np.float32], more: Any, stream: int | None, used: int
) -> None:
    assert device_arrays.infer(core, InterfaceArray(images, **more), stream) == "logits"
    assert core.given == [(images.ctypes.data, 6, used)]


@pytest.mark.parametrize("kind", [lambda array: DLPackArray(array, (CUDA, 1)), InterfaceArray])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.astype(np.float16), r"requires a float32 batch; convert it with .float\(\)"),
        (lambda x: x.astype(np.int32), r"requires a float32 batch; convert it with .float\(\)"),
        (lambda x: x[0], r"a batch of shape \(N, 3, 32, 32\), not \(3, 32, 32\)"),
        (lambda x: x[:, :, :16], r"a batch of shape \(N, 3, 32, 32\), not \(6, 3, 16, 32\)"),
        (lambda x: x.transpose(0, 1, 3, 2), r"contiguous.*copy it with .contiguous\(\)"),
        (lambda x: x[::2], "requires a batch that is contiguous in GPU memory"),
    ],
)
def test_invalid_batches(
    core: Any, images: npt.NDArray[np.float32], kind: Any, change: Any, message: str
) -> None:
    with pytest.raises(resrt.InputError, match=message):
        device_arrays.infer(core, kind(change(images)), None)
    assert core.given == []


def test_single_image_is_contiguous_for_any_batch_stride(
    core: Any, images: npt.NDArray[np.float32]
) -> None:
    device_arrays.infer(core, DLPackArray(images[::6], (CUDA, 1)), None)
    assert core.given == [(images.ctypes.data, 1, 1)]


def test_stride_of_an_axis_of_one_is_ignored(core: Any, images: npt.NDArray[np.float32]) -> None:
    strides = (999, *images.strides[1:])
    device_arrays.infer(core, InterfaceArray(images[:1], strides=strides), None)
    assert core.given == [(images.ctypes.data, 1, 1)]


def test_empty_batch_may_have_no_pointer(core: Any, images: npt.NDArray[np.float32]) -> None:
    core.device_of = None
    device_arrays.infer(core, InterfaceArray(images[:0], data=(0, False)), None)
    assert core.given == [(0, 0, 1)]


def test_masked_batch(core: Any, images: npt.NDArray[np.float32]) -> None:
    with pytest.raises(
        resrt.InputError, match="the batch has a mask, which engines do not support"
    ):
        device_arrays.infer(core, InterfaceArray(images, mask=InterfaceArray(images)), None)


def test_batches_in_other_memory(core: Any, images: npt.NDArray[np.float32]) -> None:
    with pytest.raises(resrt.InputError, match=r"of cuda:0, but the engine runs on cuda:1; copy"):
        device_arrays.infer(core, DLPackArray(images, (CUDA, 0)), None)
    core.device_of = lambda pointer: 0
    with pytest.raises(resrt.InputError, match=r"of cuda:0, but the engine runs on cuda:1; copy"):
        device_arrays.infer(core, InterfaceArray(images), None)
    with pytest.raises(resrt.InputError, match="nor in an NVIDIA GPU's memory .*type is 10"):
        device_arrays.infer(core, DLPackArray(images, (ROCM, 0)), None)
    assert core.given == []


@pytest.mark.parametrize("stream", [-1, 2**64, True, 1.5, "0"])
def test_invalid_streams(core: Any, images: npt.NDArray[np.float32], stream: Any) -> None:
    with pytest.raises(
        resrt.InputError, match="stream must be the handle of a CUDA stream, .*, not "
    ):
        device_arrays.infer(core, DLPackArray(images, (CUDA, 1)), stream)


def test_library_that_refuses_to_export(core: Any, images: npt.NDArray[np.float32]) -> None:
    class NeedsGradient(DLPackArray):
        def __dlpack__(self, *, stream: int) -> Any:
            raise BufferError("it requires grad")

    with pytest.raises(resrt.InputError, match="cannot read the batch's memory: it requires grad"):
        device_arrays.infer(core, NeedsGradient(images, (CUDA, 1)), None)


@pytest.mark.parametrize("kind", [lambda array: DLPackArray(array, (CUDA, 1)), InterfaceArray])
def test_logits_keep_the_batch_alive(core: Any, kind: Any) -> None:
    class Array(np.ndarray[Any, Any]):
        """An array that can be weakly referenced."""

    images = np.zeros((1, 3, 32, 32), np.float32).view(Array)
    alive = weakref.ref(images)
    batch = kind(images)
    batch.array = images
    device_arrays.infer(core, batch, None)
    del images, batch
    gc.collect()
    assert alive() is not None
    core.owner = None
    gc.collect()
    assert alive() is None


def test_capsule_can_be_read_only_once(images: npt.NDArray[np.float32]) -> None:
    capsule: Any = images.__dlpack__()
    foreign = _core.ForeignArray(capsule)
    assert (foreign.pointer, foreign.shape) == (images.ctypes.data, (6, 3, 32, 32))
    with pytest.raises(resrt.InputError, match="must return a capsule"):
        _core.ForeignArray(capsule)


def test_cpu_engine_rejects_gpu_batches_and_streams(
    small_engine: resrt.Engine, images: npt.NDArray[np.float32]
) -> None:
    batches: list[Any] = [DLPackArray(images), InterfaceArray(images)]
    for batch in batches:
        with pytest.raises(resrt.InputError, match="backend 'openvino' cannot read GPU memory"):
            small_engine.infer(batch)
    with pytest.raises(resrt.InputError, match="this batch is in host memory; stream is only for"):
        small_engine.infer(images, stream=1)  # type: ignore[call-overload]
    assert small_engine._core.device is None


def test_pinned_memory_is_host_memory(
    small_engine: resrt.Engine, images: npt.NDArray[np.float32]
) -> None:
    class Pinned(DLPackArray):
        def __array__(self, dtype: Any = None, copy: Any = None) -> npt.NDArray[Any]:
            return self.array

    pinned: Any = Pinned(images, (PINNED, 0))
    found = small_engine.infer(pinned)
    np.testing.assert_array_equal(found, small_engine.infer(images))


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the package that has a fake GPU backend."""
    if not (ROOT / "cpp/src").exists():
        pytest.skip("requires the C++ sources")
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None:
        pytest.skip(f"requires the compiler {compiler} to build the fake backend")
    folder = tmp_path_factory.mktemp("site")
    for module in (resrt, _core):
        shutil.copytree(Path(module.__file__).parent, folder / "resrt", dirs_exist_ok=True)
    libraries = folder / "resrt" / "lib"
    subprocess.run(
        [
            *(compiler, "-std=c++20", "-shared", "-fPIC"),
            *(f"-I{ROOT / 'cpp' / part}" for part in ("include", "src")),
            ROOT / "tests/data/fake_gpu.cpp",
            *(f"-L{libraries}", "-lresrt"),
            *("-o", libraries / "libresrt_tensorrt_rtx.so"),
        ],
        check=True,
    )
    return folder


SETUP = """
import ctypes, gc, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
import resrt
from resrt import _core

class Array:
    def __init__(self, array): self.array = array
    def __dlpack_device__(self): return 2, 3
    def __dlpack__(self, *, stream): return self.array.__dlpack__()

def show(*values):
    print(*values, flush=True)

def read(pointer, shape):
    floats = ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float))
    return np.ctypeslib.as_array(floats, shape).tolist()

config = resrt.ResNet(depths=[1])
graph = resrt.build_graph(config, classes=3, input_size=32, name="small")
engine = resrt.build(graph, "random", backend="tensorrt_rtx", max_batch=2)
images = np.zeros((3, 3, 32, 32), np.float32)
images[:, 0, 0, 0] = 10, 20, 30
"""


def run(package: Path, script: str) -> list[str]:
    """Return the lines that the fake backend and the script print."""
    done = subprocess.run(
        [sys.executable, "-c", SETUP + textwrap.dedent(script), package],
        env={**os.environ, "LD_LIBRARY_PATH": str(package / "resrt" / "lib")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


LOGITS = "[[10.0, 11.0, 12.0], [20.0, 21.0, 22.0], [30.0, 31.0, 32.0]]"


def test_logits_live_as_long_as_their_reader(package: Path) -> None:
    assert run(
        package,
        """
        logits = engine.infer(Array(images), stream=7)
        show(logits.shape, logits.__dlpack_device__())
        foreign = _core.ForeignArray(logits.__dlpack__(stream=9, max_version=(1, 0)))
        del logits
        gc.collect()
        show(read(foreign.pointer, foreign.shape), foreign.is_float32, foreign.is_contiguous)
        del foreign
        show("the end")
        """,
    ) == [
        *("allocate 9", "infer 2 in 7", "infer 1 in 7", "end in 7"),
        "(3, 3) (2, 3)",
        *("9 waits", f"{LOGITS} True True"),
        *("free", "the end"),
    ]


def test_logits_keep_their_batch(package: Path) -> None:
    assert run(
        package,
        """
        class Owner(Array):
            def __init__(self, array):
                self.array = array
                self.__cuda_array_interface__ = {
                    "shape": array.shape, "typestr": "<f4", "version": 3,
                    "data": (array.ctypes.data, False),
                }
            __dlpack__ = property()
            __dlpack_device__ = property()
            def __del__(self): show("batch freed")
        logits = engine.infer(Owner(images), stream=7)
        gc.collect()
        show("batch alive")
        foreign = _core.ForeignArray(logits.__dlpack__(stream=-1))
        del logits
        del foreign
        show("the end")
        """,
    )[4:] == ["batch alive", "free", "batch freed", "the end"]


@pytest.mark.parametrize("stream", [0, -2])
def test_invalid_streams_for_dlpack(package: Path, stream: int) -> None:
    said = run(
        package,
        f"""
        try:
            engine.infer(Array(images), stream=7).__dlpack__(stream={stream})
        except ValueError as error:
            show(error)
        """,
    )
    assert f"invalid CUDA stream for DLPack: {stream}" in said


def test_unread_logits_are_freed(package: Path) -> None:
    assert run(
        package,
        """
        logits = engine.infer(Array(images[:0]))
        capsule = logits.__dlpack__(stream=-1)
        del logits, capsule
        show("the end")
        """,
    ) == ["allocate 0", "end in 1", "free", "the end"]


def test_logits_through_the_cuda_array_interface(package: Path) -> None:
    assert run(
        package,
        """
        logits = engine.infer(Array(images), stream=7)
        interface = logits.__cuda_array_interface__
        pointer, is_read_only = interface.pop("data")
        show(sorted(interface.items()), is_read_only, read(pointer, interface["shape"]))
        del logits
        """,
    )[4:] == [
        "[('shape', (3, 3)), ('stream', 7), ('strides', None), ('typestr', '<f4'), ('version', 3)]"
        f" False {LOGITS}",
        "free",
    ]


def test_logits_are_not_copied_to_other_memory(package: Path) -> None:
    assert run(
        package,
        """
        logits = engine.infer(Array(images), stream=7)
        for wish in ({"dl_device": (1, 0)}, {"copy": True}):
            try:
                logits.__dlpack__(stream=9, **wish)
            except BufferError as error:
                show(error)
        """,
    )[4:6] == [
        "logits can only be exported to the GPU that they are on",
        "logits can only be exported uncopied",
    ]
