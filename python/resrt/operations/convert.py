"""`resrt.convert`: weights of any format and naming, as a safetensors file that loads directly.

Such a file holds float32 arrays under the names of the network's parameters, which are timm's, and
in its metadata what an engine is built with: network, preprocessing, input size, labels, and what
the file was made from. Its arrays are used as they are read, without a conversion.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import save

from resrt import _core
from resrt._support.arguments import as_text
from resrt._support.files import replacing
from resrt.catalog import pretrained
from resrt.catalog.models import build_graph, model_info
from resrt.errors import FileError, InputError
from resrt.weights import configs, formats, hub, identify
from resrt.weights import names as conventions
from resrt.weights.fit import fit_checkpoint
from resrt.weights.metadata import Metadata
from resrt.weights.preprocessing import ASSUMED, PreprocessingLike, is_whole, settle

# What programs expect something else in.
_OTHER_FORMATS = (".bin", ".pth", ".pt", ".ckpt", ".pdparams", ".npz", ".onnx", ".wts", ".engine")
_ADVICE = "Name its network with --network, in Python with network="


def convert(
    source: str | PathLike[str],
    destination: str | PathLike[str],
    *,
    network: str | None = None,
    names: Sequence[str] | None = None,
    key: str | None = None,
    input_size: int | Sequence[int] | None = None,
    preprocessing: PreprocessingLike | None = None,
) -> dict[str, str]:
    """Write weights as a safetensors file that loads without conversion, and return its metadata.

    The file's preprocessing and input size are those of the source or of the files beside it, as
    for `resrt.build`, or else those of the network's pretrained weights. The preprocessing in the
    metadata says which.

    Args:
        source: a weights file in any supported format, or "hf-hub:owner/name".
        destination: the safetensors file. It is written completely or not at all.
        network: the network that the weights belong to; None: the one of the catalog that they fit.
        key: an entry of a checkpoint, or a prefix, as for `resrt.weights.read`.
        names: the labels of the classes; None: those of the source, if it has any.
        input_size: height and width of the images in pixels; None: that of the source.
        preprocessing: how photographs become inputs, as for `resrt.build`.

    Raises what `resrt.weights.load` raises, WeightsError if the weights fit no network of the
    catalog, and InputError for a wrong number of labels, invalid metadata in the source or a
    destination that is named as a file of another format.
    """
    called = fspath(source)
    if (suffix := Path(destination).suffix.lower()) in _OTHER_FORMATS:
        raise InputError(
            f"'{fspath(destination)}' would be a safetensors file, but {suffix} is the suffix of "
            "another format; let its name end in .safetensors"
        )
    checkpoint = formats.read(source, key=key)
    name = network or identify.only_network(checkpoint, called, _ADVICE)
    graph = identify.trained_graph(checkpoint.arrays, name, checkpoint.trained)
    arrays = fit_checkpoint(checkpoint, graph, origin=f"'{called}'")
    needed = not is_whole(preprocessing)
    beside = configs.beside(checkpoint.folder, name, is_preprocessing_needed=needed)
    metadata = configs.completed(Metadata.read(checkpoint.metadata), beside)
    metadata = configs.with_labels(metadata, beside, graph.classes)
    entry = pretrained.find(name)
    if metadata.preprocessing is None and entry is not None:
        of_entry = Metadata.of_pretrained(entry, graph.input_shape[0])
        source_of_steps = f"{ASSUMED} {of_entry.preprocessing_source}"
        metadata = dataclasses.replace(
            of_entry, labels=metadata.labels, preprocessing_source=source_of_steps
        )
    if input_size is not None or preprocessing is not None:
        size = input_size or metadata.input_size
        sized = build_graph(name, input_size=size, in_channels=graph.input_shape[0])
        metadata = settle(
            metadata, preprocessing, entry, sized.input_shape, source=model_info(name).source
        )
    if metadata.preprocessing is not None:
        height, width = metadata.input_size or graph.input_shape[1:]
        shape = (graph.input_shape[0], height, width)
        _core.check_preprocessing(metadata.preprocessing, shape)
    if names:
        metadata = metadata.with_labels(names, graph.classes)
    convention = conventions.convention_of(checkpoint.arrays).name
    origin = called if hub.is_name(source) else as_text(Path(source).name)
    texts = {
        "network": name,
        "source": f"{origin}: {checkpoint.format}, named as {convention} does",
        "source_sha256": checkpoint.sha256,
        **metadata.write(),
    }
    with replacing(Path(destination)) as temporary:
        try:
            # save_file would replace the temporary file, and its permissions, by one of its own.
            temporary.write_bytes(save(arrays, texts))
        except SafetensorError as error:
            raise FileError(f"cannot write '{fspath(destination)}': {error}") from None
    return texts
