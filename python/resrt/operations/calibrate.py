"""`resrt.calibrate`: the ranges of a network's tensors, measured on images."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import PathLike
from queue import SimpleQueue

import numpy as np
import numpy.typing as npt

from resrt import _core
from resrt import images as photographs
from resrt._support.arguments import whole
from resrt._support.environment import max_pixels
from resrt._support.sampling import evenly
from resrt.engine.calibration import Calibration, rounded_tensors
from resrt.engine.engine import Engine, build_network
from resrt.engine.network import BuildProgress, Model, Network, WeightsLike, resolve
from resrt.engine.ranges import CALIBRATION_METHODS, Values, estimate
from resrt.errors import Error, FileError, InputError, WeightsError
from resrt.operations.classify import find_images
from resrt.weights.preprocessing import PreprocessingLike

DEFAULT_LIMIT = 512

_logger = logging.getLogger("resrt")

ImagesLike = str | PathLike[str] | Sequence[str | PathLike[str]] | npt.NDArray[np.float32]


def calibrate(
    model: Model,
    weights: WeightsLike | None = None,
    images: ImagesLike = (),
    *,
    method: str = "mse",
    limit: int = DEFAULT_LIMIT,
    keep: Sequence[str] = (),
    input_size: int | Sequence[int] | None = None,
    classes: int | None = None,
    in_channels: int | None = None,
    preprocessing: PreprocessingLike | None = None,
    key: str | None = None,
    progress: BuildProgress | None = None,
) -> Calibration:
    """Measure the ranges that an int8 engine needs, on images like those that it will see.

    A few hundred images suffice. They are preprocessed as the weights require and computed in
    float32, each by one thread, so the same images give the same ranges on the same machine, to the
    last bit, with any number of threads. An image that cannot be read is logged and skipped.

    Args:
        model: as for `resrt.build`.
        weights: as for `resrt.build`.
        images: a folder, which is searched as `resrt.find_images` does, a pattern, paths, or a
            batch, float32 (N, channels, height, width).
        method: how a range is estimated: "minmax", all values; "percentile", all but the largest
            ten-thousandth; "entropy", the least Kullback-Leibler divergence of the rounded values;
            "mse", the least mean squared error.
        limit: the maximum number of images, sampled evenly.
        keep: convolutions that stay in floating point, and additions whose inputs do, by name.
        input_size: as for `resrt.build`, like the following.
        classes: the number of logits.
        in_channels: the number of input channels.
        preprocessing: how photographs become inputs.
        key: an entry of a checkpoint, or a prefix.
        progress: called with a phase, the number of images that are done, and their number.

    Raises what `resrt.build` and `resrt.find_images` raise, InputError or FileError if none of the
    images can be read, and WeightsError if the network computes values that are not finite.
    """
    if method not in CALIBRATION_METHODS:
        raise InputError(f"method must be one of {', '.join(CALIBRATION_METHODS)}, not {method}")
    network = resolve(
        model, weights, input_size, classes, in_channels, None, preprocessing, progress, key
    )
    network.warn_of_assumption()
    chosen = sample(images, network, limit)
    values, skipped = _measure(network, frozenset(keep), chosen, progress)
    return Calibration(
        network=network.graph.name,
        weights=network.metadata.origin,
        weights_sha256=network.sha256,
        images=len(chosen) - skipped,
        method=method,
        ranges={name: estimate(found, method) for name, found in values.items()},
        keep=frozenset(keep),
        skipped=skipped,
    )


def sample(images: ImagesLike, network: Network, limit: int) -> list[object]:
    """Return at most so many of the images, as paths or arrays, sampled evenly.

    Raises InputError if there are none.
    """
    if isinstance(images, np.ndarray):
        shape = network.graph.input_shape
        if images.shape[1:] != shape or images.dtype != np.float32:
            expected = ", ".join(map(str, shape))
            raise InputError(
                f"a batch of images must be float32 (N, {expected}), not {images.dtype} "
                f"{images.shape}"
            )
        found: Sequence[object] = list(images)
    else:
        max_pixels()  # its errors are not those of an image
        found = find_images([images] if isinstance(images, (str, PathLike)) else images)
    if not found:
        raise InputError("there are no images to calibrate with; give a folder of some hundred")
    return evenly(found, whole("limit", limit))


def _measure(
    network: Network, keep: frozenset[str], images: list[object], progress: BuildProgress | None
) -> tuple[Mapping[str, Values], int]:
    """Return what the tensors' values are on the images, by name, and how many were skipped."""
    graph, weights, names = rounded_tensors(network, keep)
    # The images themselves are one of the tensors, and no engine returns its input.
    images_name = graph.layers[0].name
    computed = [name for name in names if name != images_name]
    selected = _core.select_outputs(graph, computed)
    folded = Network(selected, weights, network.sha256, network.metadata)
    engine = build_network(folded, "fp32", max_batch=1, threads=1)
    workers = _core.usable_cpus()
    totals: SimpleQueue[dict[str, Values]] = SimpleQueue()
    for _ in range(workers):
        totals.put({name: Values() for name in names})

    def measure(image: object) -> Error | None:
        try:
            batch = to_input(image, network)
        except (FileError, InputError) as error:
            return error
        total = totals.get()
        try:
            if images_name in total:
                total[images_name].add(batch)
            for name, array in _outputs(engine, batch):
                total[name].add(array)
        finally:
            totals.put(total)
        return None

    problems: list[Error] = []
    with ThreadPoolExecutor(workers) as pool:
        done = [pool.submit(measure, image) for image in images]
        try:
            for number, image in enumerate(done):
                if progress is not None:
                    progress("calibrating, image", number, len(images))
                if (problem := image.result()) is not None:
                    problems.append(problem)
        finally:
            pool.shutdown(cancel_futures=True)
    _report(problems, len(images))
    merged = totals.get()
    while not totals.empty():
        other = totals.get()
        for name, found in merged.items():
            found.merge(other[name])
    for name, found in merged.items():
        if not (np.isfinite(found.low) and np.isfinite(found.high)):
            raise WeightsError(
                f"'{name}' of {graph.name} has values that are not finite for these images; check "
                "the weights and the images"
            )
    return merged, len(problems)


def to_input(image: object, network: Network) -> npt.NDArray[np.float32]:
    """Return an image as a batch of one."""
    if isinstance(image, np.ndarray):
        return np.ascontiguousarray(image[None])
    shape = network.graph.input_shape
    made: npt.NDArray[np.float32] = photographs.preprocess(image, network.preprocessing, shape)  # type: ignore[arg-type]
    return made[None]


def _outputs(
    engine: Engine, batch: npt.NDArray[np.float32]
) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    found = engine.infer(batch)
    if isinstance(found, dict):
        yield from found.items()
    else:
        (name,) = engine.info.outputs
        yield name, found


def to_inputs(images: list[object], network: Network) -> list[npt.NDArray[np.float32]]:
    """Return the images that can be read, each as a batch of one. Raises an error if none can."""
    inputs: list[npt.NDArray[np.float32]] = []
    problems: list[Error] = []
    for image in images:
        try:
            inputs.append(to_input(image, network))
        except (FileError, InputError) as error:
            problems.append(error)
    _report(problems, len(images))
    return inputs


def _report(problems: list[Error], images: int) -> None:
    """Log why images were skipped. Raises the first reason if there is no other image."""
    if len(problems) == images:
        raise problems[0]
    for problem in problems:
        _logger.warning("skipped: %s", problem)
