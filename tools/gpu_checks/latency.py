"""Latencies in resrt and in the other installed libraries.

All networks and contenders of a part, which is a precision and a batch size, take turns
(`resrt.measuring.rounds`). Each contender has its own process, so that one that crashes or loses
the GPU does not affect the others.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

import resrt
from gpu_checks.checks import SPLIT_ATTENTION
from gpu_checks.engines import RTX, Array, EngineStore, difference, why_no_torch
from resrt.engine.network import Network, resolve
from resrt.measuring.processes import Failed, Process, Result, sentence
from resrt.measuring.rounds import Spread, take_turns, turn
from resrt.operations.export import onnx_model

METHOD = (
    "Wall-clock time of an inference, until it has finished, in milliseconds per batch. Each "
    "contender has its own process. The networks and contenders of a precision and batch size take "
    "turns. A turn is one untimed inference and the median of 10 timed ones. Figures are medians "
    "and quartiles over the rounds; ratios are taken within rounds. The rows do not all time the "
    "same thing. host: from NumPy arrays to NumPy arrays, so resrt copies the images to the GPU "
    "and the logits back, and uses CUDA graphs. device: nothing is copied, and resrt uses no "
    "graphs; resrt and PyTorch compute in a stream other than the default one. No row has resrt "
    "with graphs and without copies. resrt and ONNX Runtime receive planar float32 images; casting "
    "and reformatting them is part of the time, and so is allocating resrt's logits. PyTorch "
    "receives channels-last images in its own precision. PyTorch eager computes batch "
    "normalisations as separate operations; torch.compile folds them and uses CUDA graphs."
)
# ResNeSt50's latency divided by ResNet50's, and the figures that it is compared with.
RATIO = (SPLIT_ATTENTION, "ResNet50")
PUBLISHED = (("fp16", 1), ("fp32", 1))  # precision and batch size
KNOWN = (
    "PaddleClas published 2.90 (V100, fp32, batch 1) and 2.68 (T4, fp16, batch 1) for TensorRT; "
    "the ratio of the multiply-adds is 1.32"
)
_WARM_UP_ROUNDS = 3
_TIMED = 10
_PLUGIN: dict[str, Any] = {"split_attention_plugin": True}


@dataclass(frozen=True)
class Task:
    """A network in a precision, in batches of the store's `max_batch`."""

    network: str
    precision: str
    engines: EngineStore

    def images(self) -> Array:
        """Return the batch."""
        return self.engines.images(self.network, self.engines.max_batch)

    def resolved(self) -> Network:
        """Return the graph and the weights of the store's engines."""
        store = self.engines
        return resolve(self.network, "random", input_size=store.input_size, classes=store.classes)


@dataclass(frozen=True)
class Ready:
    """`run` infers the batch and waits; `to_numpy` converts the logits that it returned."""

    run: Callable[[], Any]
    to_numpy: Callable[[Any], Array] = np.asarray


@dataclass(frozen=True)
class Contender:
    """Something to time; `memory` has the images and the logits: "host" or "device"."""

    name: str
    memory: str
    prepare: Callable[[Task], Ready]
    backend: str | None = None
    has_plugin: bool = False

    def why_not(self, network: str) -> str | None:
        """Return why it does not run a network, or None."""
        no_plugin = self.has_plugin and network != SPLIT_ATTENTION
        return f"{network} has no split attention" if no_plugin else None


# A network in a contender.
Entry = tuple[str, Contender]


@dataclass(frozen=True)
class Latency:
    """The spread over the rounds, in milliseconds; if there is none, `error` is the reason."""

    network: str
    precision: str
    batch: int
    contender: str
    memory: str
    ms: Spread | None = None
    error: str | None = None

    def __str__(self) -> str:
        head = f"{self.network:14}{self.precision:6}{self.batch:5}  {self.contender:24}"
        head += f"{self.memory:8}"
        if self.ms is None:
            return f"{head}{self.error}"
        return f"{head}{self.ms.median:9.3f} ({self.ms.low:.3f} – {self.ms.high:.3f})"


