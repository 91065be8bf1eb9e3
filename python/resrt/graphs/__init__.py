"""Walks over a graph that end outside the core: an ONNX model, a PyTorch module."""

import lazy_loader

# A public module: resrt.torch_network.
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules={"torch_network"})
