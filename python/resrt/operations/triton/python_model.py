"""A model of Triton's Python backend that runs a resrt engine; `resrt triton` writes it.

A repository has three models for an engine, all with this file. What a model takes is in its
config.pbtxt:

- "images": preprocessed images. This model alone loads the engine, once in each of its instances.
- "pixels": pictures of the input's size, as uint8.
- "photographs": image files, which are decoded and preprocessed in parallel.

The last two send what they have prepared to the first.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb_utils

try:
    from resrt.system.machine import usable_cores

    # Pillow reads it when it is imported. Otherwise it returns the memory of each photograph to the
    # system, which clears it again.
    os.environ.setdefault("PILLOW_BLOCKS_MAX", str(2 * usable_cores()))
    import resrt
except ImportError as missing:
    raise ImportError(
        "this model requires resrt in the Python that Triton's Python backend runs, where it "
        f"cannot be imported: {missing}. Install it there with: pip install resrt"
    ) from None

ENGINE_FILE = "model.engine"
DESCRIPTION_FILE = "photographs.json"

Images = npt.NDArray[np.float32]


class TritonPythonModel:
    """The class that Triton creates for each instance of a model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the engine, or prepare to preprocess for it. Triton shows what this raises."""
        _check_numpy()
        config = json.loads(args["model_config"])
        kind = config["parameters"]["input"]["string_value"]
        folder = Path(args["model_repository"]) / args["model_version"]
        self._model: _Inference | _Preparation
        try:
            if kind == "images":
                self._model = _Inference(folder, config, args)
            else:
                self._model = _Preparation(kind, folder, config, args)
        except (resrt.Error, OSError) as error:
            raise pb_utils.TritonModelException(str(error)) from None

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Return a response to each request of a batch. An error is that of its request alone."""
        return self._model.execute(requests)

    def finalize(self) -> None:
        """Release the engine."""
        del self._model


class _Inference:
    """An engine, and batches of images for it."""

    def __init__(self, folder: Path, config: dict[str, Any], args: dict[str, str]) -> None:
        file = folder / ENGINE_FILE
        if args["model_instance_kind"] == "GPU":
            device = f"cuda:{args['model_instance_device_id']}"
            self._engine = resrt.load(file, device=device, warm_up=False)
            return
        count = sum(group["count"] for group in config["instance_group"])
        self._engine = resrt.load(
            file,
            threads=max(1, usable_cores() // count),
            # Each instance is a process of its own, and would choose the same cores.
            pin_threads=None if count == 1 else False,
            warm_up=False,  # the model's own warm-up does so
        )

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        batches = [_input(request, "images") for request in requests]
        try:
            logits = self._engine.infer(
                batches[0] if len(batches) == 1 else np.concatenate(batches)
            )
        except resrt.Error as error:
            return [_failure(str(error)) for _ in requests]
        ends = np.cumsum([len(batch) for batch in batches])[:-1]
        return [_success(part) for part in np.split(logits, ends)]


class _Preparation:
    """What makes images of pixels or photographs, and asks the model of the engine for logits."""

    def __init__(
        self, kind: str, folder: Path, config: dict[str, Any], args: dict[str, str]
    ) -> None:
        description = json.loads((folder / DESCRIPTION_FILE).read_text("utf-8"))
        self._kind = kind
        self._exact: bool = description["exact"]
        self._channels, *size = description["input_shape"]
        steps = description["preprocessing"]
        if kind == "pixels":  # they have the input's size already, and are only normalised
            steps["resize"] = min(size)
        self._shape = (self._channels, *size)
        self._preprocessing = resrt.Preprocessing(**steps, input_size=tuple(size))
        self._engine_model: str = config["parameters"]["engine_model"]["string_value"]
        self._version = int(args["model_version"])
        threads = min(usable_cores(), config["max_batch_size"])
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="resrt")

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        # One task for each image, since requests may have several.
        tasks = [
            [self._threads.submit(self._prepare, image) for image in self._images(request)]
            for request in requests
        ]
        responses: list[Any] = []
        ready: list[list[Images]] = []
        for images in tasks:
            try:
                ready.append([image.result() for image in images])
                responses.append(None)
            except resrt.Error as error:
                responses.append(_failure(str(error)))
        answers = iter(self._answers(ready))
        return [next(answers) if response is None else response for response in responses]

    def _images(self, request: Any) -> npt.NDArray[Any]:
        given = _input(request, self._kind if self._kind == "photographs" else "images")
        return given.reshape(-1) if self._kind == "photographs" else given

    def _prepare(self, image: Any) -> Images:
        if self._kind == "pixels":
            image = np.ascontiguousarray(image.transpose(1, 2, 0))
        return resrt.preprocess(image, self._preprocessing, exact=self._exact)

    def _answers(self, ready: list[list[Images]]) -> list[Any]:
        """Return the responses to requests whose images are ready."""
        images = [image for request in ready for image in request]
        if not images:
            return [_failure("the request has no images") for _ in ready]
        batch = pb_utils.Tensor("images", np.stack(images))
        # While another version is loaded or unloaded, this model and that of the engine may have
        # different versions for a moment. All versions take the same images.
        for version in (self._version, -1):
            request = pb_utils.InferenceRequest(
                model_name=self._engine_model,
                model_version=version,
                inputs=[batch],
                requested_output_names=["logits"],
            )
            response = request.exec()
            if not response.has_error():
                break
        else:
            return [_failure(response.error().message()) for _ in ready]
        logits = pb_utils.get_output_tensor_by_name(response, "logits").as_numpy()
        ends = np.cumsum([len(request) for request in ready])[:-1]
        return [_success(part) for part in np.split(logits, ends)]


def _input(request: Any, name: str) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = pb_utils.get_input_tensor_by_name(request, name).as_numpy()
    return array


def _success(logits: Images) -> Any:
    tensor = pb_utils.Tensor("logits", np.ascontiguousarray(logits))
    return pb_utils.InferenceResponse(output_tensors=[tensor])


def _failure(message: str) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message))


def _check_numpy() -> None:
    """Raise an error if this server's Python backend cannot exchange arrays with this NumPy.

    Up to 2024, the backend was built for NumPy 1 alone. With NumPy 2, arrays arrive with other
    values, or the process ends, so another process tries it.
    """
    if int(np.__version__.partition(".")[0]) < 2:
        return
    child = os.fork()
    if child == 0:
        status = 1
        try:
            array = np.arange(6, dtype=np.float32).reshape(2, 3)
            # Of memory that is not NumPy's, the backend makes an array itself, as of each input.
            found = pb_utils.Tensor.from_dlpack("x", array).as_numpy()
            status = int(found.dtype != array.dtype or not np.array_equal(found, array))
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if status != 0:
        raise pb_utils.TritonModelException(
            f"this Triton's Python backend was built for NumPy 1, but NumPy {np.__version__} is "
            "installed. Install another one where it runs with: pip install 'numpy<2'"
        )
