"""The TensorRT backends, as far as they can be tested without a GPU: TensorRT for RTX can build.

cpp/tests/tensorrt checks what their networks compute.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import resrt
from resrt import _core

RTX = "tensorrt_rtx"


def status(backend: str) -> _core.BackendStatus:
    return next(status for status in resrt.backends() if status.name == backend)


@pytest.fixture(scope="module", autouse=True)
def _rtx() -> None:
    if why_not := status(RTX).why_not:
        pytest.skip(f"TensorRT for RTX cannot build engines here: {why_not}")


@pytest.fixture
def without_gpu() -> str:
    """The reason why no GPU can be used; tests that require one to be absent are skipped."""
    why = status(RTX).why_build_only
    if why is None:
        pytest.skip("requires a machine without a GPU")
    return why


def distinct_networks() -> list[resrt.Graph]:
    """Return the networks with published figures; some of these share an architecture."""
    names = [info.name for info in resrt.list_models() if info.published]
    assert len(names) == 21
    graphs = [resrt.build_graph(name) for name in names]
    return list({str(graph).split("\n", 1)[1]: graph for graph in graphs}.values())


@pytest.mark.parametrize("graph", distinct_networks(), ids=lambda graph: graph.name)
def test_every_published_network_builds(
    graph: resrt.Graph, caplog: pytest.LogCaptureFixture
) -> None:
    sizes = {}
    for precision in ("fp32", "fp16"):
        caplog.clear()
        with caplog.at_level(logging.INFO, "resrt.tensorrt_rtx"):
            engine = resrt.build(graph, "random", backend=RTX, precision=precision, max_batch=4)
        info = engine.info
        assert (info.backend, info.precision, info.max_batch) == (RTX, precision, 4)
        assert (info.input_shape, info.classes) == (graph.input_shape, 1000)
        assert "Detected 1 inputs and 1 output network tensors" in caplog.text
        assert not [record for record in caplog.records if record.levelno > logging.INFO]

        plan = engine.plan
        # TensorRT keeps the names of the layers.
        for layer in graph.layers:
            assert layer.kind != "Conv2d" or layer.name.encode() in plan
        sizes[precision] = len(plan)
    values = graph.cost.parameters
    assert 4 * values < sizes["fp32"] < 4.4 * values + 1e6
    assert 2 * values < sizes["fp16"] < 2.4 * values + 1e6


@pytest.fixture(scope="module")
def small(small_graph: resrt.Graph) -> resrt.Engine:
    return resrt.build(small_graph, "random", backend=RTX, precision="fp16", max_batch=4)


def test_built_engine_cannot_run_without_a_gpu(
    small: resrt.Engine, tmp_path: Path, without_gpu: str
) -> None:
    assert "no NVIDIA GPU can be used here" in without_gpu
    with pytest.raises(resrt.BackendError, match="only built.*no NVIDIA GPU can be used here"):
        small.infer(np.zeros((1, 3, 32, 32), np.float32))
    small.save(tmp_path / "small.engine")
    assert resrt.inspect(tmp_path / "small.engine").why_not == without_gpu
    with pytest.raises(resrt.BackendError, match=r"^no NVIDIA GPU can be used here.*[^.]$"):
        resrt.load(tmp_path / "small.engine")


def test_precisions(small_graph: resrt.Graph) -> None:
    plans = set()
    for precision in ("fp32", "tf32", "bf16", "fp16"):
        engine = resrt.build(small_graph, "random", backend=RTX, precision=precision)
        assert engine.info.precision == precision
        plans.add(engine.plan)
    assert len(plans) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workspace": -1}, r"workspace must be from 0 to \d+ MiB, not -1"),
        ({"workspace": 2**62}, r"workspace must be from 0 to \d+ MiB, not \d+"),
        ({"optimization_level": 6}, "from 0 to 5, not 6"),
        ({"optimization_level": -1}, "from 0 to 5, not -1"),
        ({"optimum_batch": 5}, r"from 1 to max_batch \(4\), not 5"),
        ({"compute_capabilities": [86, 90]}, "not support compute capability 90; choose from 75"),
        ({"timing_cache": "cache"}, "leave out timing_cache"),
        ({"hardware_compatibility": "ampere+"}, "hardware_compatibility; use compute_capabilities"),
        ({"version_compatible": True}, "leave out version_compatible"),
        ({"split_attention_plugin": True}, "does not support plugins"),
        ({"lowering": ["fast"]}, "there is no lowering 'fast'; choose from split, dense"),
    ],
)
def test_invalid_options(small_graph, options, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(resrt.InputError, match=message):
        resrt.build(
            small_graph,
            "random",
            backend=RTX,
            max_batch=4,
            tensorrt=resrt.TensorRTOptions(**options),
        )


def test_options_of_the_wrong_type(small_graph: resrt.Graph) -> None:
    with pytest.raises(resrt.InputError, match="'ampere'; choose one of none, ampere+"):
        resrt.TensorRTOptions(hardware_compatibility="ampere")
    with pytest.raises(resrt.InputError, match="a resrt.TensorRTOptions, not dict"):
        resrt.build(small_graph, "random", backend=RTX, tensorrt={})  # type: ignore[arg-type]
    with pytest.raises(resrt.InputError, match="'openvino' does not support TensorRT options"):
        resrt.build(small_graph, "random", tensorrt=resrt.TensorRTOptions())
    for device in ("cpu", "cuda:", "cuda:-1", "gpu0"):
        with pytest.raises(
            resrt.InputError, match="device must be a GPU such as 'cuda' or 'cuda:1'"
        ):
            resrt.build(small_graph, "random", backend=RTX, device=device)


def test_options_reach_tensorrt(
    small_graph: resrt.Graph, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def build(name: str, **options: object) -> tuple[bytes, str]:
        caplog.clear()
        with caplog.at_level(logging.DEBUG, "resrt.tensorrt_rtx"):
            engine = resrt.build(
                small_graph,
                "random",
                backend=RTX,
                precision="fp16",
                max_batch=4,
                tensorrt=resrt.TensorRTOptions(**options),  # type: ignore[arg-type]
            )
        engine.save(tmp_path / name)
        return (tmp_path / name).read_bytes(), caplog.text

    plain, _ = build("plain")
    for_turing, _ = build("for_turing", compute_capabilities=[75])
    for_two, _ = build("for_two", compute_capabilities=[75, 120])
    assert len({plain, for_turing, for_two}) == 3
    for_one_image, _ = build("for_one_image", optimum_batch=1)
    assert for_one_image != plain
    _, log = build("quick", optimization_level=0)
    assert "at optimization level 0" in log
    with pytest.raises(resrt.BackendError, match="could not build small: .*workspace limit"):
        build("cramped", workspace=1)
    with pytest.raises(resrt.PrecisionError, match="capability 75 do not support bf16"):
        resrt.build(
            small_graph,
            "random",
            backend=RTX,
            precision="bf16",
            tensorrt=resrt.TensorRTOptions(compute_capabilities=[75]),
        )


def test_build_reports_progress(small_graph: resrt.Graph) -> None:
    steps: list[tuple[str, int, int]] = []
    resrt.build(small_graph, "random", backend=RTX, progress=lambda *step: steps.append(step))
    assert len(steps) > 10
    assert all(0 <= done <= of for _, done, of in steps)
    name, first, last = steps[0][0], steps[0], steps[-1]
    assert first == (name, 0, first[2])
    assert last == (name, first[2], first[2])  # the outermost phase comes first and last


def test_exception_in_progress_stops_the_build(small_graph: resrt.Graph) -> None:
    calls = 0

    def interrupt(phase: str, done: int, steps: int) -> None:
        nonlocal calls
        calls += 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resrt.build(small_graph, "random", backend=RTX, progress=interrupt)
    assert calls == 1


def test_messages_go_to_logging(
    small_graph: resrt.Graph, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG, "resrt"):
        resrt.build(small_graph, "random", backend=RTX)
    names = {record.name for record in caplog.records}
    assert names == {"resrt.tensorrt_rtx", "resrt.engine"}  # the latter logs that it was built
    assert {logging.DEBUG, logging.INFO} <= {record.levelno for record in caplog.records}
    assert capfd.readouterr() == ("", "")


def test_network_that_tensorrt_rejects() -> None:
    """One of its tensors is larger than TensorRT supports."""
    graph = resrt.build_graph(
        resrt.ResNet(depths=[1]), input_size=50000, in_channels=4096, classes=2, name="huge"
    )
    with pytest.raises(resrt.BackendError, match="could not build huge: .*volume exceeds"):
        resrt.build(graph, "random", backend=RTX, precision="fp32", max_batch=1)


def test_several_threads_build_at_once(small_graph: resrt.Graph, tmp_path: Path) -> None:
    def build(i: int) -> None:
        resrt.build(small_graph, "random", backend=RTX, precision="fp16").save(tmp_path / str(i))

    threads = [threading.Thread(target=build, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(tmp_path.iterdir())) == 4


# A library that claims to be a version of TensorRT for RTX.
IMPOSTOR = """
extern "C" int getInferLibVersion() { return %d; }
"""


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (IMPOSTOR % 10500, "is TensorRT for RTX 1.5.0, but this resrt was built for 1."),
        (IMPOSTOR % 20000, "is TensorRT for RTX 2.0.0, but this resrt was built for 1."),
        ("", "does not export getInferLibVersion"),
        (None, "cannot open TensorRT for RTX 1 .*pip install 'resrt.tensorrt-rtx.'"),
    ],
    ids=["older", "of another major version", "another library", "none"],
)
def test_incompatible_libraries(source, message, tmp_path) -> None:  # type: ignore[no-untyped-def]
    # A copy of the package that has no wheels next to it.
    for module in (resrt, _core):
        shutil.copytree(Path(module.__file__).parent, tmp_path / "resrt", dirs_exist_ok=True)
    if source is not None:
        (tmp_path / "impostor.cpp").write_text(source)
        compiler = os.environ.get("CXX", "c++")
        library = tmp_path / "libtensorrt_rtx.so.1"
        subprocess.run(
            [compiler, "-shared", "-fPIC", tmp_path / "impostor.cpp", "-o", library], check=True
        )
    script = (
        "import importlib.util, sys\n"
        "find_spec = importlib.util.find_spec\n"
        # The core is not told of any folder that contains wheels of inference libraries.
        "packages = ('openvino', 'tensorrt')\n"
        "importlib.util.find_spec = lambda name: (\n"
        "    None if any(package in name for package in packages) else find_spec(name))\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "import resrt\n"
        "print(next(b for b in resrt.backends() if b.name == 'tensorrt_rtx').why_not)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, tmp_path],
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.search(message, result.stdout), result.stdout
