"""ResNet, ResNeSt and RegNet classifiers, from layer definitions to fast engines.

>>> import resrt
>>> engine = resrt.build("ResNeSt50")  # or weights="ResNeSt50_pretrained.pdparams"
>>> engine.classify("cat.jpg", topk=5)
>>> logits = engine.infer(batch)  # float32 (N, 3, 224, 224) -> float32 (N, 1000)
>>> engine.save("resnest50.engine")
"""

from importlib.metadata import version as _version

from resrt import _log
from resrt._core import (
    Cost,
    Graph,
    Layer,
    Parameter,
    Preprocessing,
    RegNet,
    ResNeSt,
    ResNet,
    TensorRTOptions,
)
from resrt.engine import BACKENDS, PRECISIONS, Engine, backends, build, load
from resrt.errors import (
    BackendError,
    DownloadError,
    EngineFileError,
    Error,
    FileError,
    InputError,
    ModelError,
    PrecisionError,
    WeightsError,
)
from resrt.images import Prediction
from resrt.models import ModelInfo, Published, build_graph, list_models, model_info
from resrt.pretrained import Pretrained, fetch, list_pretrained
from resrt.timing import Timing

__version__ = _version("resrt")
_log.forward()

__all__ = [
    "BACKENDS",
    "PRECISIONS",
    "BackendError",
    "Cost",
    "DownloadError",
    "Engine",
    "EngineFileError",
    "Error",
    "FileError",
    "Graph",
    "InputError",
    "Layer",
    "ModelError",
    "ModelInfo",
    "Parameter",
    "PrecisionError",
    "Prediction",
    "Preprocessing",
    "Pretrained",
    "Published",
    "RegNet",
    "ResNeSt",
    "ResNet",
    "TensorRTOptions",
    "Timing",
    "WeightsError",
    "__version__",
    "backends",
    "build",
    "build_graph",
    "fetch",
    "list_models",
    "list_pretrained",
    "load",
    "model_info",
]
