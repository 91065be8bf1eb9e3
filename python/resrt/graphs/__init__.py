"""Conversions of graphs to ONNX models and PyTorch modules."""

import lazy_loader

# This one is a public module: resrt.torch_network.
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules={"torch_network"})
