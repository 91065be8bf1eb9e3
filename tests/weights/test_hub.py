"""Weights in repositories of the Hugging Face hub, which a local server stands in for."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

import resrt
from resrt import _core
from support.weights_server import Answer, Handler, Server

pytest.importorskip("huggingface_hub")

LABELS = [f"class {i}" for i in range(7)]
CONFIG = {
    "architecture": "resnet18",
    "label_names": LABELS,
    "pretrained_cfg": {"input_size": [3, 64, 64], "mean": [0.5] * 3, "std": [0.25] * 3},
}
PROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "size": 80,
    "image_mean": [0.1] * 3,
    "image_std": [0.5] * 3,
}


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return dict(_core.random_weights(resrt.build_graph("resnet18", classes=7), 0))


def repository(files: dict[str, bytes], name: str = "me/mine") -> Answer:
    """Answer as the hub does for the only repository that it has."""

    def answer(handler: Handler) -> None:
        found, _, rest = handler.path.partition("?")[0].strip("/").partition("/resolve/")
        content = files.get(rest.partition("/")[2])
        if found != name:
            handler.send(404, b"", X_Error_Code="RepoNotFound", Content_Length=0)
        elif content is None:
            handler.send(404, b"", X_Error_Code="EntryNotFound", Content_Length=0, **commit)
        else:
            tag = f'"{hashlib.sha256(content).hexdigest()}"'
            handler.send(200, content, Content_Length=len(content), ETag=tag, **commit)

    commit = {"X_Repo_Commit": "0" * 40, "Accept_Ranges": "bytes"}
    return answer


def run(code: str, server: Server, folder: Path, **more: str) -> str:
    """Run code in a new process, because huggingface_hub reads the environment on import."""
    own = {"HF_ENDPOINT": server.url, "HF_HOME": str(folder / "hub"), **more}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
    ).stdout


BUILD = """if True:
    import resrt
    for model, weights in ("resnet18", "hf-hub:me/mine"), ("hf-hub:me/mine@main", None):
        info = resrt.build(model, weights, precision="fp32", max_batch=1).info
        print(info.model, info.weights, info.input_shape, info.labels[0],
              info.preprocessing_source, sep="|")
"""


def test_building(
    server: Server, folder: Path, tmp_path: Path, arrays: dict[str, np.ndarray]
) -> None:
    files = {"model.safetensors": save(arrays), "config.json": json.dumps(CONFIG).encode()}
    server.answers = [repository(files)]
    lines = run(BUILD, server, tmp_path).splitlines()
    rest = "(3, 64, 64)|class 0|config.json beside the weights"
    assert lines == [
        f"resnet18|hf-hub:me/mine|{rest}",
        f"resnet18|hf-hub:me/mine@main|{rest}",
    ]
    server.requests.clear()
    assert run(BUILD, server, tmp_path, RESRT_OFFLINE="1").splitlines() == lines
    assert not [path for path, _ in server.requests if "mine" in path]


def test_several_files_and_a_processor(
    server: Server, folder: Path, tmp_path: Path, arrays: dict[str, np.ndarray]
) -> None:
    """As Transformers uploads a large network, whose config names only the family."""
    names = sorted(arrays)
    parts = {"model-1.safetensors": names[:50], "model-2.safetensors": names[50:]}
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    files = {file: save({k: arrays[k] for k in part}) for file, part in parts.items()}
    files |= {
        "model.safetensors.index.json": json.dumps(index).encode(),
        "config.json": b'{"model_type": "resnet"}',
        "preprocessor_config.json": json.dumps(PROCESSOR).encode(),
    }
    server.answers = [repository(files)]
    code = """if True:
        import resrt
        from resrt import cli
        graph = resrt.build_graph("resnet18", classes=7)
        print(len(resrt.weights.load("hf-hub:me/mine", graph)))
        print(resrt.convert("hf-hub:me/mine", "out", network="resnet18")["source"])
        cli.main(["weights", "hf-hub:me/mine"])
        cli.main(["build", "resnet18", "--weights", "hf-hub:me/mine", "-o", "x.engine"])
    """
    lines = run(code, server, tmp_path)
    assert lines.startswith(f"{len(arrays)}\nhf-hub:me/mine: safetensors")
    assert "  fits         resnet18" in lines
    assert "short side to 80" in lines
    assert "preprocessor_config.json beside the weights" in lines


def test_errors(server: Server, folder: Path, tmp_path: Path) -> None:
    server.answers = [repository({"README.md": b""})]
    code = """if True:
        import resrt
        for name in "hf-hub:me/mine", "hf-hub:me/other", "hf-hub:mine":
            try:
                resrt.weights.read(name)
            except resrt.Error as error:
                print(type(error).__name__, error)
    """
    empty, missing, invalid = run(code, server, tmp_path).splitlines()
    assert empty.startswith("DownloadError cannot download the weights hf-hub:me/mine: the repos")
    assert missing.startswith("DownloadError cannot download the weights hf-hub:me/other: ")
    assert "HF_ENDPOINT" in missing
    assert invalid.startswith("InputError invalid name of weights on the Hugging Face hub: 'hf-hub")
    offline = run(code, server, tmp_path, RESRT_OFFLINE="1").splitlines()[0]
    assert offline.startswith("DownloadError cannot download the weights hf-hub:me/mine: ")


def test_without_access(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arrays: dict[str, np.ndarray]
) -> None:
    """Cached weights are used, although nobody knows whether the repository has configurations."""
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    cached = {"model.safetensors": str(tmp_path / "model.safetensors")}
    Path(cached["model.safetensors"]).write_bytes(save(arrays))

    def download(_: str, file: str, **options: object) -> str:
        if file not in cached:
            raise LocalEntryNotFoundError("no connection")
        return cached[file]

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(
        huggingface_hub, "try_to_load_from_cache", lambda _, file, **options: cached.get(file)
    )
    assert resrt.weights.read("hf-hub:me/mine").arrays.keys() == arrays.keys()
    cached.clear()
    message = "hf-hub:me/mine: the hub cannot be reached, .* has no 'config.json' of it. Check the"
    with pytest.raises(resrt.DownloadError, match=message):
        resrt.weights.read("hf-hub:me/mine")
    monkeypatch.setenv("RESRT_OFFLINE", "1")
    message = "downloading is switched off, .* has no 'config.json' of it. Allow downloading, or"
    with pytest.raises(resrt.DownloadError, match=message):
        resrt.weights.read("hf-hub:me/mine")


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(resrt.PackageError, match=r"pip install 'resrt\[hub\]'"):
        resrt.build("resnet18", "hf-hub:me/mine")
