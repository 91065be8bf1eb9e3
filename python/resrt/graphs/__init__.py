"""Layer definitions, and conversions of graphs to ONNX models and PyTorch modules."""

import lazy_loader

# These are public modules: resrt.layers and resrt.torch_network.
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules={"layers", "torch_network"})
