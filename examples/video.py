"""Classifies a camera's or a file's video, and writes the class into each frame.

pip install opencv-python
python examples/video.py resnet50.engine                           # the first camera; q ends it
python examples/video.py resnet50.engine holiday.mp4 --output classified.mp4
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterator

import cv2
import numpy as np

import resrt


def frames(source: str) -> Iterator[tuple[np.ndarray, float]]:
    """Yield the frames of a camera's number or a file, in BGR, and the frames per second."""
    capture = cv2.VideoCapture(int(source) if source.isdecimal() else source)
    try:
        if not capture.isOpened():
            raise SystemExit(f"cannot open the camera or video '{source}'")
        rate = capture.get(cv2.CAP_PROP_FPS) or 25.0
        while True:
            is_read, frame = capture.read()
            if not is_read:
                return
            yield frame, rate
    finally:
        capture.release()


def annotate(frame: np.ndarray, text: str) -> None:
    """Write a line of text at the top of a frame, white on black."""
    scale = max(0.4, frame.shape[1] / 900)
    for colour, thickness in (((0, 0, 0), 4), ((255, 255, 255), 1)):
        place = (int(10 * scale), int(30 * scale))
        cv2.putText(frame, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, thickness)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", help="an engine file, from resrt build")
    parser.add_argument("source", nargs="?", default="0", help="a camera's number, or a file")
    parser.add_argument("--output", help="write a video instead of showing a window")
    options = parser.parse_args()

    engine = resrt.load(options.engine)
    classes: list[str] = []
    shown = 0
    start = time.perf_counter()
    with contextlib.ExitStack() as stack:
        writer = None
        for frame, rate in frames(options.source):
            # OpenCV's channels are BGR.
            ((best,),) = engine.classify(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), topk=1)
            if not classes or best.label != classes[-1]:
                classes.append(best.label)
                print(best.label, flush=True)
            annotate(frame, f"{best.label} {best.probability:.0%}")
            if options.output:
                if writer is None:
                    codec = cv2.VideoWriter.fourcc(*"mp4v")
                    writer = cv2.VideoWriter(options.output, codec, rate, frame.shape[1::-1])
                    stack.callback(writer.release)
                    if not writer.isOpened():
                        raise SystemExit(f"cannot write the video '{options.output}'")
                writer.write(frame)
            else:
                cv2.imshow("resrt", frame)
                if cv2.waitKey(1) == ord("q"):
                    break
            shown += 1
    print(f"{shown} frames, {shown / (time.perf_counter() - start):.1f} per second")


if __name__ == "__main__":
    main()
