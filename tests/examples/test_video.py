"""examples/video.py writes a video with the class of each frame."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

import resrt
from resrt import _core
from support.examples import example
from support.programs import run

cv2 = pytest.importorskip("cv2", reason="the example requires OpenCV")

COLOURS = {"red": (0, 0, 220), "green": (0, 220, 0), "blue": (220, 0, 0)}  # as OpenCV has them


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """An engine that names the strongest channel of RGB."""
    graph = resrt.Graph(
        "colour",
        [
            ("input", _core.Input(3, 32, 32), []),
            ("mean", _core.GlobalAvgPool2d(), ["input"]),
            ("fc", _core.Linear(3), ["mean"]),
        ],
    )
    weights = {"fc.weight": np.eye(3, dtype=np.float32), "fc.bias": np.zeros(3, np.float32)}
    steps = resrt.Preprocessing(
        resize=32, interpolation="bilinear", mean=[0.0] * 3, std=[0.1] * 3, input_size=(32, 32)
    )
    path = tmp_path / "colour.engine"
    resrt.build(graph, weights, labels=list(COLOURS), preprocessing=steps).save(path)
    return path


def read(path: Path) -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (result := capture.read())[0]:
        frames.append(result[1])
    capture.release()
    return frames


def test_classes_of_a_video(engine: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "source.avi", tmp_path / "output.mp4"
    writer = cv2.VideoWriter(str(source), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (160, 120))
    for colour in ("blue", "red", "green"):
        for _ in range(8):
            writer.write(np.full((120, 160, 3), COLOURS[colour], np.uint8))
    writer.release()

    printed = run(*example("video.py"), engine, source, "--output", output).splitlines()
    assert printed[:3] == ["blue", "red", "green"]
    assert printed[-1].startswith("24 frames, ")

    frames = read(output)
    assert len(frames) == 24
    for frame, colour in ((frames[4], "blue"), (frames[12], "red"), (frames[20], "green")):
        assert frame.shape == (120, 160, 3)
        np.testing.assert_allclose(frame[60:].mean(axis=(0, 1)), COLOURS[colour], atol=12)
        assert frame[:30].min(axis=2).max() > 120  # the white text


def test_a_source_that_cannot_be_opened(engine: Path, tmp_path: Path) -> None:
    command = [*example("video.py"), engine, tmp_path / "missing.mp4"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "cannot open the camera or video" in done.stderr
