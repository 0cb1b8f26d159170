"""CIFAR-10 and CIFAR-100 in the binary files that their authors publish, packed or unpacked.

A file is a row of records: the label in one byte, then 3 x 32 x 32 bytes of pixels, channel by channel and
row by row. In CIFAR-100 the number of the superclass comes before the label. Nothing here can be a program,
as it can in the archives for Python, which hold pickles.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..errors import InputError
from .datasets import LabelledImages, Split
from .files import read_bytes

SIDE = 32
PIXELS = 3 * SIDE * SIDE


@dataclass(frozen=True)
class CifarFormat:
    """The layout of one of the two data sets.

    Args:
        archive: its published name.
        md5: its published checksum.
        folder: the folder inside.
        parts: for each split, the files with its images.
        images: for each split, how many there are, equally many of each class and in each file.
        label_bytes: bytes before the pixels of a record; the last one is the label.
        names: the file with the names of the classes, a line each.
        classes: how many there are.
    """

    archive: str
    md5: str
    folder: str
    parts: Mapping[Split, tuple[str, ...]]
    images: Mapping[Split, int]
    label_bytes: int
    names: str
    classes: int


CIFAR: dict[str, CifarFormat] = {
    "cifar10": CifarFormat(
        archive="cifar-10-binary.tar.gz",
        md5="c32a1d4ab5d03f1284b67883e8d87530",
        folder="cifar-10-batches-bin",
        parts={"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)},
        images={"train": 50_000, "test": 10_000},
        label_bytes=1,
        names="batches.meta.txt",
        classes=10,
    ),
    "cifar100": CifarFormat(
        archive="cifar-100-binary.tar.gz",
        md5="03b5dce01913d631647c71ecec9e9cb8",
        folder="cifar-100-binary",
        parts={"train": ("train.bin",), "test": ("test.bin",)},
        images={"train": 50_000, "test": 10_000},
        label_bytes=2,
        names="fine_label_names.txt",
        classes=100,
    ),
}


def cifar_kinds(path: Path) -> list[str]:
    """Which of the two are at a path: an archive by its name, a folder by what is in it."""
    return [
        kind
        for kind, form in CIFAR.items()
        if path.name == form.archive or (path / form.archive).is_file() or _unpacked(form, path)
    ]


def _unpacked(form: CifarFormat, path: Path) -> Path | None:
    return next((each for each in (path, path / form.folder) if (each / form.names).is_file()), None)


class CifarFiles:
    """One of the two data sets, as an archive of the published checksum or as the files in it.

    Args:
        kind: `cifar10` or `cifar100`.
        location: the archive, or the folder that holds it under its published name; or the unpacked files, or
            the folder that their folder is in. Of an archive and files in one folder, the archive is read.
        md5: the archive's checksum; None takes the published one.

    Raises:
        InputError: there is nothing of it, its checksum is another, or its classes have no names.

    Source: Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
    """

    def __init__(self, kind: str, location: Path, md5: str | None = None) -> None:
        self.format = CIFAR[kind]
        self.path = location / self.format.archive if location.is_dir() else location
        self._content: bytes | None = None
        unpacked = _unpacked(self.format, location)
        if self.path.is_file():
            # One read: the bytes that are checked are the bytes that are used.
            self._content = read_bytes(self.path)
            found = hashlib.md5(self._content, usedforsecurity=False).hexdigest()
            expected = md5 or self.format.md5
            if found != expected:
                raise InputError(f"{self.path} has MD5 {found}, expected {expected}; download it again")
        elif unpacked is None:
            raise InputError(
                f"there is no file {self.path}; `snnmlp data prepare {kind} PATH` downloads it, packed"
            )
        elif md5 is not None:
            raise InputError(f"{unpacked} is not an archive; leave out its checksum, {md5}")
        else:
            self.path = unpacked
        self.class_names = self._class_names()

    def _class_names(self) -> tuple[str, ...]:
        lines = self._read([self.format.names])[0].decode("utf-8", "replace").splitlines()
        names = tuple(line.strip() for line in lines if line.strip())
        if len(names) != self.format.classes:
            raise InputError(
                f"{self.format.names} in {self.path} names {len(names)} classes, expected"
                f" {self.format.classes}; download it again"
            )
        return names

    def load(self, split: Split) -> LabelledImages:
        """Images uint8 `[N, 3, 32, 32]` and labels int64 `[N]` of one part of the data.

        They are sorted by the SHA-256 of their records, which is an order of no meaning: from all files that
        hold these images, in whatever order, they come alike, and so a training gives the same weights.

        Raises:
            InputError: a file is missing, or has another content than its format says.
        """
        names = self.format.parts[split]
        records = np.concatenate(
            [
                self._records(content, name, self.format.images[split] // len(names))
                for name, content in zip(names, self._read(names), strict=True)
            ]
        )
        labels = records[:, self.format.label_bytes - 1]
        if labels.max(initial=0) >= self.format.classes:
            raise InputError(
                f"{self.path} ({split}) has label {labels.max()}; labels must be from 0 to"
                f" {self.format.classes - 1}"
            )
        hashes = [hashlib.sha256(record.tobytes()).digest() for record in records]
        order = sorted(range(len(records)), key=hashes.__getitem__)
        pixels = records[order, self.format.label_bytes :].reshape(-1, 3, SIDE, SIDE)
        return LabelledImages(torch.from_numpy(pixels), torch.from_numpy(labels[order].astype(np.int64)))

    def _records(self, content: bytes, name: str, published: int) -> np.ndarray:
        size = self.format.label_bytes + PIXELS
        count, rest = divmod(len(content), size)
        if rest or (self._content is None and count != published):  # an archive has its checksum
            raise InputError(
                f"{name} in {self.path} has {len(content):,} bytes, expected {published:,} records of {size};"
                " download it again"
            )
        return np.frombuffer(content, np.uint8).reshape(count, size)

    def _read(self, names: Sequence[str]) -> list[bytes]:
        """What is in some of the files."""
        if self._content is None:
            return [read_bytes(self.path / name) for name in names]
        found = []
        try:
            whole = gzip.decompress(self._content)  # to its end, where its own checksum is
            with tarfile.open(fileobj=io.BytesIO(whole), mode="r:") as archive:
                for name in names:
                    member = archive.extractfile(f"{self.format.folder}/{name}")
                    if member is None:
                        raise InputError(f"{name} in {self.path} is not a file; download it again")
                    found.append(member.read())
        except KeyError as error:
            raise InputError(f"{self.path} lacks a file: {error.args[0]}; download it again") from error
        except InputError:
            raise
        except Exception as error:  # bytes that are damaged can fail in any way
            raise InputError(f"{self.path} is a damaged archive ({error}); download it again") from error
        return found
