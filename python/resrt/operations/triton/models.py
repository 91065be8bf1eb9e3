"""The models that each form of a repository has for an engine: configurations and files."""

from __future__ import annotations

import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from resrt._core import EngineInfo
from resrt.errors import InputError, PackageError
from resrt.operations.triton import config
from resrt.operations.triton.settings import Settings, runs_on_gpu
from resrt.weights.metadata import fields

ENGINE_FILE, DESCRIPTION_FILE, LABELS_FILE = "model.engine", "photographs.json", "labels.txt"
OVERVIEW_FILE = "config.json"  # of OpenVINO Model Server


@dataclass(frozen=True)
class Source:
    """An engine file that is to be served under a name."""

    file: Path
    name: str
    info: EngineInfo
    exact: bool


class Model(ABC):
    """A model of a repository."""

    #: What its name adds to that of the engine's model.
    suffix: ClassVar[str] = ""
    #: The name, type and shape of its input.
    input: ClassVar[str] = "images"
    data_type: ClassVar[str] = "FP32"

    def __init__(self, source: Source) -> None:
        self.source = source

    @property
    def name(self) -> str:
        """The name under which clients know it."""
        return self.source.name + self.suffix

    @property
    def dims(self) -> tuple[int, ...]:
        """The shape of one image."""
        return self.source.info.input_shape

    def config(self, settings: Settings) -> dict[str, Any]:
        """Return the fields of its config.pbtxt."""
        info = self.source.info
        images = config.tensor(self.input, self.data_type, self.dims)
        logits = config.tensor("logits", "FP32", [info.classes])
        if info.labels:
            logits["label_filename"] = LABELS_FILE
        return {
            "name": self.name,
            **self._backend(),
            "max_batch_size": info.max_batch,
            "input": [images],
            "output": [logits],
            "version_policy": {"latest": {"num_versions": 1}},
            **self._scheduling(settings, images),
        }

    @abstractmethod
    def _backend(self) -> dict[str, Any]: ...

    def _scheduling(self, settings: Settings, images: dict[str, Any]) -> dict[str, Any]:
        """Return the fields for an engine: its instances, batches and warm-up."""
        kind = "KIND_GPU" if runs_on_gpu(self.source.info) else "KIND_CPU"
        return {
            "instance_group": [{"kind": config.Enum(kind), "count": settings.instances}],
            # Without a delay: a request waits only while all instances are busy.
            "dynamic_batching": {"preferred_batch_size": list(settings.batch_sizes)},
            "model_warmup": config.warm_up(sorted({1, *settings.batch_sizes}), images),
        }

    def write(self, folder: Path) -> None:
        """Write the files that all versions share, except config.pbtxt."""
        if labels := self.source.info.labels:
            lines = (" ".join(label.split()) for label in labels)
            (folder / LABELS_FILE).write_text("".join(f"{line}\n" for line in lines), "utf-8")

    @abstractmethod
    def write_version(self, folder: Path) -> None:
        """Write the files of a version."""


class PythonModel(Model):
    """A model of the Python backend that loads the engine."""

    kind: ClassVar[str] = "images"

    def _backend(self) -> dict[str, Any]:
        return {"backend": "python", "parameters": config.parameters(self._parameters())}

    def _parameters(self) -> dict[str, str]:
        return {"input": self.kind}

    def write_version(self, folder: Path) -> None:
        """Write model.py and the engine."""
        _write_program(folder)
        shutil.copyfile(self.source.file, folder / ENGINE_FILE)


class Pixels(PythonModel):
    """A model that normalises pictures of the input's size for the model of the engine."""

    suffix, data_type, kind = "_uint8", "UINT8", "pixels"

    def _parameters(self) -> dict[str, str]:
        return {**super()._parameters(), "engine_model": self.source.name}

    def _scheduling(self, settings: Settings, images: dict[str, Any]) -> dict[str, Any]:
        # Two batches: one is prepared while the logits of the other are computed.
        return {
            "instance_group": [{"kind": config.Enum("KIND_CPU"), "count": 2}],
            "dynamic_batching": {},
        }

    def write_version(self, folder: Path) -> None:
        """Write model.py and how images are preprocessed."""
        _write_program(folder)
        info = self.source.info
        description = {
            "input_shape": info.input_shape,
            "preprocessing": fields(info.preprocessing),
            "exact": self.source.exact,
        }
        (folder / DESCRIPTION_FILE).write_text(f"{json.dumps(description, indent=2)}\n", "utf-8")


