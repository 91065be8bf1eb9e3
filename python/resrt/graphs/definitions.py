"""What walks over the layer definitions of a graph have in common."""

from __future__ import annotations

from typing import NoReturn

from resrt import _core


def assert_never(definition: NoReturn) -> NoReturn:
    """Raise AssertionError for a definition that no case of a `match` handles.

    A type checker rejects the call if a definition can reach it. Python 3.11 has it in `typing`.
    """
    raise AssertionError(f"unhandled layer definition: {definition!r}")


def output_shapes(graph: _core.Graph) -> dict[str, tuple[int, ...]]:
    """Return the name of each output of a graph, and its shape for one image."""
    shapes = {layer.name: layer.shape for layer in graph.layers}
    return {
        output: shapes[layer][:1] if graph.is_vector(layer) else shapes[layer]
        for output, layer in graph.outputs
    }
