"""`resrt.triton`: model repositories, and the models in them."""

from __future__ import annotations

import errno
import importlib.util
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import types
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino
import pytest
from PIL import Image

import resrt
import tritonserver
from resrt.cli import main
from resrt.operations import demo
from resrt.operations.triton import config, settings
from resrt.operations.triton import models as models_of_a_repository
from support.paths import ROOT

PHOTO = ROOT / "tests" / "data" / "photos" / "china.jpg"
PROGRAM = Path(models_of_a_repository.__file__).with_name("python_model.py")
needs_server = pytest.mark.skipif(
    tritonserver.missing() is not None, reason=tritonserver.missing() or ""
)


@pytest.fixture(scope="module")
def engine_file(small_engine: resrt.Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("engine") / "small.engine"
    small_engine.save(file)
    return file


@pytest.fixture
def repository(engine_file: Path, tmp_path: Path) -> Path:
    resrt.triton(engine_file, tmp_path / "repository", instances=1, batch_sizes=[2, 4])
    return tmp_path / "repository"


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


# The repository


def test_python_form(repository: Path, engine_file: Path) -> None:
    found = files(repository)
    assert found["small/1/model.engine"] == engine_file.read_bytes()
    assert sum(name.endswith("model.engine") for name in found) == 1
    assert {name.partition("/")[0] for name in found} == {
        "small",
        "small_uint8",
        "small_photographs",
    }
    assert {found[name] for name in found if name.endswith("model.py")} == {PROGRAM.read_bytes()}
    text = found["small/config.pbtxt"].decode()
    assert "preferred_batch_size: [2, 4]" in text
    assert "kind: KIND_CPU\n  count: 1" in text
    assert text.count("zero_data: true") == 3
    assert 'name: "photographs"\n  data_type: TYPE_STRING\n  dims: [1]' in (
        found["small_photographs/config.pbtxt"].decode()
    )


def test_measured_settings(engine_file: Path, tmp_path: Path) -> None:
    steps: list[str] = []
    written = resrt.triton(engine_file, tmp_path / "repository", progress=steps.append)
    found = written[0]
    assert found.instances is not None
    assert found.images_per_second is not None
    assert found.images_per_second > 0
    assert 0 < len(found.batch_sizes) <= 3
    assert set(found.batch_sizes) <= {1, 2, 4}
    assert steps[0] == "small, 1 instance"


def test_fewest_instances() -> None:
    def timing(batch: int, speed: float) -> Any:
        return types.SimpleNamespace(batch=batch, images_per_second=speed)

    found = [(1, [timing(1, 50), timing(8, 90)]), (2, [timing(1, 99), timing(8, 96)]), (4, [])]
    found[2] = (4, [timing(1, 100), timing(8, 100)])
    assert settings._fewest(found)[0] == 2
    assert settings._powers(6) == [1, 2, 4, 6]
    assert settings._powers(8) == [1, 2, 4, 8]
    assert settings._powers(1) == [1]


def test_openvino_form(
    engine_file: Path, small_engine: resrt.Engine, images: npt.NDArray[np.float32], tmp_path: Path
) -> None:
    resrt.triton(engine_file, tmp_path / "r", form="openvino", instances=1, batch_sizes=[4])
    network = openvino.Core().compile_model(
        tmp_path / "r" / "small" / "1" / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    assert network.input(0).get_names() == {"images"}
    logits = network({"images": images})["logits"]
    np.testing.assert_allclose(logits, small_engine.infer(images), atol=1e-5)
    document = json.loads((tmp_path / "r" / "config.json").read_text())
    (listed,) = document["model_config_list"]
    assert listed["config"]["name"] == "small"
    assert listed["config"]["plugin_config"]["INFERENCE_PRECISION_HINT"] == "f32"


@pytest.mark.parametrize("content", ["[" * 200_000, "[]", '{"model_config_list": 3}'])
def test_another_configuration_is_kept(engine_file: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(resrt.FileError, match="not a configuration of OpenVINO Model Server"):
        resrt.triton(engine_file, tmp_path, form="openvino", instances=1, batch_sizes=[1])
    assert [entry.name for entry in tmp_path.iterdir()] == ["config.json"]


def test_tensorrt_form_requires_its_engine(engine_file: Path, tmp_path: Path) -> None:
    with pytest.raises(resrt.InputError, match="an engine of openvino, not of tensorrt"):
        resrt.triton(engine_file, tmp_path / "r", form="tensorrt", instances=1, batch_sizes=[4])
    assert list(tmp_path.iterdir()) == []


def test_tensorrt_form(engine_file: Path, small_engine: resrt.Engine, tmp_path: Path) -> None:
    """The engine need not run here. Its plan is whatever the file has."""
    content = engine_file.read_bytes()[:-4].replace(b"openvino", b"tensorrt", 1)
    file = tmp_path / "t.engine"
    file.write_bytes(content + struct.pack("<I", zlib.crc32(content)))
    with pytest.raises(resrt.Error, match="give the number of instances and the batch sizes"):
        resrt.triton(file, tmp_path / "r", form="tensorrt")
    assert not (tmp_path / "r").exists()
    resrt.triton(file, tmp_path / "r", form="tensorrt", instances=2, batch_sizes=[4])
    found = files(tmp_path / "r")
    assert found["t/1/model.plan"] == small_engine.plan
    text = found["t/config.pbtxt"].decode()
    assert 'platform: "tensorrt_plan"' in text
    assert "kind: KIND_GPU\n  count: 2" in text


def test_a_model_that_exists(engine_file: Path, repository: Path) -> None:
    before = files(repository)
    with pytest.raises(resrt.FileError, match="small' exists; add a version"):
        resrt.triton(engine_file, repository, instances=1, batch_sizes=[4])
    assert files(repository) == before
    written = resrt.triton(engine_file, repository, name="b", instances=1, batch_sizes=[4])
    assert [model.name for model in written] == ["b", "b_uint8", "b_photographs"]
    assert before.items() <= files(repository).items()


def test_new_version(engine_file: Path, repository: Path) -> None:
    before = files(repository)
    written = resrt.triton(engine_file, repository, new_version=True)
    assert {model.version for model in written} == {2}
    after = files(repository)
    assert before.items() <= after.items()
    assert after["small/2/model.engine"] == engine_file.read_bytes()


def test_a_version_with_other_classes(repository: Path, tmp_path: Path) -> None:
    config_ = resrt.ResNeSt(depths=[1, 1], width=16, stem_channels=16, radix=2)
    graph = resrt.build_graph(config_, classes=8, input_size=32, name="small")
    resrt.build(graph, "random", precision="fp32").save(tmp_path / "small.engine")
    before = files(repository)
    with pytest.raises(resrt.InputError, match="whose number of classes differ"):
        resrt.triton(tmp_path / "small.engine", repository, new_version=True)
    assert files(repository) == before


def test_a_version_of_no_model(engine_file: Path, tmp_path: Path) -> None:
    with pytest.raises(resrt.FileError, match="there is no model"):
        resrt.triton(engine_file, tmp_path / "r", new_version=True)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"form": "onnx"}, "form must be one of python, openvino, tensorrt, not onnx"),
        ({"name": "a/b"}, "'a/b' is not a name for a model"),
        ({"instances": 0}, "instances must be an integer of at least 1"),
        ({"batch_sizes": [8]}, "at most 4 images at once, not for a batch of 8"),
    ],
)
def test_invalid_arguments(
    arguments: dict[str, Any], message: str, engine_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(resrt.InputError, match=message):
        resrt.triton(engine_file, tmp_path / "r", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_engines_of_one_name(engine_file: Path, tmp_path: Path) -> None:
    with pytest.raises(resrt.InputError, match="are both named 'small'"):
        resrt.triton([engine_file, engine_file], tmp_path / "r")


def test_what_cannot_be_written(engine_file: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(resrt.FileError, match="is not a folder"):
        resrt.triton(engine_file, tmp_path / "file", instances=1, batch_sizes=[1])
    with pytest.raises(resrt.FileError, match="cannot write the model repository"):
        resrt.triton(engine_file, tmp_path / "file" / "r", instances=1, batch_sizes=[1])
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_all_models_or_none(
    engine_file: Path, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure while the models are moved into place undoes what was moved."""
    before = files(repository)
    replace = Path.replace

    def fail_for_photographs(self: Path, target: Path) -> Path:
        if target.name == "b_photographs":
            raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail_for_photographs)
    with pytest.raises(resrt.FileError, match="No space left"):
        resrt.triton(engine_file, repository, name="b", instances=1, batch_sizes=[1])
    assert files(repository) == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["repository"]


def test_an_interrupted_run_is_named(
    engine_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill leaves no model that the others need without them."""
    replace = Path.replace

    class Killed(BaseException):
        pass

    def kill_before_the_last(self: Path, target: Path) -> Path:
        if target.name == "small":
            monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
            raise Killed
        return replace(self, target)

    folder = tmp_path / "r"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", kill_before_the_last)
        with pytest.raises(Killed):
            resrt.triton(engine_file, folder, instances=1, batch_sizes=[1])
    assert sorted(entry.name for entry in folder.iterdir()) == ["small_photographs", "small_uint8"]
    for options in ({"instances": 1, "batch_sizes": [1]}, {"new_version": True}):
        with pytest.raises(resrt.FileError, match=r"small_uint8' exists without .*; remove it"):
            resrt.triton(engine_file, folder, **options)


def test_files_are_on_the_disk_before_models_are_moved(
    engine_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync, replace = os.fsync, Path.replace
    missing: list[set[str]] = []

    def record(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    def check(self: Path, target: Path) -> Path:
        missing.append({str(path) for path in (self, *self.rglob("*"))} - set(synced))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", record)
    monkeypatch.setattr(Path, "replace", check)
    resrt.triton(engine_file, tmp_path / "r", instances=1, batch_sizes=[1])
    assert missing == [set()] * 3
    assert synced.count(str(tmp_path / "r")) == 3


@pytest.mark.parametrize("error", [errno.EXDEV, errno.EACCES])
def test_a_repository_that_is_a_volume(
    engine_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    """Nothing can be moved into a mounted volume from beside it, or its parent is read-only."""
    volume = tmp_path / "volume"
    volume.mkdir()
    rename, mkdir = Path.rename, Path.mkdir

    def refuse(self: Path, target: Path) -> Path:
        if error == errno.EXDEV and volume in target.parents and volume not in self.parents:
            raise OSError(error, os.strerror(error))
        return rename(self, target)

    def refuse_folder(self: Path, *arguments: Any, **options: Any) -> None:
        if error == errno.EACCES and self.parent == tmp_path and self != volume:
            raise OSError(error, os.strerror(error))
        mkdir(self, *arguments, **options)

    monkeypatch.setattr(Path, "rename", refuse)
    monkeypatch.setattr(Path, "mkdir", refuse_folder)
    (tmp_path / "link").symlink_to(volume)
    resrt.triton(engine_file, tmp_path / "link", instances=1, batch_sizes=[1])
    names = ["small", "small_photographs", "small_uint8"]
    assert sorted(entry.name for entry in volume.iterdir()) == names
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["link", "volume"]


def test_command(engine_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = str(tmp_path / "r")
    settings_ = ["--instances", "1", "--batch-sizes", "2", "4"]
    assert main(["triton", str(engine_file), "-o", output, *settings_]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "small, version 1: FP32 images -> FP32 logits; instances: 1, preferred batch sizes: 2 4"
    )
    assert lines[-1] == f"start the server with: tritonserver --model-repository={output}"
    assert main(["triton", str(engine_file), "-o", output, *settings_]) == 1
    assert "exists; add a version" in capsys.readouterr().err


def test_config_text() -> None:
    fields = {"name": 'a"b', "n": 1, "on": True, "kind": config.Enum("KIND_CPU"), "sizes": [1, 2]}
    assert config.text(fields) == ('name: "a\\"b"\nn: 1\non: true\nkind: KIND_CPU\nsizes: [1, 2]\n')
    assert config.text({"one": {"two": [{"three": 3}]}}) == (
        "one {\n  two {\n    three: 3\n  }\n}\n"
    )


# The models, in a server of this process


@dataclass
class Tensor:
    name: str
    array: npt.NDArray[Any]

    def as_numpy(self) -> npt.NDArray[Any]:
        return self.array

    @staticmethod
    def from_dlpack(name: str, array: npt.NDArray[Any]) -> Tensor:
        return Tensor(name, array)


@dataclass
class Response:
    output_tensors: list[Tensor] = field(default_factory=list)
    error: str | None = None

    @property
    def logits(self) -> npt.NDArray[Any]:
        return self.output_tensors[0].array


class FakeBackend:
    """What a model uses of Triton's Python backend. One model asks another through `infer`."""

    def __init__(self) -> None:
        self.models: dict[tuple[str, int], Any] = {}
        self.asked: list[tuple[str, int]] = []
        backend = self

        class Failed:
            def __init__(self, message: str) -> None:
                self.text = message

            def has_error(self) -> bool:
                return True

            def error(self) -> Any:
                return types.SimpleNamespace(message=lambda: self.text)

        class Request:
            def __init__(self, model_name: str, model_version: int, inputs: Any, **_: Any) -> None:
                self.key, self.inputs = (model_name, model_version), inputs

            def exec(self) -> Any:
                backend.asked.append(self.key)
                if self.key not in backend.models:
                    return Failed(f"{self.key} is not ready")
                (response,) = backend.models[self.key].execute([self.inputs])
                response.has_error = lambda: False
                return response

        self.module = types.ModuleType("triton_python_backend_utils")
        vars(self.module).update(
            Tensor=Tensor,
            InferenceRequest=Request,
            InferenceResponse=Response,
            TritonError=str,
            TritonModelException=type("TritonModelException", (Exception,), {}),
            get_input_tensor_by_name=lambda request, name: _named(request, name),
            get_output_tensor_by_name=lambda response, name: _named(response.output_tensors, name),
        )

    def load(self, repository: Path, name: str, version: int = 1, instances: int = 1) -> Any:
        spec = importlib.util.spec_from_file_location("model", PROGRAM)
        assert spec is not None
        assert spec.loader is not None
        program = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(program)
        text = (repository / name / "config.pbtxt").read_text()
        parameters = {
            key: {"string_value": text.split(f'key: "{key}"')[1].split('"')[1]}
            for key in ("input", "engine_model")
            if f'key: "{key}"' in text
        }
        model = program.TritonPythonModel()
        model.initialize(
            {
                "model_config": json.dumps(
                    {
                        "parameters": parameters,
                        "max_batch_size": 4,
                        "instance_group": [{"count": instances}],
                    }
                ),
                "model_repository": str(repository / name),
                "model_version": str(version),
                "model_name": name,
                "model_instance_kind": "CPU",
                "model_instance_device_id": "0",
            }
        )
        self.models[name, version] = model
        return model


def _named(tensors: list[Tensor], name: str) -> Tensor:
    return next(tensor for tensor in tensors if tensor.name == name)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> FakeBackend:
    fake = FakeBackend()
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", fake.module)
    return fake


def photographs(*contents: bytes) -> list[Tensor]:
    array = np.empty((len(contents), 1), object)
    array[:, 0] = contents
    return [Tensor("photographs", array)]


def test_requests_of_a_batch(
    repository: Path,
    backend: FakeBackend,
    small_engine: resrt.Engine,
    images: npt.NDArray[np.float32],
) -> None:
    model = backend.load(repository, "small")
    responses = model.execute([[Tensor("images", images[:1])], [Tensor("images", images[1:4])]])
    assert [response.error for response in responses] == [None, None]
    found = np.concatenate([response.logits for response in responses])
    np.testing.assert_array_equal(found, small_engine.infer(images[:4]))


def test_pixels(repository: Path, backend: FakeBackend, small_engine: resrt.Engine) -> None:
    backend.load(repository, "small")
    model = backend.load(repository, "small_uint8")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), np.uint8)
    (response,) = model.execute([[Tensor("images", pixels)]])
    np.testing.assert_array_equal(response.logits, small_engine.infer(pixels))


def test_a_broken_photograph_fails_alone(
    repository: Path, backend: FakeBackend, small_engine: resrt.Engine
) -> None:
    backend.load(repository, "small")
    model = backend.load(repository, "small_photographs")
    good = PHOTO.read_bytes()
    responses = model.execute(
        [
            photographs(good),
            photographs(b"nonsense"),
            photographs(good, good[:2000]),
            [*photographs()],
        ]
    )
    assert "<8 bytes> is not an image in a supported format" in responses[1].error
    assert "cannot decode the image <2000 bytes>" in responses[2].error
    steps = small_engine.info.preprocessing
    expected = small_engine.infer(resrt.preprocess(PHOTO, steps, exact=False)[None])
    np.testing.assert_array_equal(responses[0].logits, expected)


def test_a_version_that_is_not_loaded(repository: Path, backend: FakeBackend) -> None:
    """While versions change, a model asks for its own version first, and then for the newest."""
    model = backend.load(repository, "small_photographs")
    (response,) = model.execute([photographs(PHOTO.read_bytes())])
    assert response.error == "('small', -1) is not ready"
    backend.models["small", -1] = backend.load(repository, "small")
    del backend.models["small", 1]
    (response,) = model.execute([photographs(PHOTO.read_bytes())])
    assert response.error is None
    assert backend.asked == [("small", 1), ("small", -1)] * 2


def test_a_damaged_engine(repository: Path, backend: FakeBackend) -> None:
    (repository / "small" / "1" / "model.engine").write_bytes(b"nonsense")
    exception = backend.module.TritonModelException
    with pytest.raises(exception, match="is not a resrt engine file"):
        backend.load(repository, "small")


def test_arrays_that_arrive_broken(
    repository: Path, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from a backend for NumPy 1 in an environment with NumPy 2."""
    if int(np.__version__.partition(".")[0]) < 2:
        pytest.skip("only NumPy 2 can be too new for the backend")
    broken = staticmethod(lambda name, array: Tensor(name, np.zeros(3)))
    monkeypatch.setattr(Tensor, "from_dlpack", broken)
    with pytest.raises(backend.module.TritonModelException, match="built for NumPy 1, but NumPy 2"):
        backend.load(repository, "small")


def test_resrt_is_missing(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "triton_python_backend_utils.py").touch()
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.modules['resrt'] = None\n"
        f"exec(open({str(PROGRAM)!r}).read())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "this model requires resrt" in done.stderr
    assert "pip install resrt" in done.stderr


# The real server


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[resrt.Engine, Path]:
    folder = tmp_path_factory.mktemp("digits")
    engine = demo.build_engine()
    engine.save(folder / "digits.engine")
    resrt.triton(folder / "digits.engine", folder / "repository", instances=1, batch_sizes=[4, 8])
    return engine, folder / "repository"


@pytest.fixture(scope="module")
def server(digits: tuple[resrt.Engine, Path]) -> Iterator[tritonserver.Server]:
    _, repository = digits
    with tritonserver.serving(repository, repository.with_name("log")) as running:
        yield running


@needs_server
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_server(
    protocol: str, digits: tuple[resrt.Engine, Path], server: tritonserver.Server
) -> None:
    client_module = importlib.import_module(f"tritonclient.{protocol}")
    client = client_module.InferenceServerClient(getattr(server, protocol))
    engine = digits[0]
    pixels = np.random.default_rng(0).integers(0, 256, (2, 1, 32, 32), np.uint8)
    picture = io.BytesIO()
    Image.fromarray(pixels[0, 0]).save(picture, "PNG")
    images = np.random.default_rng(0).standard_normal((2, 1, 32, 32), np.float32)
    file = np.array([[picture.getvalue()]], object)
    steps = engine.info.preprocessing

    def ask(model: str, name: str, array: npt.NDArray[Any], data_type: str, **output: Any) -> Any:
        given = client_module.InferInput(name, array.shape, data_type)
        given.set_data_from_numpy(array)
        wanted = client_module.InferRequestedOutput("logits", **output)
        return client.infer(model, [given], outputs=[wanted]).as_numpy("logits")

    np.testing.assert_array_equal(ask("digits", "images", images, "FP32"), engine.infer(images))
    np.testing.assert_array_equal(
        ask("digits_uint8", "images", pixels, "UINT8"), engine.infer(pixels)
    )
    logits = engine.infer(resrt.preprocess(picture.getvalue(), steps, exact=False)[None])
    np.testing.assert_array_equal(ask("digits_photographs", "photographs", file, "BYTES"), logits)
    best = ask("digits_photographs", "photographs", file, "BYTES", class_count=1)
    value, index, label = best.reshape(-1)[0].decode().split(":")
    assert int(index) == logits[0].argmax()
    assert label == engine.info.labels[int(index)]
    assert float(value) == pytest.approx(logits.max(), rel=1e-5)


@needs_server
def test_server_with_curl(digits: tuple[resrt.Engine, Path], server: tritonserver.Server) -> None:
    """curl sends a photograph as it is, and gets the logits or the reason."""
    url = f"http://{server.http}/v2/models/digits_photographs/infer"
    header = ["-H", "Inference-Header-Content-Length: 0"]
    command = ["curl", "-s", url, *header, "--data-binary"]
    answer = subprocess.run([*command, f"@{PHOTO}"], capture_output=True, check=True).stdout
    steps = digits[0].info.preprocessing
    logits = digits[0].infer(resrt.preprocess(PHOTO, steps, exact=False)[None])
    assert answer.endswith(logits.tobytes())
    answer = subprocess.run([*command, "nonsense"], capture_output=True, check=True).stdout
    assert "is not an image in a supported format" in json.loads(answer)["error"]