class Photographs(Pixels):
    """A model that decodes and preprocesses image files for the model of the engine."""

    suffix, data_type, kind, input = "_photographs", "STRING", "photographs", "photographs"

    @property
    def dims(self) -> tuple[int, ...]:
        """One file."""
        return (1,)


class OpenVinoModel(Model):
    """A model of OpenVINO's own format."""

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        if source.info.backend != "openvino":
            raise InputError(
                f"'{source.file}' is an engine of {source.info.backend}, not of openvino; build "
                "one with the backend openvino, or write the form python"
            )

    def _backend(self) -> dict[str, Any]:
        # OpenVINO would otherwise compute fp32 networks in bf16 where the processor supports it.
        bf16 = "YES" if self.source.info.precision == "bf16" else "NO"
        return {"backend": "openvino", "parameters": config.parameters({"HINT_BF16": bf16})}

    def write_version(self, folder: Path) -> None:
        """Write model.xml and model.bin."""
        plan = _plan(self.source.file)
        length = int.from_bytes(plan[:8], "little")
        xml, constants = plan[8 : 8 + length], np.frombuffer(plan[8 + length :], np.uint8).copy()
        openvino = _openvino()
        model = openvino.Core().read_model(xml, openvino.Tensor(constants))
        model.output(0).tensor.set_names({"logits"})
        openvino.serialize(model, folder / "model.xml")


def _openvino() -> Any:
    try:
        import openvino
    except RuntimeError as error:  # it looks for a file in the home folder
        raise PackageError(f"cannot import openvino: {error}; set HOME to a folder") from None
    return openvino


class TensorRTModel(Model):
    """A TensorRT plan."""

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        if source.info.backend != "tensorrt":
            raise InputError(
                f"'{source.file}' is an engine of {source.info.backend}, not of tensorrt; build "
                "one with the backend tensorrt, or write the form python"
            )

    def _backend(self) -> dict[str, Any]:
        return {"platform": "tensorrt_plan"}

    def write_version(self, folder: Path) -> None:
        """Write model.plan."""
        (folder / "model.plan").write_bytes(_plan(self.source.file))


def models(source: Source, form: str) -> list[Model]:
    """Return the models of an engine, that of the engine first. Raises InputError."""
    if form == "openvino":
        return [OpenVinoModel(source)]
    if form == "tensorrt":
        return [TensorRTModel(source)]
    if source.info.input_shape[0] not in (1, 3) or not source.info.preprocessing.mean:
        return [PythonModel(source)]  # which photographs and pictures are no inputs for
    return [PythonModel(source), Pixels(source), Photographs(source)]


def overview(sources: Mapping[str, Source]) -> dict[str, Any]:
    """Return the configuration of OpenVINO Model Server for models of the form openvino."""
    return {
        "model_config_list": [
            {
                "config": {
                    "name": name,
                    "base_path": f"/models/{name}",
                    "plugin_config": {
                        "INFERENCE_PRECISION_HINT": _PRECISIONS[source.info.precision],
                        "PERFORMANCE_HINT": "THROUGHPUT",
                    },
                }
            }
            for name, source in sources.items()
        ]
    }


_PRECISIONS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}


def _plan(file: Path) -> bytes:
    """Return the plan of a valid engine file, whose backend need not run here."""
    content = memoryview(file.read_bytes())
    start = 12 + 8 + int.from_bytes(content[12:20], "little")  # after the metadata
    return bytes(content[start + 8 : -4])


def _write_program(folder: Path) -> None:
    program = resources.files(__package__).joinpath("python_model.py").read_text("utf-8")
    (folder / "model.py").write_text(program, "utf-8")
