"""Labelled pictures that are decoded one at a time: in memory, or in files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .datasets import LabelledImages
from .pictures import MODES, read_picture
from .resizing import to_picture


class PackedStrings(Sequence[str]):
    """Many short strings in two arrays: a list of a million would be copied into every loader worker."""

    def __init__(self, texts: Iterable[str]) -> None:
        encoded = [os.fsencode(text) for text in texts]
        self.bytes = np.frombuffer(b"".join(encoded), np.uint8)
        self.ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:  # type: ignore[override]
        """One string; negative indices and slices are not supported."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        start = self.ends[index - 1] if index else 0
        return os.fsdecode(self.bytes[start : self.ends[index]].tobytes())


class MemoryPictures:
    """Pictures in memory.

    Args:
        images: uint8, with their labels.
    """

    def __init__(self, images: LabelledImages) -> None:
        self.images, self.labels = images

    def as_tensors(self) -> LabelledImages:
        """All pictures at once."""
        return LabelledImages(self.images, self.labels)

    def read(self, index: int, channels: int) -> Image.Image:
        """A picture in mode `L` or `RGB`."""
        return to_picture(self.images[index]).convert(MODES[channels])

    def subset(self, indices: Tensor) -> MemoryPictures:
        """The pictures of these indices, renumbered."""
        return MemoryPictures(LabelledImages(self.images[indices], self.labels[indices]))


class FilePictures:
    """Image files; each is read again at every access.

    Args:
        root: folder that all of them are below.
        names: their paths below it.
        labels: int64 `[N]`.
    """

    def __init__(self, root: Path, names: Iterable[str], labels: Tensor) -> None:
        self.root, self.labels = root, labels
        self.names = PackedStrings(names)

    def file(self, index: int) -> Path:
        """Where a picture is."""
        return self.root / self.names[index]

    def read(self, index: int, channels: int) -> Image.Image:
        """A picture in mode `L` or `RGB`; see `read_picture`."""
        return read_picture(self.file(index), channels)

    def subset(self, indices: Tensor) -> FilePictures:
        """The pictures of these indices, renumbered."""
        return FilePictures(self.root, (self.names[i] for i in indices.tolist()), self.labels[indices])

    def state_on_disk(self) -> Iterator[str]:
        """What changes when a file is rewritten or another takes its place: path, size, time, inode."""
        for index in range(len(self.names)):
            file = self.file(index)
            try:
                facts = file.stat()
                yield f"{file} {facts.st_size} {facts.st_mtime_ns} {facts.st_ino}"
            except OSError:
                yield str(file)


# Labelled pictures by their number: both have labels, int64 `[N]`, and can be read and subdivided.
PictureSet = MemoryPictures | FilePictures


def listing_digest(pictures: FilePictures) -> str:
    """Shortened SHA-256 over labels and file names: the same pictures in the same order.

    Pictures may move to another folder; two sets of one digest train alike as long as no file changes.
    """
    digest = hashlib.sha256(pictures.labels.numpy().tobytes())
    for name in pictures.names:
        digest.update(os.fsencode(name) + b"\0")
    return digest.hexdigest()[:16]


def evenly_spaced(count: int, most: int) -> Tensor:
    """At most so many of the indices 0 to `count - 1`, evenly spaced.

    >>> evenly_spaced(10, 4)
    tensor([0, 2, 5, 7])
    """
    chosen = min(count, most)
    return torch.arange(chosen) * count // max(1, chosen)
