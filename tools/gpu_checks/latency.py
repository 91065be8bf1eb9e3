"""Latencies, in resrt and in what else is installed.

The networks and contenders of one part, which is a precision and a batch size, take turns: in each
round each has one turn, of one inference untimed and several timed, whose median counts. So what
the GPU's clocks do over time befalls all of them alike, and ratios are taken within rounds. The
clock is the processor's, around an inference and the wait for its end. A contender that fails
leaves the rounds to the others.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

import resrt
from gpu_checks.checks import SPLIT_ATTENTION
from gpu_checks.workshop import RTX, Array, Workshop, WrongError, difference, why_no_torch
from resrt.engine.network import Network, resolve
from resrt.operations.export import onnx_model

METHOD = (
    "wall clock around an inference and the wait for its end, milliseconds per batch; the networks "
    "and contenders of a precision and batch size in turn, a round being one inference untimed and "
    "the median of 10 timed of each; medians and quartiles of the rounds. What is timed differs. "
    "host: NumPy's arrays, so that resrt copies images to the GPU and logits back, and takes CUDA "
    "graphs. device: nothing is copied, and resrt takes no graph; it and PyTorch each compute in a "
    "stream besides the default one. No row shows resrt with a graph and without copies. resrt and "
    "ONNX Runtime take float32 images in planes, which resrt casts and reformats within the time, "
    "and resrt allots its logits' memory in it; PyTorch's images are in the precision and "
    "channels-last beforehand. PyTorch eager computes batch normalisations by themselves; "
    "torch.compile folds them and takes CUDA graphs"
)
# What ResNeSt50's latency is compared with, and what is known of that ratio.
RATIO = (SPLIT_ATTENTION, "ResNet50")
PUBLISHED = (("fp16", 1), ("fp32", 1))  # precision and batch size
KNOWN = (
    "PaddleClas published 2.90 (V100, fp32, batch 1) and 2.68 (T4, fp16, batch 1) for TensorRT; "
    "the multiply-adds' ratio is 1.32"
)
_WARM_UP_ROUNDS = 3
_TIMED = 10
_PLUGIN: dict[str, Any] = {"split_attention_plugin": True}


class LeftOutError(Exception):
    """Why a contender does not take part."""


@dataclass(frozen=True)
class Task:
    """A network in a precision, with images of one batch. The workshop may be of any backend."""

    network: str
    precision: str
    images: Array
    workshop: Workshop

    def resolved(self) -> Network:
        """The graph and weights that the workshop's engines have."""
        return resolve(
            self.network,
            "random",
            input_size=self.workshop.input_size,
            classes=self.workshop.classes,
            in_channels=None,
            labels=None,
            preprocessing=None,
        )


@dataclass(frozen=True)
class Ready:
    """`run` computes the batch once and waits for the end; `logits` are those of the last run."""

    run: Callable[[], object]
    logits: Callable[[], Array]


@dataclass(frozen=True)
class Contender:
    """`memory` is where images come from and logits go to, "host" or "device"."""

    name: str
    memory: str
    prepare: Callable[[Task], Ready]
    has_plugin: bool = False


# A network in a contender.
Entry = tuple[str, Contender]


@dataclass(frozen=True)
class Latency:
    """The median and quartiles of the rounds, in milliseconds; or in `error` why there are none."""

    network: str
    precision: str
    batch: int
    contender: str
    memory: str
    median_ms: float | None = None
    low_ms: float | None = None
    high_ms: float | None = None
    error: str | None = None

    def __str__(self) -> str:
        head = f"{self.network:14}{self.precision:6}{self.batch:5}  {self.contender:24}"
        head += f"{self.memory:8}"
        if self.error is not None:
            return head + self.error
        return f"{head}{self.median_ms:9.3f} ({self.low_ms:.3f} – {self.high_ms:.3f})"


@dataclass(frozen=True)
class Ratio:
    """ResNeSt50's latency over ResNet50's: the median and quartiles of the rounds' ratios."""

    precision: str
    batch: int
    contender: str
    memory: str
    median: float
    low: float
    high: float

    def __str__(self) -> str:
        head = f"{self.precision:6}{self.batch:5}  {self.contender:24}{self.memory:8}"
        return f"{head}{self.median:6.2f} ({self.low:.2f} – {self.high:.2f})"


