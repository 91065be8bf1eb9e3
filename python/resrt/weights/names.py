"""Parameter names: each source's own, and ours, which are timm's."""

from __future__ import annotations

import re
from collections.abc import Mapping

from resrt import _core
from resrt.weights.checkpoint import Array

# PaddleClas's classes name the same places differently. First, places are written alike:
# stem.0, layer1.0 and s1.b1 with convolutions counted from 1, as ours are.
_PLACES: tuple[tuple[str, str], ...] = (
    (r"(?:stem\.conv|conv1_)1\.", r"stem.0."),
    (r"(?:stem\.conv|conv1_)2\.", r"stem.1."),
    (r"(?:stem\.conv|conv1_)3\.", r"stem.2."),
    (r"(blocks\.\d+|bb_\d+_\d+|s\d+_b\d+)\.conv2\.", r"\1.conv3."),
    (r"(blocks\.\d+|bb_\d+_\d+|s\d+_b\d+)\.conv1\.", r"\1.conv2."),
    (r"(blocks\.\d+|bb_\d+_\d+|s\d+_b\d+)\.conv0\.", r"\1.conv1."),
    (r"bb_0_(\d+)\.", r"layer1.\1."),
    (r"bb_1_(\d+)\.", r"layer2.\1."),
    (r"bb_2_(\d+)\.", r"layer3.\1."),
    (r"bb_3_(\d+)\.", r"layer4.\1."),
    (r"layer\d+\.layer(\d+)_bottleneck_(\d+)\.", r"layer\1.\2."),
    (r"s(\d+)_b(\d+)\.", r"s\1.b\2."),
)

# Then each convolution and each batch normalisation has its row. Where ours depends on the
# network's variant there are two candidates, and the first that the graph has is taken: the
# convolution of a shortcut, say, is downsample.0, or downsample.1 after a pooling.
_CONV = r"\.(?:_conv|conv)\.(weight)"
_NORM = r"\.(?:_batch_norm|bn)\.(weight|bias|running_mean|running_var)"
_PADDLE: tuple[tuple[str, tuple[str, ...]], ...] = (
    (rf"stem\.0{_CONV}", (r"conv1.0.\1", r"conv1.\1")),
    (rf"stem\.0{_NORM}", (r"conv1.1.\1", r"bn1.\1")),
    (rf"stem\.1{_CONV}", (r"conv1.3.\1",)),
    (rf"stem\.1{_NORM}", (r"conv1.4.\1",)),
    (rf"stem\.2{_CONV}", (r"conv1.6.\1",)),
    (rf"stem\.2{_NORM}", (r"bn1.\1",)),
    # ResNet, and what ResNeSt shares with it.
    (rf"(layer\d+\.\d+)\.conv(\d){_CONV}", (r"\1.conv\2.\3",)),
    (rf"(layer\d+\.\d+)\.conv(\d){_NORM}", (r"\1.bn\2.\3",)),
    (rf"(layer\d+\.\d+)\.short{_CONV}", (r"\1.downsample.0.\2", r"\1.downsample.1.\2")),
    (rf"(layer\d+\.\d+)\.short{_NORM}", (r"\1.downsample.2.\2", r"\1.downsample.1.\2")),
    # ResNeSt's split attention, and its shortcut of a bare convolution and normalisation.
    (rf"(layer\d+\.\d+)\.conv2\.conv1{_CONV}", (r"\1.conv2.conv.\2",)),
    (rf"(layer\d+\.\d+)\.conv2\.conv1{_NORM}", (r"\1.conv2.bn0.\2",)),
    (rf"(layer\d+\.\d+)\.conv2\.conv2{_CONV}", (r"\1.conv2.fc1.\2",)),
    (rf"(layer\d+\.\d+)\.conv2\.conv2{_NORM}", (r"\1.conv2.bn1.\2",)),
    (r"(layer\d+\.\d+)\.conv2\.conv3\.(weight|bias)", (r"\1.conv2.fc2.\2",)),
    (r"(layer\d+\.\d+)\.conv4\.(weight)", (r"\1.downsample.1.\2",)),
    (rf"(layer\d+\.\d+){_NORM}", (r"\1.downsample.2.\2",)),
    # RegNet.
    (rf"conv{_CONV}", (r"stem.conv.\1",)),
    (rf"conv{_NORM}", (r"stem.bn.\1",)),
    (rf"(s\d+\.b\d+)\.conv(\d){_CONV}", (r"\1.conv\2.conv.\3",)),
    (rf"(s\d+\.b\d+)\.conv(\d){_NORM}", (r"\1.conv\2.bn.\3",)),
    (rf"(s\d+\.b\d+)\.short{_CONV}", (r"\1.downsample.conv.\2",)),
    (rf"(s\d+\.b\d+)\.short{_NORM}", (r"\1.downsample.bn.\2",)),
    # The head of all of them.
    (r"(?:fc|out)\.(weight|bias)", (r"fc.\1", r"head.fc.\1")),
)


def to_ours(arrays: Mapping[str, Array], graph: _core.Graph) -> dict[str, Array]:
    """Return the arrays under the graph's names; what has no counterpart keeps its own name.

    The convention is recognised from the names. Counters that batch normalisation keeps for
    training (num_batches_tracked) are left out.
    """
    if not any(name.endswith(("._mean", "._variance")) for name in arrays):
        return {
            name: array
            for name, array in arrays.items()
            if not name.endswith(".num_batches_tracked")
        }
    names = _PaddleNames(graph)
    # Paddle's linear layers, the only parameters of two dimensions, have (in, out) features.
    return {
        names.ours(name): array.T if array.ndim == 2 else array for name, array in arrays.items()
    }


class _PaddleNames:
    """PaddleClas's names in terms of one graph's."""

    def __init__(self, graph: _core.Graph) -> None:
        names = [parameter.name for parameter in graph.parameters]
        self._known = set(names)
        # ResNet counts its blocks through all stages; the place of each, in order.
        places = (re.match(r"layer\d+\.\d+\.", name) for name in names)
        self._blocks = list(dict.fromkeys(place[0] for place in places if place))

    def ours(self, name: str) -> str:
        place = self._place(name)
        for pattern, candidates in _PADDLE:
            if match := re.fullmatch(pattern, place):
                for candidate in map(match.expand, candidates):
                    if candidate in self._known:
                        return candidate
        return name

    def _place(self, name: str) -> str:
        for pattern, place in _PLACES:
            name = re.sub(rf"^{pattern}", place, name)
        if match := re.match(r"blocks\.(\d+)\.", name):
            index = int(match[1])
            if index < len(self._blocks):
                name = self._blocks[index] + name[match.end() :]
        name = re.sub(r"\._mean$", ".running_mean", name)
        return re.sub(r"\._variance$", ".running_var", name)
