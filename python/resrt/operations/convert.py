"""`resrt.convert`: weights of any format and naming, as a safetensors file that loads directly.

Such a file holds float32 arrays under the names of the network's parameters, which are timm's, and
in its metadata what an engine is built with: network, preprocessing, input size, labels, and what
the file was made from. Its arrays are used as they are read, without a conversion.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import save_file

from resrt._support.files import replacing
from resrt.catalog import pretrained
from resrt.errors import FileError, WeightsError
from resrt.weights import formats, identify
from resrt.weights import names as conventions
from resrt.weights.fit import fit_checkpoint
from resrt.weights.formats.checkpoint import Checkpoint
from resrt.weights.metadata import Metadata


def convert(
    source: str | PathLike[str],
    destination: str | PathLike[str],
    *,
    network: str | None = None,
    names: Sequence[str] | None = None,
    key: str | None = None,
) -> dict[str, str]:
    """Write weights as a safetensors file that loads without conversion, and return its metadata.

    The file's preprocessing and input size are those of the source, if it has any, or else those
    of the network's pretrained weights.

    Args:
        source: a weights file in any supported format.
        destination: the safetensors file. It is written completely or not at all.
        network: the network that the weights belong to; None: the one of the catalog that they fit.
        key: an entry of a checkpoint, or a prefix, as for `resrt.weights.read`.
        names: the labels of the classes; None: those of the source, if it has any.

    Raises what `resrt.weights.load` raises, WeightsError if the weights fit no network of the
    catalog, and InputError for a wrong number of labels or invalid metadata in the source.
    """
    checkpoint = formats.read(source, key=key)
    name = network or _only_network(checkpoint, fspath(source))
    graph = identify.trained_graph(checkpoint.arrays, name)
    arrays = fit_checkpoint(checkpoint, graph, origin=f"'{fspath(source)}'")
    metadata = Metadata.read(checkpoint.metadata)
    if metadata.preprocessing is None and (entry := pretrained.find(name)):
        of_entry = Metadata.of_pretrained(entry, graph.input_shape[0])
        metadata = of_entry.with_labels(metadata.labels or [], graph.classes)
    if names:
        metadata = metadata.with_labels(names, graph.classes)
    convention = conventions.convention_of(checkpoint.arrays).name
    texts = {
        "network": name,
        "source": f"{Path(source).name}: {checkpoint.format}, named as {convention} does",
        "source_sha256": checkpoint.sha256,
        **metadata.write(),
    }
    with replacing(Path(destination)) as temporary:
        try:
            save_file(arrays, temporary, texts)
        except SafetensorError as error:
            raise FileError(f"cannot write '{fspath(destination)}': {error}") from None
    return texts


def _only_network(checkpoint: Checkpoint, source: str) -> str:
    matches = identify.nearest_networks(checkpoint.arrays, told=identify.told_by(checkpoint))
    if matches and matches[0].share == 1:
        return matches[0].network
    nearest = f"; the nearest is {matches[0].network}" if matches else ""
    raise WeightsError(
        f"'{source}' fits no network of the catalog{nearest}. Name its network with "
        "--network, in Python with network="
    )