@dataclass(frozen=True)
class Ratio:
    """ResNeSt50's latency divided by ResNet50's: the spread of the ratios within rounds."""

    precision: str
    batch: int
    contender: str
    memory: str
    ratio: Spread

    def __str__(self) -> str:
        head = f"{self.precision:6}{self.batch:5}  {self.contender:24}{self.memory:8}"
        return f"{head}{self.ratio.median:6.2f} ({self.ratio.low:.2f} – {self.ratio.high:.2f})"


def contenders(backends: Sequence[str]) -> list[Contender]:
    """Return resrt with each backend, also with the plugin if supported, and the others."""
    ours = []
    for backend in backends:
        for has_plugin in (False, True) if backend != RTX else (False,):
            name = f"{backend}, plugin" if has_plugin else backend
            options = _PLUGIN if has_plugin else {}
            for memory, prepare in (("host", _engine), ("device", _engine_on_device)):
                prepare = functools.partial(prepare, backend, options)
                ours.append(Contender(name, memory, prepare, backend, has_plugin))
    return [
        *ours,
        Contender("PyTorch eager", "device", functools.partial(_torch, False)),
        Contender("torch.compile", "device", functools.partial(_torch, True)),
        Contender("ONNX Runtime CUDA", "device", _onnx_runtime),
    ]


def engines_to_build(
    engines: EngineStore,
    contenders_: Sequence[Contender],
    networks: Sequence[str],
    precision: str,
) -> int:
    """Return how many engines `measure` requires that the store does not have yet."""
    files = {
        replace(engines, backend=contender.backend).path_of(
            network, precision, **(_PLUGIN if contender.has_plugin else {})
        )
        for contender in contenders_
        for network in networks
        if contender.backend is not None and contender.why_not(network) is None
    }
    return sum(not file.exists() for file in files)


class _Process(Process):
    """A process in which all calls fail once one has.

    After a timeout, the next call would otherwise return the result of the one before.
    """

    _failure: Failed | None = None

    def call(
        self, function: Callable[..., Result], *arguments: object, timeout: float | None = None
    ) -> Result:
        if self._failure is None:
            try:
                return super().call(function, *arguments, timeout=timeout)
            except Failed as failure:
                self._failure = failure
        raise self._failure


# By network, in a contender's process.
_ready: dict[str, Ready] = {}


def _prepare(contender: Contender, task: Task) -> Array | str:
    """In a contender's process, prepare a network; return its logits, or why there are none."""
    try:
        ready = _ready[task.network] = contender.prepare(task)
        return np.array(ready.to_numpy(ready.run()), np.float32)
    except Exception as error:
        return sentence(error)


def _take_turn(network: str) -> float:
    return turn(_ready[network].run, _TIMED)


def measure(
    engines: EngineStore,
    contenders_: Sequence[Contender],
    networks: Sequence[str],
    precision: str,
    rounds: int,
    limit: float,
) -> tuple[list[Latency], list[Ratio]]:
    """Time the networks in the contenders, in turn, in batches of the store's `max_batch`.

    `limit` is the number of seconds that a contender may take to prepare a network, and for a turn.
    """
    failures: dict[Entry, Exception] = {}
    turns: dict[Entry, Callable[[], float]] = {}
    with ExitStack() as stack:
        processes = {each: stack.enter_context(_Process()) for each in contenders_}
        for network in networks:
            task = Task(network, precision, engines)
            try:
                expected = engines.reference(network, task.images())
            except resrt.Error as error:
                failures |= {(network, contender): error for contender in contenders_}
                continue
            for contender, process in processes.items():
                call = functools.partial(process.call, timeout=limit)
                try:
                    found = contender.why_not(network) or call(_prepare, contender, task)
                    if isinstance(found, str):
                        raise Failed(found)
                    difference(found, expected, precision)
                    turns[network, contender] = functools.partial(call, _take_turn, network)
                except Failed as failure:
                    failures[network, contender] = failure
        seconds, stopped = take_turns(turns, rounds, warm_up=_WARM_UP_ROUNDS)
    failures |= stopped
    batch = engines.max_batch

    def latency(network: str, contender: Contender) -> Latency:
        of = (network, precision, batch, contender.name, contender.memory)
        if failure := failures.get((network, contender)):
            return Latency(*of, error=sentence(failure))
        return Latency(*of, ms=Spread.of(1e3 * seconds[network, contender]))

    latencies = [latency(network, contender) for network in networks for contender in contenders_]
    ratios = [
        Ratio(precision, batch, contender.name, contender.memory, Spread.of(ratio))
        for contender in contenders_
        if (ratio := _ratio(contender, seconds)) is not None
    ]
    return latencies, ratios