def contenders(backends: Sequence[str]) -> list[Contender]:
    """Return resrt with each backend, with the plugin where it takes one, and the others."""
    ours = []
    for backend in backends:
        for has_plugin in (False, True) if backend != RTX else (False,):
            name = f"{backend}, plugin" if has_plugin else backend
            options = _PLUGIN if has_plugin else {}
            for memory, prepare in (("host", _engine), ("device", _engine_on_device)):
                prepare = functools.partial(prepare, backend, options)
                ours.append(Contender(name, memory, prepare, has_plugin))
    return [
        *ours,
        Contender("PyTorch eager", "device", functools.partial(_torch, False)),
        Contender("torch.compile", "device", functools.partial(_torch, True)),
        Contender("ONNX Runtime CUDA", "device", _onnx_runtime),
    ]


def engines_to_build(
    workshop: Workshop, backends: Sequence[str], networks: Sequence[str], precision: str
) -> int:
    """Return how many engines `measure` will not find in the workshop's folder."""
    wanted: list[tuple[str, str, dict[str, Any]]] = [
        (backend, network, {}) for backend in backends for network in networks
    ]
    if SPLIT_ATTENTION in networks:
        wanted += [(backend, SPLIT_ATTENTION, _PLUGIN) for backend in backends if backend != RTX]
    return sum(
        not replace(workshop, backend=backend).path_of(network, precision, **options).exists()
        for backend, network, options in wanted
    )


def measure(
    workshop: Workshop,
    networks: Sequence[str],
    precision: str,
    contenders_: Sequence[Contender],
    rounds: int,
) -> tuple[list[Latency], list[Ratio]]:
    """Time the networks in the contenders, in turn, with batches of the workshop's largest size."""
    failures: dict[Entry, str] = {}
    running: dict[Entry, Ready] = {}
    for network in networks:
        try:
            images = workshop.images(network, workshop.max_batch)
            expected = workshop.reference(network, images)
        except Exception as error:
            failures.update({(network, each): _reason(error) for each in contenders_})
            continue
        task = Task(network, precision, images, workshop)
        for contender in contenders_:
            try:
                ready = contender.prepare(task)
                ready.run()
                difference(ready.logits(), expected, precision)
                running[network, contender] = ready
            except Exception as error:
                failures[network, contender] = _reason(error)
    times = _take_turns(running, rounds, failures)
    latencies = [
        _latency((network, contender), precision, workshop.max_batch, times, failures)
        for network in networks
        for contender in contenders_
    ]
    return latencies, _ratios(precision, workshop.max_batch, contenders_, times)


def none_measured(
    networks: Sequence[str],
    precision: str,
    batch: int,
    contenders_: Iterable[Contender],
    why: str,
) -> list[Latency]:
    """Return the rows of what gave no latencies."""
    return [
        Latency(network, precision, batch, contender.name, contender.memory, error=why)
        for network in networks
        for contender in contenders_
    ]


def _take_turns(
    running: dict[Entry, Ready], rounds: int, failures: dict[Entry, str]
) -> dict[Entry, npt.NDArray[np.float64]]:
    """Return the milliseconds of each round. The first of a round is the last of the next.

    Who fails in a round is left out from then on, with the reason in `failures`.
    """
    times: dict[Entry, list[float]] = {entry: [] for entry in running}
    order = list(running)
    for _ in range(_WARM_UP_ROUNDS + rounds):
        for entry in order:
            try:
                times[entry].append(_turn(running[entry].run))
            except Exception as error:
                failures[entry] = _reason(error)
                del times[entry]
        order = [entry for entry in order[1:] + order[:1] if entry in times]
    return {entry: np.array(found[_WARM_UP_ROUNDS:]) for entry, found in times.items()}


def _turn(run: Callable[[], object]) -> float:
    run()
    found = []
    for _ in range(_TIMED):
        start = perf_counter()
        run()
        found.append(1000 * (perf_counter() - start))
    return float(np.median(found))


def _latency(
    entry: Entry,
    precision: str,
    batch: int,
    times: dict[Entry, npt.NDArray[np.float64]],
    failures: dict[Entry, str],
) -> Latency:
    network, contender = entry
    row = functools.partial(Latency, network, precision, batch, contender.name, contender.memory)
    if entry in failures:
        return row(error=failures[entry])
    low, median, high = np.percentile(times[entry], [25, 50, 75]).tolist()
    return row(median_ms=median, low_ms=low, high_ms=high)


def _ratios(
    precision: str,
    batch: int,
    contenders_: Sequence[Contender],
    times: dict[Entry, npt.NDArray[np.float64]],
) -> list[Ratio]:
    """Return a ratio for each contender; with the plugin, over ResNet50 as that is without it."""
    ratios = []
    for contender in contenders_:
        name = contender.name.partition(",")[0]
        plain = next(c for c in contenders_ if (c.name, c.memory) == (name, contender.memory))
        over, under = times.get((RATIO[0], contender)), times.get((RATIO[1], plain))
        if over is None or under is None:
            continue
        low, median, high = np.percentile(over / under, [25, 50, 75]).tolist()
        ratios.append(Ratio(precision, batch, contender.name, contender.memory, median, low, high))
    return ratios


