"""CIFAR-10 and CIFAR-100 from the archives that their authors publish for Python.

The archives hold pickles, and a pickle can run any program. So an archive is compared with its
published checksum before anything in it is read, and then read by an unpickler that knows arrays of bytes
and plain containers and nothing else.

torchvision has classes for these sets too. They compare unpacked files with MD5 and then hand them to
`pickle.load`, which does what a pickle asks for: whoever can make two files of one MD5 runs a program, and a
checksum of one's own, as for an archive made elsewhere, protects from nothing. So the archives are read here.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from .datasets import LabelledImages, Split
from .files import read_bytes

SIDE = 32


@dataclass(frozen=True)
class CifarFormat:
    """Where things stand in one of the two archives.

    Args:
        archive: its published name.
        md5: its published checksum.
        folder: the folder inside.
        parts: for each split, the files with its images.
        labels: the key of the labels.
        meta: the file with the names of the classes.
        names: their key.
        classes: how many there are.
    """

    archive: str
    md5: str
    folder: str
    parts: Mapping[str, tuple[str, ...]]
    labels: str
    meta: str
    names: str
    classes: int


CIFAR: dict[str, CifarFormat] = {
    "cifar10": CifarFormat(
        archive="cifar-10-python.tar.gz",
        md5="c58f30108f718f92721af3b95e74349a",
        folder="cifar-10-batches-py",
        parts={"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)},
        labels="labels",
        meta="batches.meta",
        names="label_names",
        classes=10,
    ),
    "cifar100": CifarFormat(
        archive="cifar-100-python.tar.gz",
        md5="eb9058c3a382ffc7106e4002c42a8d85",
        folder="cifar-100-python",
        parts={"train": ("train",), "test": ("test",)},
        labels="fine_labels",
        meta="meta",
        names="fine_label_names",
        classes=100,
    ),
}


class CifarArchive:
    """One archive, verified.

    Args:
        kind: `cifar10` or `cifar100`.
        location: the archive, or the folder that holds it under its published name.
        md5: the checksum to expect; None takes the published one.

    Raises:
        InputError: there is no such file, or its checksum is another.

    Source: Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
    """

    def __init__(self, kind: str, location: Path, md5: str | None = None) -> None:
        self.format = CIFAR[kind]
        self.file = location / self.format.archive if location.is_dir() else location
        if not self.file.is_file():
            raise InputError(
                f"there is no file {self.file}; fetch {self.format.archive} from its authors' page, and leave"
                " it packed"
            )
        # One read: the bytes that are checked are the bytes that are used.
        self._content = read_bytes(self.file)
        found = hashlib.md5(self._content, usedforsecurity=False).hexdigest()
        expected = md5 or self.format.md5
        if found != expected:
            raise InputError(
                f"{self.file} has MD5 {found} and not {expected}; nothing was read; fetch it again"
            )

    def class_names(self) -> tuple[str, ...]:
        """What each label stands for."""
        names = self._read([self.format.meta])[0].get(self.format.names)
        if not isinstance(names, list) or len(names) != self.format.classes:
            raise InputError(f"{self.file} does not name {self.format.classes} classes; fetch it again")
        return tuple(
            name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in names
        )

    def load(self, split: Split) -> LabelledImages:
        """Images uint8 `[N, 3, 32, 32]` and labels int64 `[N]` of one part of the data.

        Raises:
            InputError: the archive lacks a file, or one has another content than its format says.
        """
        parts = self._read(list(self.format.parts[split]))
        tables = [
            self._pixels(part, name) for part, name in zip(parts, self.format.parts[split], strict=True)
        ]
        images = torch.from_numpy(np.concatenate(tables)).view(-1, 3, SIDE, SIDE)
        labels = torch.tensor([label for part in parts for label in part[self.format.labels]])
        wrong = labels[(labels < 0) | (labels >= self.format.classes)]
        if len(wrong):
            raise InputError(
                f"{self.file} ({split}) has label {int(wrong[0])}; labels must lie in 0 to"
                f" {self.format.classes - 1}"
            )
        return LabelledImages(images, labels.long())

    def _pixels(self, part: dict[str, Any], name: str) -> np.ndarray:
        pixels, labels = part.get("data"), part.get(self.format.labels)
        row = 3 * SIDE * SIDE
        if (
            not isinstance(pixels, np.ndarray)
            or pixels.dtype != np.uint8
            or not isinstance(labels, list)
            or not all(type(label) is int and abs(label) < 2**63 for label in labels)
            or pixels.shape != (len(labels), row)
        ):
            raise InputError(
                f"{name} in {self.file} does not hold as many {self.format.labels} as rows of {row} bytes;"
                " fetch it again"
            )
        return pixels

    def _read(self, names: list[str]) -> list[dict[str, Any]]:
        """The dictionaries in some files of the archive, with text as keys."""
        dictionaries = []
        try:
            with tarfile.open(fileobj=io.BytesIO(self._content), mode="r:gz") as archive:
                for name in names:
                    member = archive.extractfile(f"{self.format.folder}/{name}")
                    if member is None:
                        raise InputError(f"{name} in {self.file} is no file; fetch it again")
                    dictionaries.append(_unpickle(member.read(), f"{name} in {self.file}"))
        except KeyError as error:
            raise InputError(f"{self.file} lacks a file: {error.args[0]}; fetch it again") from error
        except InputError:
            raise
        except Exception as error:  # bytes that are damaged can fail in any way
            raise InputError(f"{self.file} is a damaged archive ({error}); fetch it again") from error
        return dictionaries


class _Bytes:
    """What a pickle gets for the type of an array's numbers: it stands for uint8, and for no other."""

    def __init__(self, kind: str, *_: object) -> None:
        if kind not in ("u1", "|u1", "uint8"):
            raise pickle.UnpicklingError(f"it asks for an array of {kind!r}, and pixels are bytes")

    def __setstate__(self, state: object) -> None:
        """Order, fields and flags, which single bytes have not."""


