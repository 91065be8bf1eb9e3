"""Renames parameters from each source's convention to that of resrt, which is timm's.

torchvision's ResNets and the ResNeSt authors' networks already have timm's names. Every other
convention is recognised by names that only it has, and renamed by a table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from resrt import _core
from resrt.weights.formats.checkpoint import Array
from resrt.weights.formats.states import HEAD

Rules: TypeAlias = tuple[tuple[str, tuple[str, ...]], ...]
Places: TypeAlias = tuple[tuple[str, Callable[[re.Match[str]], str]], ...]


@dataclass(frozen=True)
class Convention:
    """How a source names parameters.

    `mark` is a pattern that matches a name of this convention and none of another. A row of `rules`
    has a pattern of a whole name and its candidates in a graph, which depend on the network's
    variant: the first one that the graph has is used. `places` are rewritten before the rules
    apply. `convert` converts a renamed array to our layout.
    """

    name: str
    mark: str
    rules: Rules
    places: Places = ()
    convert: Callable[[str, Array], Array] = field(default=lambda name, array: array)


# PaddleClas's classes name the same places differently. These are unified first: stem.0, layer1.0
# and s1.b1, with convolutions counted from 1 as in our names.
_PLACES: Places = (
    (r"(?:stem\.conv|conv1_)([123])\.", lambda m: f"stem.{int(m[1]) - 1}."),
    (r"(blocks\.\d+|bb_\d+_\d+|s\d+_b\d+)\.conv(\d)\.", lambda m: f"{m[1]}.conv{int(m[2]) + 1}."),
    (r"bb_(\d+)_(\d+)\.", lambda m: f"layer{int(m[1]) + 1}.{m[2]}."),
    (r"layer\d+\.layer(\d+)_bottleneck_(\d+)\.", lambda m: f"layer{m[1]}.{m[2]}."),
    (r"s(\d+)_b(\d+)\.", lambda m: f"s{m[1]}.b{m[2]}."),
    # ResNeXt101_wsl
    (r"_conv_stem\.", lambda m: "stem.0."),
    (r"_conv(\d+)_(\d+)\._conv(\d)\.", lambda m: f"layer{m[1]}.{m[2]}.conv{int(m[3]) + 1}."),
    (r"_conv(\d+)_(\d+)\._short\._conv\.", lambda m: f"layer{m[1]}.{m[2]}.short."),
    (r"_out\.", lambda m: "out."),
)

# Then each convolution and each batch normalisation has a row.
_CONV = r"\.(?:_conv|conv)\.(weight)"
_NORM = r"\.(?:_batch_norm|_bn|bn)\.(weight|bias|running_mean|running_var)"
_PADDLE: Rules = (
    (rf"stem\.0{_CONV}", (r"conv1.0.\1", r"conv1.\1")),
    (rf"stem\.0{_NORM}", (r"conv1.1.\1", r"bn1.\1")),
    (rf"stem\.1{_CONV}", (r"conv1.3.\1",)),
    (rf"stem\.1{_NORM}", (r"conv1.4.\1",)),
    (rf"stem\.2{_CONV}", (r"conv1.6.\1",)),
    (rf"stem\.2{_NORM}", (r"bn1.\1",)),
    # ResNet, and the part that ResNeSt shares with it.
    (rf"(layer\d+\.\d+)\.conv(\d){_CONV}", (r"\1.conv\2.\3",)),
    (rf"(layer\d+\.\d+)\.conv(\d){_NORM}", (r"\1.bn\2.\3",)),
    (rf"(layer\d+\.\d+)\.short{_CONV}", (r"\1.downsample.0.\2", r"\1.downsample.1.\2")),
    (rf"(layer\d+\.\d+)\.short{_NORM}", (r"\1.downsample.2.\2", r"\1.downsample.1.\2")),
    # The squeeze-and-excitation of SE_ResNet and SE_ResNeXt.
    (r"(layer\d+\.\d+)\.scale\.squeeze\.(weight|bias)", (r"\1.se.fc1.\2",)),
    (r"(layer\d+\.\d+)\.scale\.excitation\.(weight|bias)", (r"\1.se.fc2.\2",)),
    # ResNeSt's split attention, and its shortcut, a plain convolution and normalisation.
    (rf"(layer\d+\.\d+)\.conv2\.conv1{_CONV}", (r"\1.conv2.conv.\2",)),
    (rf"(layer\d+\.\d+)\.conv2\.conv1{_NORM}", (r"\1.conv2.bn0.\2",)),
    (rf"(layer\d+\.\d+)\.conv2\.conv2{_CONV}", (r"\1.conv2.fc1.\2",)),
    (rf"(layer\d+\.\d+)\.conv2\.conv2{_NORM}", (r"\1.conv2.bn1.\2",)),
    (r"(layer\d+\.\d+)\.conv2\.conv3\.(weight|bias)", (r"\1.conv2.fc2.\2",)),
    (r"(layer\d+\.\d+)\.conv4\.(weight)", (r"\1.downsample.1.\2",)),
    (rf"(layer\d+\.\d+){_NORM}", (r"\1.downsample.2.\2",)),
    # RegNet, whose stem has the same names as ResNet's before PaddleClas 2.1.
    (rf"conv{_CONV}", (r"stem.conv.\1", r"conv1.\1")),
    (rf"conv{_NORM}", (r"stem.bn.\1", r"bn1.\1")),
    (rf"(s\d+\.b\d+)\.conv(\d){_CONV}", (r"\1.conv\2.conv.\3",)),
    (rf"(s\d+\.b\d+)\.conv(\d){_NORM}", (r"\1.conv\2.bn.\3",)),
    (rf"(s\d+\.b\d+)\.short{_CONV}", (r"\1.downsample.conv.\2",)),
    (rf"(s\d+\.b\d+)\.short{_NORM}", (r"\1.downsample.bn.\2",)),
    # The head of all three.
    (r"(?:fc|out)\.(weight|bias)", (r"fc.\1", r"head.fc.\1")),
)


_BN = r"\.(weight|bias|running_mean|running_var)"
_TORCHVISION_REGNET: Rules = (
    (r"stem\.0\.(weight)", (r"stem.conv.\1",)),
    (rf"stem\.1{_BN}", (r"stem.bn.\1",)),
    (r"(s\d+\.b\d+)\.proj\.0\.(weight)", (r"\1.downsample.conv.\2",)),
    (rf"(s\d+\.b\d+)\.proj\.1{_BN}", (r"\1.downsample.bn.\2",)),
    (r"(s\d+\.b\d+)\.f\.a\.0\.(weight)", (r"\1.conv1.conv.\2",)),
    (rf"(s\d+\.b\d+)\.f\.a\.1{_BN}", (r"\1.conv1.bn.\2",)),
    (r"(s\d+\.b\d+)\.f\.b\.0\.(weight)", (r"\1.conv2.conv.\2",)),
    (rf"(s\d+\.b\d+)\.f\.b\.1{_BN}", (r"\1.conv2.bn.\2",)),
    (r"(s\d+\.b\d+)\.f\.se\.(fc[12]\.(?:weight|bias))", (r"\1.se.\2",)),
    (r"(s\d+\.b\d+)\.f\.c\.0\.(weight)", (r"\1.conv3.conv.\2",)),
    (rf"(s\d+\.b\d+)\.f\.c\.1{_BN}", (r"\1.conv3.bn.\2",)),
    (r"fc\.(weight|bias)", (r"head.fc.\1",)),
)

_PYCLS: Rules = (
    (r"(s\d+\.b\d+)\.proj\.(weight)", (r"\1.downsample.conv.\2",)),
    (rf"(s\d+\.b\d+)\.bn{_BN}", (r"\1.downsample.bn.\2",)),
    (r"(s\d+\.b\d+)\.f\.a\.(weight)", (r"\1.conv1.conv.\2",)),
    (rf"(s\d+\.b\d+)\.f\.a_bn{_BN}", (r"\1.conv1.bn.\2",)),
    (r"(s\d+\.b\d+)\.f\.b\.(weight)", (r"\1.conv2.conv.\2",)),
    (rf"(s\d+\.b\d+)\.f\.b_bn{_BN}", (r"\1.conv2.bn.\2",)),
    (r"(s\d+\.b\d+)\.f\.se\.f_ex\.0\.(weight|bias)", (r"\1.se.fc1.\2",)),
    (r"(s\d+\.b\d+)\.f\.se\.f_ex\.2\.(weight|bias)", (r"\1.se.fc2.\2",)),
    (r"(s\d+\.b\d+)\.f\.c\.(weight)", (r"\1.conv3.conv.\2",)),
    (rf"(s\d+\.b\d+)\.f\.c_bn{_BN}", (r"\1.conv3.bn.\2",)),
)


# Hugging Face's ResNetForImageClassification and RegNetForImageClassification, after the place of
# a block, "1.0=1.b1", has been written in the way of each: layer1.0 and s1.b1. A block of RegNetY
# has its squeeze-and-excitation as the third of four.
_HF_CONV = r"\.convolution\.(weight)"
_HF_NORM = r"\.normalization\.(weight|bias|running_mean|running_var)"
_HF_BLOCK = r"(\d+\.\d+)=(\d+\.b\d+)"
_HUGGING_FACE: Rules = (
    (rf"embedder\.embedder{_HF_CONV}", (r"conv1.\1", r"stem.conv.\1")),
    (rf"embedder\.embedder{_HF_NORM}", (r"bn1.\1", r"stem.bn.\1")),
    (rf"{_HF_BLOCK}\.layer\.3{_HF_CONV}", (r"s\2.conv3.conv.\3",)),
    (rf"{_HF_BLOCK}\.layer\.3{_HF_NORM}", (r"s\2.conv3.bn.\3",)),
    (rf"{_HF_BLOCK}\.layer\.2\.attention\.0\.(weight|bias)", (r"s\2.se.fc1.\3",)),
    (rf"{_HF_BLOCK}\.layer\.2\.attention\.2\.(weight|bias)", (r"s\2.se.fc2.\3",)),
    (rf"{_HF_BLOCK}\.shortcut{_HF_CONV}", (r"layer\1.downsample.0.\3", r"s\2.downsample.conv.\3")),
    (rf"{_HF_BLOCK}\.shortcut{_HF_NORM}", (r"layer\1.downsample.1.\3", r"s\2.downsample.bn.\3")),
    # The other convolutions are counted from 1, as in our names.
    (rf"{_HF_BLOCK}\.conv(\d){_HF_CONV}", (r"layer\1.conv\3.\4", r"s\2.conv\3.conv.\4")),
    (rf"{_HF_BLOCK}\.conv(\d){_HF_NORM}", (r"layer\1.bn\3.\4", r"s\2.conv\3.bn.\4")),
)
_HF_PLACES: Places = (
    (
        r"encoder\.stages\.(\d+)\.layers\.(\d+)\.",
        lambda m: f"{int(m[1]) + 1}.{m[2]}={int(m[1]) + 1}.b{int(m[2]) + 1}.",
    ),
    (
        rf"({_HF_BLOCK})\.layer\.([012])\.(?!attention)",
        lambda m: f"{m[1]}.conv{int(m[4]) + 1}.",
    ),
)

# torch.nn.Sequential(*model.children()) of a torchvision or timm ResNet without a deep stem.
_CHILDREN: Places = (
    (r"0\.", lambda m: "conv1."),
    (r"1\.", lambda m: "bn1."),
    (r"([4-7])\.", lambda m: f"layer{int(m[1]) - 3}."),
    (r"9\.", lambda m: "fc."),
)


def _transposed_linear(name: str, array: Array) -> Array:
    """Transpose Paddle's linear layers, its only matrices, which have (in, out) features.

    Those of a squeeze-and-excitation are 1x1 convolutions here.
    """
    if array.ndim != 2:
        return array
    transposed: Array = array.T
    return transposed[:, :, None, None] if ".se.fc" in name else transposed


def _rgb_stem(name: str, array: Array) -> Array:
    """Reverse the input channels of the stem: pycls trained on images in BGR."""
    return array[:, ::-1] if name == "stem.conv.weight" and array.ndim == 4 else array


# More arrays than any checkpoint has, with everything that training adds.
_MOST = 5000

TIMM = Convention("timm", mark=r".*", rules=())
CONVENTIONS = (
    Convention("PaddleClas", r".*\._(?:mean|variance)", _PADDLE, _PLACES, _transposed_linear),
    Convention(
        "torchvision",
        r"trunk_output\..*",
        _TORCHVISION_REGNET,
        # torchvision counts the blocks of a stage from 0, timm from 1.
        (
            (
                r"trunk_output\.block(\d+)\.block\d+-(\d+)\.",
                lambda m: f"s{m[1]}.b{int(m[2]) + 1}.",
            ),
        ),
    ),
    Convention("Hugging Face", r"encoder\.stages\.\d+\.layers\..*", _HUGGING_FACE, _HF_PLACES),
    Convention("torch.nn.Sequential", r"[4-7]\.\d+\.conv1\.weight", (), _CHILDREN),
    # What they are is found by following the program.
    Convention("Paddle's exporter", r"(?:conv2d|batch_norm|linear)\w*\.[wb]_\d+", ()),
    Convention("pycls", r".*\.f\.a_bn\.weight", _PYCLS, convert=_rgb_stem),
    TIMM,
)


def convention_of(names: Iterable[str]) -> Convention:
    """Return the convention that names follow: timm's, if no other."""
    listed = list(names)
    return next(
        convention
        for convention in CONVENTIONS
        if convention is TIMM or any(re.fullmatch(convention.mark, name) for name in listed)
    )