def _reason(error: Exception) -> str:
    if isinstance(error, (LeftOutError, WrongError, resrt.Error)):
        return str(error)
    first_line = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first_line}"


def _load(backend: str, options: dict[str, Any], task: Task) -> resrt.Engine:
    if options and task.network != SPLIT_ATTENTION:
        raise LeftOutError("it has no split attention")
    workshop = replace(task.workshop, backend=backend)
    return workshop.engine(task.network, task.precision, **options)


def _engine(backend: str, options: dict[str, Any], task: Task) -> Ready:
    """From NumPy's arrays to NumPy's arrays, copies between memories included."""
    engine = _load(backend, options, task)
    last = [engine.infer(task.images)]

    def run() -> None:
        last[0] = engine.infer(task.images)

    return Ready(run, lambda: last[0])


def _engine_on_device(backend: str, options: dict[str, Any], task: Task) -> Ready:
    """From PyTorch's tensors to PyTorch's tensors. No CUDA graph is used with these."""
    _require_torch()
    import torch

    engine = _load(backend, options, task)
    images = torch.from_numpy(task.images).to("cuda")

    def infer(stream: int) -> Any:
        return engine.infer(images, stream=stream)

    return _in_a_stream(torch, infer, lambda found: torch.from_dlpack(found).cpu().numpy())


def _torch(is_compiled: bool, task: Task) -> Ready:
    """Channels-last, in the precision itself, with CUDA graphs where it is compiled."""
    _require_torch()
    import torch

    from resrt.graphs.torch_network import TorchNetwork

    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    types = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    layout = {"dtype": types[task.precision], "memory_format": torch.channels_last}
    resolved = task.resolved()
    network = TorchNetwork(resolved.graph)
    network.load({name: torch.from_numpy(array) for name, array in resolved.weights.items()})
    network = network.eval().requires_grad_(False).to("cuda", **layout)
    images = torch.from_numpy(task.images).to("cuda", **layout)
    options = {"freezing": True, "triton.cudagraphs": True}
    forward = torch.compile(network, options=options) if is_compiled else network

    def infer(_: int) -> Any:
        with torch.inference_mode():
            return forward(images)

    return _in_a_stream(torch, infer, lambda found: found.float().cpu().numpy())


def _require_torch() -> None:
    if why := why_no_torch():
        raise LeftOutError(why)


def _in_a_stream(
    torch: Any, infer: Callable[[int], Any], to_numpy: Callable[[Any], Array]
) -> Ready:
    """Compute in a stream besides the default one, with which all others would wait for it.

    `infer` gets the stream's handle, and PyTorch's current stream is that one.
    """
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()  # what is computed with was made in the default stream
    last: list[Any] = [None]

    def run() -> None:
        with torch.cuda.stream(stream):
            last[0] = infer(stream.cuda_stream)
        stream.synchronize()

    return Ready(run, lambda: to_numpy(last[0]))


def _onnx_runtime(task: Task) -> Ready:
    if task.precision != "fp32":
        raise LeftOutError("the exported file is in float32")
    if importlib.util.find_spec("onnxruntime") is None or importlib.util.find_spec("onnx") is None:
        raise LeftOutError("onnx and onnxruntime are not installed")
    import onnxruntime

    if hasattr(onnxruntime, "preload_dlls"):  # CUDA's libraries, where they came as wheels
        onnxruntime.preload_dlls()
    provider = "CUDAExecutionProvider"
    model = onnx_model(task.resolved(), batch=len(task.images)).SerializeToString()
    settings = {"use_tf32": "0", "cudnn_conv_algo_search": "EXHAUSTIVE"}
    session = onnxruntime.InferenceSession(model, providers=[(provider, settings)])
    if provider not in session.get_providers():  # it takes the processor then, and only warns
        raise LeftOutError(f"this onnxruntime cannot use its {provider}")
    binding = session.io_binding()
    (images,), (logits,) = session.get_inputs(), session.get_outputs()
    binding.bind_ortvalue_input(
        images.name, onnxruntime.OrtValue.ortvalue_from_numpy(task.images, "cuda", 0)
    )
    binding.bind_output(logits.name, "cuda")

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return Ready(run, lambda: binding.copy_outputs_to_cpu()[0])
