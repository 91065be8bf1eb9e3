"""`resrt.preprocess`: from an image to a network's input."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from resrt import _core, images
from resrt.errors import InputError
from resrt.images import ImageLike


def preprocess(
    image: ImageLike, preprocessing: _core.Preprocessing, *, exact: bool = True
) -> npt.NDArray[np.float32]:
    """Return an image as a network's input, float32 (channels, height, width).

    It is decoded, resized, cropped and normalised by the same code as `resrt.Engine.classify`, so
    `resrt.Engine.infer` returns the same logits, to the bit, for a batch of these.

    Args:
        image: a path, the content of an image file as bytes or an open file, a Pillow image, or
            uint8 pixels, (H, W) or (H, W, channels).
        preprocessing: the `info.preprocessing` of an engine, or a `resrt.Preprocessing` with an
            `input_size`. It can be pickled, for example for the workers of a DataLoader.
        exact: False decodes a JPEG that is several times larger than needed at reduced size, as
            `resrt.classify` does.

    Raises FileError if a path cannot be read, InputError for an invalid image or a preprocessing
    without input size.
    """
    if not isinstance(preprocessing, _core.Preprocessing):
        raise InputError(
            "preprocessing must be a resrt.Preprocessing, such as engine.info.preprocessing, not "
            f"{type(preprocessing).__name__}"
        )
    if preprocessing.input_size is None:
        raise InputError(
            "the preprocessing has no input size; create it with "
            "resrt.Preprocessing(input_size=(height, width), ...), or use engine.info.preprocessing"
        )
    shape = (len(preprocessing.mean), *preprocessing.input_size)
    return images.preprocess(image, preprocessing, shape, exact=exact)
