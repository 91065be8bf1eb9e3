"""What all files of features have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod

from resrt.operations.embed import Embedding


class FeatureFile(ABC):
    """A file of features, as a context manager. `known` are the images that it already has.

    The features are omitted in `known`. At the end of a block that fails, what was written is kept,
    and the file can be resumed.
    """

    known: list[Embedding]

    @abstractmethod
    def write(self, embedding: Embedding) -> None:
        """Append the features of an image, or why it was skipped. Raises FileError."""

    @abstractmethod
    def __enter__(self) -> FeatureFile: ...

    @abstractmethod
    def __exit__(self, kind: object, error: object, trace: object) -> None: ...
