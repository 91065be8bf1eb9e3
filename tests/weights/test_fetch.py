"""Pretrained weights by name: the cache, mirrors, the Hugging Face hub, and building by name."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

import resrt
from resrt import _core
from resrt.weights import formats
from resrt.weights.formats.checkpoint import Checkpoint
from support.weights_server import (
    FILE,
    HALF,
    NAME,
    OTHER,
    WEIGHTS,
    Handler,
    Server,
    cut,
    left_in,
    ranged,
    stall,
    whole,
)

pytestmark = pytest.mark.usefixtures("folder")

# --- Fetching ---


def test_a_file_is_downloaded_once(server: Server, folder: Path) -> None:
    path = resrt.fetch(NAME)
    assert path == folder / FILE
    assert path.read_bytes() == WEIGHTS
    assert left_in(folder) == {FILE, f"{FILE}.sha256"}
    assert server.requests[0][0] == f"/dygraph/legendary_models/{FILE}"
    assert resrt.fetch(NAME) == resrt.fetch(NAME, offline=True) == path
    assert len(server.requests) == 1


def test_names_without_pretrained_weights() -> None:
    with pytest.raises(resrt.WeightsError, match="'resnet18.b1'.*resnet18.a1_in1k, resnet18.a2"):
        resrt.fetch("resnet18.b1")
    with pytest.raises(resrt.WeightsError, match="no pretrained weights for cifar_resnet20"):
        resrt.fetch("cifar_resnet20")


def test_progress_is_reported_in_bytes(server: Server) -> None:
    server.answers = [cut(), whole(Content_Length=None)]
    seen: list[tuple[int, int | None]] = []
    resrt.fetch(NAME, progress=lambda *sizes: seen.append(sizes))
    before = [size for size, total in seen if total == len(WEIGHTS)]
    after = [size for size, total in seen if total is None]
    assert before == sorted(before)
    assert before[-1] == HALF
    assert after == sorted(after)
    assert after[-1] == len(WEIGHTS)
    assert len(seen) == len(before) + len(after)


def test_an_error_of_the_progress_function_is_raised(server: Server, folder: Path) -> None:
    def closed(received: int, total: int | None) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        resrt.fetch(NAME, progress=closed)
    assert (folder / f"{FILE}.part").exists()


def test_no_progress_is_shown_by_default(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    resrt.fetch(NAME)
    assert terminal.getvalue() == ""


def test_the_checksum_is_in_the_format_of_sha256sum(server: Server, folder: Path) -> None:
    resrt.fetch(NAME)
    line = (folder / f"{FILE}.sha256").read_text()
    assert line == f"{hashlib.sha256(WEIGHTS).hexdigest()}  {FILE}\n"
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "-c", f"{FILE}.sha256"], cwd=folder, check=True)


def test_the_error_for_a_changed_file_has_both_checksums(server: Server, folder: Path) -> None:
    path = resrt.fetch(NAME)
    path.write_bytes(OTHER)
    first, now = (hashlib.sha256(content).hexdigest() for content in (WEIGHTS, OTHER))
    with pytest.raises(resrt.DownloadError, match=f"{now}, and was {first}.*[Dd]elete"):
        resrt.fetch(NAME)
    path.write_bytes(b"damaged")
    with pytest.raises(resrt.DownloadError, match=f"and was {first}.*[Dd]elete"):
        resrt.fetch(NAME)
    path.write_bytes(OTHER)
    # As the message says, without the record the file is used as it is.
    (folder / f"{FILE}.sha256").unlink()
    assert resrt.fetch(NAME) == path


def test_a_file_that_its_publisher_changed(server: Server, folder: Path) -> None:
    resrt.fetch(NAME).unlink()
    server.answers = [whole(OTHER)]
    with pytest.raises(resrt.DownloadError, match="has changed since the first download"):
        resrt.fetch(NAME)
    assert left_in(folder) == {f"{FILE}.sha256"}
    (folder / f"{FILE}.sha256").unlink()
    assert resrt.fetch(NAME).read_bytes() == OTHER


def test_a_file_that_the_user_put_into_the_cache(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / FILE).write_bytes(WEIGHTS)
    assert resrt.fetch(NAME, offline=True) == folder / FILE
    (folder / FILE).write_bytes(OTHER)
    with pytest.raises(resrt.DownloadError, match="SHA-256"):
        resrt.fetch(NAME, offline=True)


def test_the_page_of_a_proxy_is_not_accepted(server: Server, folder: Path) -> None:
    server.answers = [whole(b"<html>Please log in</html>"), whole()]
    with pytest.raises(resrt.DownloadError, match="invalid download: unsupported weights format"):
        resrt.fetch(NAME)
    assert left_in(folder) == set()
    assert resrt.fetch(NAME).read_bytes() == WEIGHTS


# --- Without a network ---


@pytest.mark.parametrize("variable", ["RESRT_OFFLINE", "HF_HUB_OFFLINE", None])
def test_the_error_without_a_network_says_what_to_download(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None
) -> None:
    if variable:
        monkeypatch.setenv(variable, "1")
    with pytest.raises(
        resrt.DownloadError, match=f"Download https://.*copy it to '{folder / FILE}'"
    ):
        resrt.fetch(NAME, offline=variable is None)
    assert server.requests == []
    assert not folder.exists()
    monkeypatch.setenv("RESRT_OFFLINE", "0")
    monkeypatch.setenv("HF_HUB_OFFLINE", "")
    assert resrt.fetch(NAME).exists()


# --- Mirrors ---


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_folder_as_a_mirror(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    file = tmp_path / "mirror/dygraph/legendary_models" / FILE
    monkeypatch.setenv("RESRT_MIRROR", f"{prefix}{tmp_path / 'mirror'}")
    with pytest.raises(resrt.DownloadError, match=f"the mirror has no file '{file}'"):
        resrt.fetch(NAME)
    file.parent.mkdir(parents=True)
    file.write_bytes(WEIGHTS)
    assert resrt.fetch(NAME, offline=True) == file  # only its checksum is in the cache
    file.write_bytes(OTHER)
    with pytest.raises(resrt.DownloadError, match="SHA-256"):
        resrt.fetch(NAME)


@pytest.mark.parametrize("mirror", ["ftp://127.0.0.1/", "s3://bucket"])
def test_an_invalid_mirror(monkeypatch: pytest.MonkeyPatch, mirror: str) -> None:
    monkeypatch.setenv("RESRT_MIRROR", mirror)
    with pytest.raises(resrt.InputError, match=mirror):
        resrt.fetch(NAME)


def test_a_mirror_in_an_unknown_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESRT_MIRROR", "~nobody-of-this-name/weights")
    with pytest.raises(resrt.InputError, match=r"RESRT_MIRROR is '~nobody.*give the whole path"):
        resrt.fetch(NAME)


def test_a_mirror_with_a_path(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESRT_MIRROR", f"{server.url}/models/")
    resrt.fetch(NAME)
    assert server.requests[0][0] == f"/models/dygraph/legendary_models/{FILE}"


# --- The cache ---


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    end = f"{NAME}/{FILE}'"
    with pytest.raises(resrt.DownloadError, match=f"{tmp_path}/cache/{end}"):
        resrt.fetch(NAME, offline=True)
    with pytest.raises(resrt.DownloadError, match=f"{tmp_path}/mine/{end}"):
        resrt.fetch(NAME, offline=True, cache=tmp_path / "mine")
    monkeypatch.delenv("RESRT_CACHE")
    with pytest.raises(resrt.DownloadError, match=f"{tmp_path}/xdg/resrt/{end}"):
        resrt.fetch(NAME, offline=True)
    monkeypatch.delenv("XDG_CACHE_HOME")
    with pytest.raises(resrt.DownloadError, match=f"{tmp_path}/home/.cache/resrt/{end}"):
        resrt.fetch(NAME, offline=True)


def test_a_cache_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(resrt.FileError, match="cannot write .*file.*RESRT_CACHE"):
        resrt.fetch(NAME, cache=tmp_path / "file")
    # Such as the home folder of another user, which may not be looked into.
    with pytest.raises(resrt.FileError, match="File name too long.*RESRT_CACHE"):
        resrt.fetch(NAME, cache=tmp_path / ("a" * 300))


def test_a_read_only_cache_without_a_record(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The file is used all the same, as on a machine whose image has the weights."""
    folder.mkdir(parents=True)
    (folder / FILE).write_bytes(WEIGHTS)

    def read_only(*_: object) -> Path:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("resrt._support.files._create", read_only)
    assert resrt.fetch(NAME) == folder / FILE
    assert "is not recorded" in caplog.text
    assert "Read-only file system" in caplog.text
    assert left_in(folder) == {FILE}


