"""Engines: inference, precision, threads, files."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import shutil
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import resrt
from resrt import _core
from support.paths import DATA

Batch = npt.NDArray[np.float32]


def test_any_batch_size_gives_each_image_its_logits(
    small_engine: resrt.Engine, images: Batch
) -> None:
    one_by_one = np.concatenate([small_engine.infer(image[None]) for image in images])
    for size in range(len(images) + 1):  # max_batch is 4
        logits = small_engine.infer(images[:size])
        assert logits.shape == (size, 7)
        assert logits.dtype == np.float32
        np.testing.assert_array_equal(logits, one_by_one[:size])
    assert np.abs(one_by_one).max() > 1e-3


def test_logits_do_not_depend_on_the_batch_under_load(
    small_engine: resrt.Engine, tmp_path: Path
) -> None:
    """Concurrent batches of all sizes give each image the same logits, to the bit."""
    small_engine.save(tmp_path / "engine")
    engine = resrt.load(tmp_path / "engine", optimize_for="throughput")
    images = np.random.default_rng(1).standard_normal((9, 3, 32, 32), np.float32)
    expected = np.concatenate([engine.infer(image[None]) for image in images])

    def infer(number: int) -> bool:
        start, size = number % 5, 1 + number % 4
        return np.array_equal(engine.infer(images[start:][:size]), expected[start:][:size])

    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        assert all(pool.map(infer, range(500)))


def pictures(count: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 256, (count, 3, 32, 32), np.uint8)


def test_pictures_are_normalised(small_engine: resrt.Engine) -> None:
    """uint8 pictures of either layout give the logits of the normalised images, to the bit."""
    info, uint8 = small_engine.info, pictures(6)
    mean, std = (
        np.array(values, np.float32)[:, None, None]
        for values in (info.preprocessing.mean, info.preprocessing.std)
    )
    expected = small_engine.infer((uint8 / np.float32(255) - mean) / std)
    np.testing.assert_array_equal(small_engine.infer(uint8), expected)
    np.testing.assert_array_equal(small_engine.infer(uint8.transpose(0, 2, 3, 1)), expected)
    assert small_engine.infer(uint8[:0]).shape == (0, 7)


def test_logits_into_an_array(small_engine: resrt.Engine, images: Batch) -> None:
    out = np.full((len(images), 7), np.nan, np.float32)
    assert small_engine.infer(images, out=out) is out
    np.testing.assert_array_equal(out, small_engine.infer(images))
    read_only = out.copy()
    read_only.flags.writeable = False
    for wrong, message in (
        (out[:-1], r"float32 array of shape \(6, 7\), not float32 \(5, 7\)"),
        (out.astype(np.float64), "not float64"),
        ([0.0], "not list"),
        (np.repeat(out, 2, axis=1)[:, ::2], "contiguous"),
        (read_only, "writeable"),
    ):
        with pytest.raises(resrt.InputError, match=message):
            small_engine.infer(images, out=wrong)  # type: ignore[arg-type]


def test_inferences_that_are_awaited(small_engine: resrt.Engine, images: Batch) -> None:
    async def infer_all() -> list[Batch]:
        batches = (images[:size] for size in range(1, 7))
        return await asyncio.gather(*map(small_engine.infer_async, batches))

    for size, logits in enumerate(asyncio.run(infer_all()), 1):
        np.testing.assert_array_equal(logits, small_engine.infer(images[:size]))
    with pytest.raises(resrt.InputError, match="float64"):
        asyncio.run(small_engine.infer_async(images.astype(np.float64)))


@pytest.mark.parametrize(
    "options",
    [
        {"warm_up": False},
        {"warm_up": (4, 2)},
        {"batch_sizes": [2]},
        {"batch_sizes": [4, 1], "optimize_for": "throughput"},
        {"pin_threads": False},
        {"threads": 1, "pin_threads": True},
    ],
)
def test_options_of_loading_keep_the_logits(
    small_engine: resrt.Engine, images: Batch, tmp_path: Path, options: dict[str, Any]
) -> None:
    small_engine.save(tmp_path / "engine")
    loaded = resrt.load(tmp_path / "engine", **options)
    np.testing.assert_allclose(
        loaded.infer(images), small_engine.infer(images), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warm_up": (5,)}, "warm_up must have batch sizes from 1 to 4, the engine's max_batch"),
        ({"warm_up": [0]}, "warm_up must be an integer of at least 1, not 0"),
        ({"batch_sizes": [1, 8]}, "batch_sizes must have batch sizes from 1 to 4"),
        ({"optimize_for": "memory"}, "latency or throughput, not memory"),
        ({"optimize_for": "throughput", "threads": 2}, "leave out threads"),
    ],
)
def test_invalid_options_of_loading(
    small_engine: resrt.Engine, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    small_engine.save(tmp_path / "engine")
    with pytest.raises(resrt.InputError, match=message):
        resrt.load(tmp_path / "engine", **options)


def test_memory_layout_does_not_matter(small_engine: resrt.Engine, images: Batch) -> None:
    expected = small_engine.infer(images)
    channels_last = np.ascontiguousarray(images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    doubled = np.repeat(images, 2, axis=0)[::2]
    padded = np.pad(images, ((0, 0), (0, 0), (0, 0), (3, 5)))[..., 3:-5]
    unaligned = np.frombuffer(b"x" + images.tobytes(), np.float32, offset=1).reshape(images.shape)
    reversed_twice = images[::-1].copy()[::-1]
    for layout in (channels_last, doubled, padded, unaligned, reversed_twice):
        np.testing.assert_array_equal(small_engine.infer(layout), expected)
    images.flags.writeable = False
    np.testing.assert_array_equal(small_engine.infer(images), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.astype(np.float64), r"float32 .*not float64.*astype"),
        (lambda x: x.astype(np.uint8)[:, :2], r"\(N, 3, 32, 32\) or \(N, 32, 32, 3\), not \(6, 2"),
        (lambda x: x.astype(np.uint8)[0], r"uint8 .*not a single image of shape .*image\[None\]"),
        (lambda x: x[0], r"not a single image of shape .*image\[None\]"),
        (lambda x: x[:, :1], r"\(N, 3, 32, 32\), not \(6, 1, 32, 32\)"),
        (lambda x: x[..., :31], r"not \(6, 3, 32, 31\)"),
        (lambda x: x.transpose(0, 2, 3, 1), r"not \(6, 32, 32, 3\)"),
        (lambda x: np.float32(1), r"not \(\)"),
        (lambda x: x[:0, :2], r"not \(0, 2, 32, 32\)"),
        (lambda x: "cat.jpg", r"float32"),
    ],
)
def test_invalid_batches(small_engine, images, change, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(resrt.InputError, match=message):
        small_engine.infer(change(images))


def test_many_threads_share_an_engine(small_engine: resrt.Engine) -> None:
    rng = np.random.default_rng(0)
    batches = [rng.standard_normal((n % 7, 3, 32, 32)).astype(np.float32) for n in range(64)]
    expected = [small_engine.infer(batch) for batch in batches]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        for got, wanted in zip(pool.map(small_engine.infer, batches), expected, strict=True):
            np.testing.assert_array_equal(got, wanted)


def test_inference_releases_the_interpreter_lock() -> None:
    """A pure Python thread keeps counting while a long inference runs."""
    engine = resrt.build("resnet50", "random", max_batch=8)
    batch = np.zeros((8, 3, 224, 224), np.float32)
    count, done = 0, threading.Event()

    def infer() -> None:
        engine.infer(batch)
        done.set()

    thread = threading.Thread(target=infer)
    thread.start()
    while not done.is_set():
        count += 1
        time.sleep(0.0005)
    thread.join()
    assert count > 10  # with the lock held, it would be 1 or 2


def test_labels_may_be_empty_strings(tmp_path: Path) -> None:
    config = resrt.ResNet(depths=[1], width=8)
    for listed in ([""], ["", "", "x"], ["x", ""]):
        engine = resrt.build(
            config, "random", input_size=8, classes=len(listed), labels=listed, max_batch=1
        )
        engine.save(tmp_path / "engine")
        assert resrt.load(tmp_path / "engine").info.labels == listed


def test_precisions(small_graph: resrt.Graph, images: Batch) -> None:
    available = resrt.backends()[0].precisions
    assert "fp32" in available
    assert resrt.build(small_graph, "random").info.precision == available[0]
    exact = resrt.build(small_graph, "random", precision="fp32").infer(images)
    for precision in set(available) - {"fp32", "int8"}:  # tests/operations/test_calibrate.py
        reduced = resrt.build(small_graph, "random", precision=precision).infer(images)
        assert not np.array_equal(reduced, exact)  # the precision has an effect
        np.testing.assert_allclose(reduced, exact, rtol=0, atol=0.03 * np.abs(exact).max())
    for precision in {"bf16", "fp16"} - set(available):
        with pytest.raises(
            resrt.PrecisionError, match=f"does not support precision {precision}.*one of"
        ):
            resrt.build(small_graph, "random", precision=precision)
    with pytest.raises(
        resrt.PrecisionError, match="'fp64'.*auto, fp32, tf32, bf16, fp16, int8, fp8"
    ):
        resrt.build(small_graph, "random", precision="fp64")


def test_random_weights_are_seeded_and_keep_deep_networks_finite(images: Batch) -> None:
    graph = resrt.build_graph("ResNet152_vd", input_size=32)
    first, second = (resrt.build(graph, "random", max_batch=2).infer(images[:2]) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert np.isfinite(first).all()
    assert first.std() > 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_batch": 0}, "max_batch must be"),
        ({"max_batch": 2.5}, "max_batch must be"),
        ({"max_batch": 2**31 - 1}, "max_batch must be from 1 to 1024"),
        ({"precision": None}, "precision must be a str, not None"),
        ({"backend": 3}, "backend must be a str, not 3"),
        ({"labels": [1] * 7}, "labels must be str, one for each class"),
        ({"preprocessing": 5}, "not int"),
        ({"threads": -1}, "threads must be"),
        ({"labels": ["a", "b"]}, "2 labels for 7 classes"),
        ({"labels": ["a\nb"] * 7}, "single lines"),
        ({"classes": 5}, "a graph already has its input size"),
    ],
)
def test_invalid_build_options(small_graph, tmp_path, options, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(resrt.InputError, match=message):
        resrt.build(small_graph, "random", **options).save(tmp_path / "file.engine")
    assert list(tmp_path.iterdir()) == []


def test_unknown_backend(small_graph: resrt.Graph) -> None:
    with pytest.raises(resrt.BackendError, match="no backend named 'onednn'.*openvino"):
        resrt.build(small_graph, "random", backend="onednn")


def test_backend_whose_library_is_missing(tmp_path: Path) -> None:
    """Without OpenVINO the package imports, describes networks, and says what to install."""
    script = (
        "import importlib.util, sys\n"
        "find_spec = importlib.util.find_spec\n"
        # The core is not told of any folder that contains wheels of inference libraries.
        "packages = ('openvino', 'tensorrt')\n"
        "importlib.util.find_spec = lambda name: (\n"
        "    None if any(package in name for package in packages) else find_spec(name))\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "import resrt\n"
        "resrt.build_graph('resnet18')\n"
        "try: resrt.build('resnet18', 'random')\n"
        "except resrt.BackendError as error: print(error)\n"
        "print(resrt.backends()[0].why_not)"
    )
    assert run_in_copy(script, tmp_path).count("pip install openvino==") == 2


def test_library_in_another_folder_of_packages(tmp_path: Path) -> None:
    """OpenVINO is found wherever Python finds its wheel."""
    script = (
        "import sys\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "import resrt\n"
        "print(resrt.__file__, resrt.backends()[0].why_not)"
    )
    assert run_in_copy(script, tmp_path) == f"{tmp_path}/resrt/__init__.py None\n"


def run_in_copy(script: str, folder: Path) -> str:
    """Run a script with a copy of the package in a folder that has no OpenVINO next to it."""
    for module in (resrt, _core):  # an editable installation has two folders
        shutil.copytree(Path(module.__file__).parent, folder / "resrt", dirs_exist_ok=True)
    environment = {k: v for k, v in os.environ.items() if k != "LD_LIBRARY_PATH"}
    command = [sys.executable, "-c", script, str(folder)]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout


def test_packages_of_a_backends_library() -> None:
    assert _core.library_packages("openvino") == ["openvino"]
    assert _core.library_packages("tensorrt") == ["tensorrt_libs"]
    with pytest.raises(resrt.BackendError, match="no backend named 'onednn'"):
        _core.library_packages("onednn")
    assert all(status.install.startswith("pip install ") for status in resrt.backends())


class TestFile:
    def test_loaded_engine_equals_the_saved_one(
        self, small_engine: resrt.Engine, images: Batch, tmp_path: Path
    ) -> None:
        small_engine.save(tmp_path / "small.engine")
        loaded = resrt.load(tmp_path / "small.engine")
        np.testing.assert_array_equal(loaded.infer(images), small_engine.infer(images))
        assert repr(loaded) == repr(small_engine)
        loaded.save(tmp_path / "again.engine")
        files = sorted(tmp_path.iterdir())
        assert [file.name for file in files] == ["again.engine", "small.engine"]
        assert files[0].read_bytes() == files[1].read_bytes()
        assert loaded.plan == small_engine.plan
        assert loaded.plan in files[0].read_bytes()

    def test_file_contains_the_metadata(self, small_graph: resrt.Graph, tmp_path: Path) -> None:
        labels = [f"class {i}, größer" for i in range(7)]
        steps = resrt.Preprocessing(
            resize=40, interpolation="bicubic", mean=[0.1, 0.25, 1 / 3], std=[0.5, 0.7, 0.123456]
        )
        engine = resrt.build(
            small_graph, "random", labels=labels, preprocessing=steps, precision="fp32", max_batch=3
        )
        engine.save(tmp_path / "file")
        info = resrt.load(tmp_path / "file").info
        assert (info.model, info.backend, info.precision) == ("small", "openvino", "fp32")
        assert (info.input_shape, info.classes, info.max_batch) == ((3, 32, 32), 7, 3)
        assert (info.weights, info.labels) == ("random", labels)
        assert info.preprocessing.resize == 40
        assert info.preprocessing.interpolation == "bicubic"
        assert info.preprocessing.mean == engine.info.preprocessing.mean
        assert info.preprocessing.std == engine.info.preprocessing.std

    @pytest.fixture
    def saved(self, small_engine: resrt.Engine, tmp_path: Path) -> Path:
        path = tmp_path / "saved.engine"
        small_engine.save(path)
        return path

    def test_truncated(self, saved: Path) -> None:
        content = saved.read_bytes()
        lengths = [1, 7, 8, 11, 12, 19, 20, 30, 200, len(content) // 2, len(content) - 1]
        for length in lengths:
            saved.write_bytes(content[:length])
            with pytest.raises(resrt.EngineFileError, match="cut short"):
                resrt.load(saved)

    def test_altered(self, saved: Path) -> None:
        content = saved.read_bytes()
        for position in [40, 100, len(content) // 2, len(content) - 5, len(content) - 1]:
            changed = bytearray(content)
            changed[position] ^= 0x20
            saved.write_bytes(changed)
            with pytest.raises(resrt.EngineFileError, match="altered or damaged|cut short"):
                resrt.load(saved)

    def test_too_long(self, saved: Path) -> None:
        saved.write_bytes(saved.read_bytes() + b"\0")
        with pytest.raises(resrt.EngineFileError, match="1 extra bytes"):
            resrt.load(saved)

    def test_impossible_lengths(self, saved: Path) -> None:
        content = saved.read_bytes()
        for length in (2**64 - 1, 2**63, 2**40):
            saved.write_bytes(content[:12] + struct.pack("<Q", length) + content[20:])
            with pytest.raises(resrt.EngineFileError, match="cut short"):
                resrt.load(saved)

    def test_other_format_version(self, saved: Path) -> None:
        content = saved.read_bytes()
        saved.write_bytes(content[:8] + struct.pack("<I", 99) + content[12:])
        with pytest.raises(resrt.EngineFileError, match="version 99.*version 2.*build"):
            resrt.load(saved)

    def rewrite(self, saved: Path, old: bytes, new: bytes) -> None:
        """Change an entry of the metadata to one of the same length, and update the checksum."""
        assert len(old) == len(new)
        content = saved.read_bytes()[:-4]
        assert content.count(old) >= 1
        content = content.replace(old, new, 1)
        saved.write_bytes(content + struct.pack("<I", zlib.crc32(content)))

    def test_other_library_version(
        self, saved: Path, images: Batch, caplog: pytest.LogCaptureFixture
    ) -> None:
        expected = resrt.load(saved).infer(images)
        self.rewrite(saved, b"2026.4.1", b"2025.1.0")
        with caplog.at_level("INFO", logger="resrt"):
            loaded = resrt.load(saved)
        assert "built with openvino 2025.1.0, but version 2026.4.1 is installed" in caplog.text
        np.testing.assert_array_equal(loaded.infer(images), expected)

    def test_file_of_the_previous_version_of_openvino(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The file is what this code saves with OpenVINO 2026.3.1 installed."""
        with caplog.at_level("INFO", logger="resrt"):
            loaded = resrt.load(DATA / "engines/openvino-2026.3.1.engine")
        assert "built with openvino 2026.3.1, but version" in caplog.text
        config = resrt.ResNet(depths=[1, 1], width=4)
        built = resrt.build(
            config, "random", input_size=32, classes=7, max_batch=4, precision="fp32"
        )
        images = np.random.default_rng(0).standard_normal((5, 3, 32, 32), np.float32)
        np.testing.assert_allclose(loaded.infer(images), built.infer(images), rtol=1e-5, atol=1e-6)

    def test_other_library_version_with_operations_that_are_unknown(self, saved: Path) -> None:
        self.rewrite(saved, b"2026.4.1", b"2027.1.0")
        self.rewrite(saved, b'type="Convolution"', b'type="Convolutiom"')
        with pytest.raises(
            resrt.EngineFileError,
            match=r"(?s)openvino 2027.1.0, but version 2026.4.1 is .*Convolutiom",
        ):
            resrt.load(saved)

    def test_unknown_backend(self, saved: Path) -> None:
        self.rewrite(saved, b"openvino", b"openwine")
        with pytest.raises(resrt.BackendError, match="openwine"):
            resrt.load(saved)

    def test_invalid_metadata_with_a_valid_checksum(self, saved: Path) -> None:
        self.rewrite(saved, b"max_batch\x01\0\0\x004", b"max_batch\x01\0\0\x00x")
        with pytest.raises(resrt.EngineFileError, match="'max_batch' = 'x', which is not a number"):
            resrt.load(saved)
        self.rewrite(saved, b"max_batch\x01\0\0\x00x", b"max_botch\x01\0\0\x004")
        with pytest.raises(resrt.EngineFileError, match="lacks the entry 'max_batch'"):
            resrt.load(saved)

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            (b"\x04\0\0\0fp32", b"\x04\0\0\0auto", "not a valid precision"),
            (b"\x04\0\0\0fp32", b"\x04\0\0\0fp99", "not a valid precision"),
            (b"bilinear", b"bilineal", "inconsistent: there is no interpolation"),
            (b"height\x02\0\0\x0032", b"height\x02\0\0\x00-2", "'height' = -2"),
            (b"0.485 0.456", b"inf 0.45678", "'inf', which is not a number"),
        ],
    )
    def test_invalid_values(self, saved: Path, old: bytes, new: bytes, message: str) -> None:
        self.rewrite(saved, old, new)
        with pytest.raises(resrt.EngineFileError, match=message):
            resrt.load(saved)

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x04.", b"\0" * 1000])
    def test_other_files(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "no.engine"
        path.write_bytes(content)
        with pytest.raises(resrt.EngineFileError, match="is not a resrt engine file: it"):
            resrt.load(path)

    def test_invalid_paths(self, small_engine: resrt.Engine, tmp_path: Path) -> None:
        with pytest.raises(resrt.FileError, match="missing.engine': No such file"):
            resrt.load(tmp_path / "missing.engine")
        with pytest.raises(resrt.FileError, match="regular file"):
            resrt.load(tmp_path)
        with pytest.raises(resrt.FileError, match="No such file"):
            small_engine.save(tmp_path / "nowhere" / "x.engine")
        with pytest.raises(resrt.FileError, match="cannot write '.*': Is a directory"):
            small_engine.save(tmp_path)
        with pytest.raises(resrt.FileError, match="null character"):
            resrt.load(f"{tmp_path}/x.engine\0.txt")
        with pytest.raises(resrt.FileError, match="not 3"):
            small_engine.save(3)  # type: ignore[arg-type]
        odd = tmp_path / "größe \udcff.engine"  # a name that is not valid UTF-8
        small_engine.save(odd)
        assert resrt.load(odd).info.model == "small"
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(resrt.FileError, match="regular file"):
            resrt.load(tmp_path / "pipe")
        with pytest.raises(OSError, match="missing"):  # FileError is also the matching built-in
            resrt.load(tmp_path / "missing.engine")

    def test_options_for_gpus_only(self, small_graph: resrt.Graph, saved: Path) -> None:
        for device in ("cuda", "cuda:0", "cuda:1"):
            with pytest.raises(resrt.InputError, match="does not run on a GPU; leave out device"):
                resrt.load(saved, device=device)
            with pytest.raises(resrt.InputError, match="does not run on a GPU; leave out device"):
                resrt.build(small_graph, "random", device=device)
        with pytest.raises(resrt.InputError, match="TensorRT options; leave out runtime_cache"):
            resrt.load(saved, runtime_cache=saved.with_name("kernels"))
        assert not saved.with_name("kernels").exists()

    def test_saving_keeps_links_permissions_and_pipes(
        self, small_engine: resrt.Engine, saved: Path
    ) -> None:
        saved.chmod(0o600)
        link = saved.with_name("link.engine")
        link.symlink_to(saved)
        small_engine.save(link)
        assert link.is_symlink()
        assert saved.stat().st_mode & 0o777 == 0o600
        assert resrt.load(link).info.model == "small"
        pipe = saved.with_name("pipe")
        os.mkfifo(pipe)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            received = pool.submit(pipe.read_bytes)
            small_engine.save(pipe)
            assert received.result(timeout=60) == saved.read_bytes()
        assert pipe.is_fifo()
        names = {file.name for file in saved.parent.iterdir()}
        assert names == {"link.engine", "pipe", "saved.engine"}

    def test_failed_save_leaves_the_old_file(self, small_engine: resrt.Engine, saved: Path) -> None:
        before = saved.read_bytes()
        script = (
            "import resource, resrt, sys\n"
            "engine = resrt.load(sys.argv[1])\n"
            "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
            "try: engine.save(sys.argv[1])\n"
            "except resrt.FileError as error: print(error)\n"
        )
        result = subprocess.run(
            [sys.executable, "-c", script, str(saved)], capture_output=True, text=True, check=True
        )
        assert "File too large" in result.stdout
        assert saved.read_bytes() == before
        assert [file.name for file in saved.parent.iterdir()] == [saved.name]


def test_timing(small_engine: resrt.Engine) -> None:
    timings = small_engine.time((1, 3), repeats=7)
    assert [(timing.batch, timing.repeats) for timing in timings] == [(1, 7), (3, 7)]
    for timing in timings:
        assert 0 < timing.min_ms <= timing.median_ms <= timing.p90_ms <= timing.p99_ms
        assert timing.images_per_second * timing.seconds == pytest.approx(7 * timing.batch)
    with pytest.raises(resrt.InputError, match="a batch size must be"):
        small_engine.time((0,))
    with pytest.raises(resrt.InputError, match="repeats must be"):
        small_engine.time(repeats=0)


def test_log_records_have_fields(
    small_engine: resrt.Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small_engine.save(tmp_path / "small.engine")
    with caplog.at_level("INFO", logger="resrt.engine"):
        resrt.load(tmp_path / "small.engine")
    (record,) = [found for found in caplog.records if found.name == "resrt.engine"]
    assert record.getMessage().startswith("loaded small for openvino in ")
    for name in ("backend", "backend_version", "precision", "max_batch", "weights_sha256"):
        assert getattr(record, name) == getattr(small_engine.info, name)
    assert vars(record)["network"] == "small"
    assert vars(record)["seconds"] > 0
