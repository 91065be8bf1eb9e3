"""`resrt.inspect`: what an engine file contains."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest

import resrt


@pytest.fixture
def file(small_engine: resrt.Engine, tmp_path: Path) -> Path:
    path = tmp_path / "small.engine"
    small_engine.save(path)
    return path


def test_document(file: Path, small_engine: resrt.Engine) -> None:
    found = resrt.inspect(file)
    assert not {"labels", "layers"} & found.document().keys()
    document = found.document(labels=True, layers=True)
    assert (document["path"], document["size"]) == (str(file), file.stat().st_size)
    assert (document["runs_here"], document["why_not"]) == (True, None)
    assert document["preprocessing"]["mean"] == pytest.approx([0.485, 0.456, 0.406])
    assert "\n".join(document["layers"]) == found.info.layers.rstrip("\n")
    info = small_engine.info
    for name in ("model", "backend", "backend_version", "precision", "input_shape", "classes"):
        assert document[name] == getattr(info, name)
    for name in ("max_batch", "weights", "weights_sha256", "labels"):
        assert document[name] == getattr(info, name)


def test_engine_of_another_library_version(file: Path) -> None:
    version = resrt.inspect(file).info.backend_version.encode()
    content = file.read_bytes()[:-4].replace(version, version.replace(b"2026", b"1999"), 1)
    file.write_bytes(content + struct.pack("<I", zlib.crc32(content)))
    found = resrt.inspect(file)
    assert found.info.backend_version.startswith("1999")
    assert found.document()["runs_here"] is True  # OpenVINO compiles it again
    resrt.load(file)


def test_engine_of_another_version_that_does_not_say_it_is_portable(file: Path) -> None:
    """`load` accepts it, because all engines of OpenVINO are."""
    version = resrt.inspect(file).info.backend_version.encode()
    content = file.read_bytes()[:-4].replace(version, version.replace(b"2026", b"1999"), 1)
    content = content.replace(b"compatible\x03\0\0\0yes", b"compatible\x03\0\0\0not", 1)
    file.write_bytes(content + struct.pack("<I", zlib.crc32(content)))
    (openvino,) = (backend for backend in resrt.backends() if backend.name == "openvino")
    assert openvino.loads_other_versions
    found = resrt.inspect(file)
    assert not found.info.version_compatible
    assert found.why_not is None
    resrt.load(file)


def test_name_that_is_not_utf8_is_in_the_error(tmp_path: Path) -> None:
    """The core's message has the bytes of the path."""
    for function in (resrt.inspect, resrt.load):
        with pytest.raises(resrt.FileError, match="caf\udce9'") as raised:
            function(tmp_path / "caf\udce9")
        assert isinstance(raised.value, OSError)
    with pytest.raises(resrt.InputError, match="a network must be Unicode text, not 'caf"):
        resrt.model_info("caf\udce9")


def test_other_files(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("not an engine")
    with pytest.raises(resrt.EngineFileError, match="is not a resrt engine file"):
        resrt.inspect(tmp_path / "x")
    with pytest.raises(resrt.FileError, match="none"):
        resrt.inspect(tmp_path / "none")