def test_a_mirror_with_a_cache_that_cannot_be_written(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mirror/dygraph/legendary_models" / FILE
    file.parent.mkdir(parents=True)
    file.write_bytes(WEIGHTS)
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("RESRT_MIRROR", str(tmp_path / "mirror"))
    assert resrt.fetch(NAME, cache=tmp_path / "file") == file


def test_an_interrupt_after_a_download_keeps_it(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(path: Path) -> None:
        raise KeyboardInterrupt

    server.answers = [whole()]
    with monkeypatch.context() as patch:
        patch.setattr("resrt._support.files.sync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            resrt.fetch(NAME)
    assert any(path.read_bytes() == WEIGHTS for path in folder.iterdir())
    assert resrt.fetch(NAME).read_bytes() == WEIGHTS
    assert len(server.requests) == 1
    assert left_in(folder) == {FILE, f"{FILE}.sha256"}


def _start_fetching() -> subprocess.Popen[str]:
    code = f"import resrt; print(resrt.fetch({NAME!r}))"
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def test_two_processes_fetch_once(server: Server, folder: Path) -> None:
    is_waiting = threading.Event()

    def slowly(handler: Handler) -> None:
        is_waiting.wait(1)  # let the other process reach the lock
        whole()(handler)

    server.answers = [slowly]
    processes = [_start_fetching(), _start_fetching()]
    assert [process.communicate()[0].strip() for process in processes] == [str(folder / FILE)] * 2
    assert len(server.requests) == 1


def test_threads_fetch_once(server: Server) -> None:
    threads = [threading.Thread(target=resrt.fetch, args=(NAME,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 1


def test_the_download_of_a_killed_process_is_resumed(server: Server, folder: Path) -> None:
    server.answers = [stall(), ranged()]
    process = _start_fetching()
    part = folder / f"{FILE}.part"
    while not part.exists() or part.stat().st_size < HALF:
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert resrt.fetch(NAME).read_bytes() == WEIGHTS
    assert server.ranges == [None, f"bytes={HALF}-"]
    assert left_in(folder) == {FILE, f"{FILE}.sha256"}


# --- The Hugging Face hub ---


def test_the_hub_without_its_library(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(resrt.PackageError, match=r"pip install 'resrt\[hub\]'") as caught:
        resrt.fetch("resnet18")
    path = folder.parent / "resnet18.a1_in1k/model.safetensors"
    assert f"copy it to '{path}'" in str(caught.value)
    # As the message says, this is an alternative.
    path.parent.mkdir(parents=True)
    path.write_bytes(WEIGHTS)
    assert resrt.fetch("resnet18") == path


def test_the_hub(server: Server, tmp_path: Path) -> None:
    """A new process is necessary: huggingface_hub reads the environment when it is imported."""
    pytest.importorskip("huggingface_hub")
    commit = {"X_Repo_Commit": "0" * 40, "Accept_Ranges": "bytes"}
    server.answers = [whole(etag=f'"{hashlib.sha256(WEIGHTS).hexdigest()}"', **commit)]
    code = """if True:
        import os, resrt
        path = resrt.fetch("resnet18")
        assert resrt.fetch("resnet18", offline=True) == path
        print(path)
        try:
            resrt.fetch("resnet34", offline=True)
        except resrt.DownloadError as error:
            print(error)
    """
    environment = {**os.environ, "HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "hub")}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    path, error = run.stdout.splitlines()
    assert Path(path).read_bytes() == WEIGHTS
    assert (tmp_path / "cache/resnet18.a1_in1k/model.safetensors.sha256").exists()
    requested = "/timm/resnet18.a1_in1k/resolve/main/model.safetensors"
    assert requested in [path for path, _ in server.requests]
    assert "cannot download the weights resnet34.a1_in1k" in error


# --- Building ---


def test_building_by_name(server: Server) -> None:
    name = "RegNetX_200MF"  # the smallest
    graph = resrt.build_graph(name, input_size=64)
    weights = _core.random_weights(graph, 3)
    server.answers = [whole(save({key: np.asarray(value) for key, value in weights.items()}))]
    options: dict[str, Any] = {"input_size": 64, "max_batch": 1, "precision": "fp32"}
    engine = resrt.build(name, **options)
    assert engine.info.weights == name
    assert engine.info.preprocessing.resize == round(64 * 256 / 224)
    batch = np.random.default_rng(0).standard_normal((1, 3, 64, 64), np.float32)
    same = resrt.build(name, weights, **options)
    np.testing.assert_array_equal(engine.infer(batch), same.infer(batch))


def test_the_checksum_is_that_of_the_bytes_in_the_engine(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if the file changes after it was read, which happens only once."""
    graph = resrt.build_graph("RegNetX_200MF")
    server.answers = [whole(save(_core.random_weights(graph, 3)))]
    file = resrt.fetch("RegNetX_200MF")
    content = file.read_bytes()
    read: list[Path] = []

    def read_then_changed(path: Path, **options: Any) -> Checkpoint:
        read.append(path)
        path.write_bytes(content)
        checkpoint = formats_read(path, **options)
        path.write_bytes(content[::-1])
        return checkpoint

    formats_read = formats.read
    monkeypatch.setattr(formats, "read", read_then_changed)
    for weights in (None, file):
        for from_cache in (False, True):
            built = resrt.build_file(
                "RegNetX_200MF", tmp_path / "x.engine", weights, input_size=32, max_batch=1
            )
            assert built.from_cache is from_cache
            assert built.info.weights_sha256 == hashlib.sha256(content).hexdigest()
            assert read == [file]
            read.clear()


def test_nothing_is_downloaded_for_unsupported_options(server: Server, tmp_path: Path) -> None:
    with pytest.raises(resrt.InputError, match="have 1000 classes"):
        resrt.build_file("RegNetX_200MF", tmp_path / "x.engine", classes=7)
    assert not server.requests


def test_preprocessing_is_that_of_the_pretrained_weights() -> None:
    options: dict[str, Any] = {"max_batch": 1, "precision": "fp32"}
    info = resrt.build("regnetx_002.pycls_in1k", "random", **options).info
    assert info.model == "regnetx_002"
    assert (info.preprocessing.resize, info.preprocessing.interpolation) == (256, "bicubic")
    grey = resrt.build("regnetx_002", "random", in_channels=1, classes=7, **options).info
    assert grey.preprocessing.mean == pytest.approx([0.449])


def test_building_without_pretrained_weights(small_graph: resrt.Graph) -> None:
    with pytest.raises(resrt.InputError, match="a network of your own"):
        resrt.build(small_graph)
    with pytest.raises(resrt.InputError, match="1000 classes and 3 input channels, not 7 and 3"):
        resrt.build("ResNet18", classes=7)
    with pytest.raises(resrt.WeightsError, match="no pretrained weights for cifar_resnet20"):
        resrt.build("cifar_resnet20")
    with pytest.raises(resrt.ModelError, match="resnet18"):
        resrt.build("resnet19")
