"""Labelled pictures that are decoded one at a time: in memory, or in files."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .datasets import LabelledImages
from .pictures import MODES, read_picture
from .resizing import to_picture


class PictureSet(Protocol):
    """Labelled pictures by their number.

    `labels` are int64 `[N]`; `names` tell the pictures apart. `shards`, where they lie in a few large
    files, is the number of each one's file, int64 `[N]`; else None.
    """

    labels: Tensor
    names: Sequence[str]
    shards: Tensor | None

    def name(self, index: int) -> str:
        """What messages call a picture."""

    def read(self, index: int, channels: int) -> Image.Image:
        """A picture in mode `L` or `RGB`.

        Raises:
            InputError: it is damaged or gone; names it.
        """

    def source(self, index: int) -> Path | bytes:
        """Its file, or the bytes of a file that lies in a larger one."""

    def subset(self, indices: Tensor) -> PictureSet:
        """The pictures of these numbers, numbered anew."""

    def state_on_disk(self) -> Iterator[str]:
        """What changes when a file does: names, sizes, times."""


class Texts(Sequence[str]):
    """Many short texts in two arrays: a list of a million would be copied into every loader worker."""

    def __init__(self, texts: Iterable[str]) -> None:
        encoded = [os.fsencode(text) for text in texts]
        self.bytes = np.frombuffer(b"".join(encoded), np.uint8)
        self.ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:  # type: ignore[override]
        """One text; a negative number or a slice is none."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        start = self.ends[index - 1] if index else 0
        return os.fsdecode(self.bytes[start : self.ends[index]].tobytes())


class MemoryPictures:
    """Images that are in memory, as pictures.

    Args:
        images: uint8, with their labels.
        title: what messages call them.
    """

    def __init__(self, images: LabelledImages, title: str) -> None:
        self.images, self.labels = images
        self.title = title
        self.names: Sequence[str] = ()
        self.shards: Tensor | None = None

    def as_tensors(self) -> LabelledImages:
        """All of them at once."""
        return LabelledImages(self.images, self.labels)

    def name(self, index: int) -> str:
        """What messages call a picture."""
        return f"image {index} of {self.title}"

    def read(self, index: int, channels: int) -> Image.Image:
        """A picture in mode `L` or `RGB`."""
        return to_picture(self.images[index]).convert(MODES[channels])

    def source(self, index: int) -> bytes:
        """A lossless file of it."""
        file = io.BytesIO()
        to_picture(self.images[index]).save(file, "PNG")
        return file.getvalue()

    def subset(self, indices: Tensor) -> MemoryPictures:
        """The pictures of these numbers, numbered anew."""
        return MemoryPictures(LabelledImages(self.images[indices], self.labels[indices]), self.title)

    def state_on_disk(self) -> Iterator[str]:
        """Nothing lies on a disk."""
        yield from ()


class FilePictures:
    """Image files; each is read anew whenever it is asked for.

    Args:
        root: folder that all of them are below.
        names: their paths below it.
        labels: int64 `[N]`.
    """

    def __init__(self, root: Path, names: Iterable[str], labels: Tensor) -> None:
        self.root, self.labels = root, labels
        self.names: Sequence[str] = Texts(names)
        self.shards: Tensor | None = None

    def name(self, index: int) -> str:
        """The path of a picture."""
        return str(self.root / self.names[index])

    def read(self, index: int, channels: int) -> Image.Image:
        """A picture in mode `L` or `RGB`; see `read_picture`."""
        return read_picture(self.root / self.names[index], channels)

    def source(self, index: int) -> Path:
        """Its file."""
        return self.root / self.names[index]

    def subset(self, indices: Tensor) -> FilePictures:
        """The pictures of these numbers, numbered anew."""
        return FilePictures(self.root, (self.names[i] for i in indices.tolist()), self.labels[indices])

    def state_on_disk(self) -> Iterator[str]:
        """What `describe_file` says of each file."""
        for name in self.names:
            yield describe_file(self.root / name)


def describe_file(file: Path) -> str:
    """Path, size, time of change and inode; the path alone, where there is no file."""
    try:
        return f"{file} {file_state(file.stat())}"
    except OSError:
        return str(file)


def file_state(facts: os.stat_result) -> str:
    """What changes when a file is written anew or another takes its place."""
    return f"{facts.st_size} {facts.st_mtime_ns} {facts.st_ino}"


def listing_digest(pictures: PictureSet) -> str:
    """SHA-256, shortened, over labels and, file by file, names: the same pictures in the same order.

    Pictures may move to another folder; two sets of one digest train alike as long as nobody changes a file.
    """
    digest = hashlib.sha256(pictures.labels.numpy().tobytes())
    for name in pictures.names:
        digest.update(os.fsencode(name) + b"\0")
    return digest.hexdigest()[:16]


def evenly_spaced(count: int, most: int) -> Tensor:
    """At most so many of the numbers 0 to `count - 1`, evenly spaced.

    >>> evenly_spaced(10, 4)
    tensor([0, 2, 5, 7])
    """
    chosen = min(count, most)
    return torch.arange(chosen) * count // max(1, chosen)