def without_counters(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return the arrays without the counters that batch normalisation keeps for training."""
    return {k: array for k, array in arrays.items() if not k.endswith(".num_batches_tracked")}


def to_ours(arrays: Mapping[str, Array], graph: _core.Graph) -> dict[str, Array]:
    """Return the arrays under the graph's names. An array without a counterpart keeps its name.

    The convention is recognised from the names. Counters for training are omitted. To bound the
    time, nothing is renamed if there are more arrays than any checkpoint has.
    """
    if len(arrays) > _MOST:
        return without_counters(arrays)
    convention = convention_of(arrays)
    rename = _Renaming(convention, graph).ours
    ours: dict[str, Array] = {}
    for name, array in without_counters(arrays).items():
        new_name = rename(name)
        # A second array for the same parameter keeps its name, and is reported as unexpected.
        key = name if new_name in ours else new_name
        ours[key] = convention.convert(key, array)
    return _with_classifier(ours, graph)


def _with_classifier(arrays: dict[str, Array], graph: _core.Graph) -> dict[str, Array]:
    """Rename the classifier if it has another usual name, such as "linear" or "fc.1"."""
    known = {parameter.name for parameter in graph.parameters}
    ours = graph.parameters[-1].name.rpartition(".")[0]
    heads = {
        name.rpartition(".")[0] for name in arrays if name not in known and HEAD.fullmatch(name)
    }
    if len(heads) != 1 or any(name.startswith(f"{ours}.") for name in arrays.keys() & known):
        return arrays
    theirs = f"{heads.pop()}."
    return {
        f"{ours}.{name.removeprefix(theirs)}" if name.startswith(theirs) else name: array
        for name, array in arrays.items()
    }


class _Renaming:
    """Translates a convention's names to those of a graph."""

    def __init__(self, convention: Convention, graph: _core.Graph) -> None:
        self._convention = convention
        names = [parameter.name for parameter in graph.parameters]
        self._known = set(names)
        # PaddleClas's ResNet numbers its blocks through all stages. This is each one's place.
        places = (re.match(r"layer\d+\.\d+\.", name) for name in names)
        self._blocks = list(dict.fromkeys(place[0] for place in places if place))

    def ours(self, name: str) -> str:
        place = self._place(name)
        for pattern, candidates in self._convention.rules:
            if match := re.fullmatch(pattern, place):
                for candidate in map(match.expand, candidates):
                    if candidate in self._known:
                        return candidate
        return place if place in self._known else name

    def _place(self, name: str) -> str:
        for pattern, place in self._convention.places:
            name = re.sub(rf"^{pattern}", place, name)
        if match := re.match(r"blocks\.(\d+)\.", name):
            index = int(match[1])
            if index < len(self._blocks):
                name = self._blocks[index] + name[match.end() :]
        name = re.sub(r"\._mean$", ".running_mean", name)
        return re.sub(r"\._variance$", ".running_var", name)