def _ratio(
    contender: Contender, seconds: Mapping[Entry, npt.NDArray[np.float64]]
) -> npt.NDArray[np.float64] | None:
    """Return a contender's ratio in each round; with the plugin, over ResNet50 without it."""
    plain = contender.name.partition(",")[0]
    under = next(
        (
            found
            for (network, other), found in seconds.items()
            if (network, other.name, other.memory) == (RATIO[1], plain, contender.memory)
        ),
        None,
    )
    over = seconds.get((RATIO[0], contender))
    return None if over is None or under is None else over / under


def _load(backend: str, options: dict[str, Any], task: Task) -> resrt.Engine:
    return replace(task.engines, backend=backend).engine(task.network, task.precision, **options)


def _engine(backend: str, options: dict[str, Any], task: Task) -> Ready:
    """From NumPy arrays to NumPy arrays, including the copies between memories."""
    return Ready(functools.partial(_load(backend, options, task).infer, task.images()))


def _engine_on_device(backend: str, options: dict[str, Any], task: Task) -> Ready:
    """From PyTorch tensors to PyTorch tensors. CUDA graphs are not used with these."""
    _require_torch()
    import torch

    engine = _load(backend, options, task)
    images = torch.from_numpy(task.images()).to("cuda")

    def infer(stream: int) -> Any:
        return engine.infer(images, stream=stream)

    return _in_a_stream(torch, infer, lambda found: torch.from_dlpack(found).cpu().numpy())


def _torch(is_compiled: bool, task: Task) -> Ready:
    """Channels-last, in the precision itself, with CUDA graphs if it is compiled."""
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
    images = torch.from_numpy(task.images()).to("cuda", **layout)
    options = {"freezing": True, "triton.cudagraphs": True}
    forward = torch.compile(network, options=options) if is_compiled else network

    def infer(_: int) -> Any:
        with torch.inference_mode():
            return forward(images)

    return _in_a_stream(torch, infer, lambda found: found.float().cpu().numpy())


def _require_torch() -> None:
    if why := why_no_torch():
        raise Failed(why)


def _in_a_stream(
    torch: Any, infer: Callable[[int], Any], to_numpy: Callable[[Any], Array]
) -> Ready:
    """Compute in a stream other than the default one, for which all other streams would wait.

    `infer` receives the stream's handle, and the stream is PyTorch's current one.
    """
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()  # the inputs were made in the default stream

    def run() -> Any:
        with torch.cuda.stream(stream):
            logits = infer(stream.cuda_stream)
        stream.synchronize()
        return logits

    return Ready(run, to_numpy)


def _onnx_runtime(task: Task) -> Ready:
    if task.precision != "fp32":
        raise Failed("the exported file is in float32")
    if importlib.util.find_spec("onnxruntime") is None or importlib.util.find_spec("onnx") is None:
        raise Failed("onnx and onnxruntime are not installed")
    import onnxruntime

    if hasattr(onnxruntime, "preload_dlls"):  # for CUDA libraries that were installed as wheels
        onnxruntime.preload_dlls()
    provider = "CUDAExecutionProvider"
    images = task.images()
    model = onnx_model(task.resolved(), batch=len(images)).SerializeToString()
    settings = {"use_tf32": "0", "cudnn_conv_algo_search": "EXHAUSTIVE"}
    session = onnxruntime.InferenceSession(model, providers=[(provider, settings)])
    if provider not in session.get_providers():  # it uses the processor then, and only warns
        raise Failed(f"this onnxruntime cannot use its {provider}")
    binding = session.io_binding()
    (given,), (logits,) = session.get_inputs(), session.get_outputs()
    on_gpu = onnxruntime.OrtValue.ortvalue_from_numpy(images, "cuda", 0)
    binding.bind_ortvalue_input(given.name, on_gpu)
    binding.bind_output(logits.name, "cuda")

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return Ready(run, lambda _: binding.copy_outputs_to_cpu()[0])