class _Array:
    """What a pickle gets for an array: shape and bytes, and nothing of numpy that it could call."""

    pixels: np.ndarray | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        shape, kind, by_columns, content = state[-4:]
        if not isinstance(kind, _Bytes) or by_columns:
            raise pickle.UnpicklingError("it holds an array that is not made of rows of bytes")
        content = content.encode("latin1") if isinstance(content, str) else bytes(content)
        self.pixels = np.frombuffer(content, np.uint8).reshape(shape)

    @classmethod
    def reconstruct(cls, *_: object) -> _Array:
        """An array whose content comes as its state."""
        return cls()

    @classmethod
    def from_buffer(cls, content: bytes, kind: _Bytes, shape: tuple[int, ...], order: str) -> _Array:
        """An array whose content comes beside it."""
        array = cls()
        array.__setstate__((shape, kind, order != "C", content))
        return array


class _PlainUnpickler(pickle.Unpickler):
    """Builds arrays of bytes and plain containers, whatever the pickle asks for."""

    def find_class(self, module: str, name: str) -> Any:
        """What stands in for an array while it is read; an error for every other name.

        Nothing of numpy itself: its types take states and buffers that could reach any memory.
        """
        match module.replace("numpy.core.", "numpy._core."), name:  # an old and a new name
            case "numpy", "ndarray":
                return "an array's type, which is only passed on"
            case "numpy", "dtype":
                return _Bytes
            case "numpy._core.multiarray", "_reconstruct":
                return _Array.reconstruct
            case "numpy._core.numeric", "_frombuffer":
                return _Array.from_buffer
            case "_codecs", "encode":
                return _latin1
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _latin1(text: str, encoding: str) -> bytes:
    """What Python 3 asks for in place of bytes where it writes an older protocol; in no other encoding."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the encoding {encoding!r}")
    return text.encode("latin1")


def _unpickle(content: bytes, name: str) -> dict[str, Any]:
    try:
        # Pickled by Python 2, whose text is bytes: latin-1 keeps every byte as it is.
        values = _PlainUnpickler(io.BytesIO(content), encoding="latin1").load()
    except Exception as error:  # a pickle can fail in any way
        raise InputError(
            f"{name} holds more than arrays and plain values: {error}; it was not loaded"
        ) from error
    if not isinstance(values, dict):
        raise InputError(f"{name} holds a {type(values).__name__} and not a dictionary; fetch it again")
    return {
        key.decode("latin1") if isinstance(key, bytes) else str(key): (
            value.pixels if isinstance(value, _Array) else value
        )
        for key, value in values.items()
    }
