"""Small data sets in the exact formats of the published ones, for tests."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from snnmlp_edu.data.cifar import CIFAR
from snnmlp_edu.data.datasets import format_idx


class PythonTwoPickler(pickle._Pickler):  # type: ignore[name-defined]
    """Writes bytes as the text of Python 2, as the published archives have them."""

    def save_text(self, value: bytes) -> None:
        short = len(value) < 256
        self.write(b"U" + bytes([len(value)]) if short else b"T" + struct.pack("<i", len(value)))
        self.write(value)
        self.memoize(value)

    dispatch = {**pickle._Pickler.dispatch, bytes: save_text}  # type: ignore[attr-defined]  # noqa: RUF012


def python_two_pickle(values: Any) -> bytes:
    """A pickle of protocol 2 with Python 2's text and numpy's old names."""
    file = io.BytesIO()
    PythonTwoPickler(file, protocol=2).dump(values)
    return file.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def cifar_pixels(images: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (images, 3072), dtype=np.uint8)


def cifar_files(kind: str, images: int = 40) -> dict[str, Any]:
    """The dictionaries of an archive by file name; part i holds pixels of seed i."""
    form = CIFAR[kind]
    parts = [*form.parts["train"], *form.parts["test"]]
    files: dict[str, Any] = {
        name: {
            b"data": cifar_pixels(images, seed),
            form.labels.encode(): [i % form.classes for i in range(images)],
            b"filenames": [b"%d.png" % i for i in range(images)],
        }
        for seed, name in enumerate(parts)
    }
    files[form.meta] = {form.names.encode(): [b"class %d" % i for i in range(form.classes)]}
    return files


def write_cifar(folder: Path, kind: str, files: dict[str, Any]) -> tuple[Path, str]:
    """An archive under its published name, and its MD5; a value of bytes stands in the archive as it is."""
    form = CIFAR[kind]
    path = folder / form.archive
    with tarfile.open(path, "w:gz") as archive:
        for name, values in files.items():
            content = values if isinstance(values, bytes) else python_two_pickle(values)
            member = tarfile.TarInfo(f"{form.folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path, hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def write_idx(folder: Path, train: int = 40, test: int = 20, classes: int = 4, side: int = 28) -> Path:
    """The four files of an MNIST-like set; the training files are plain, the test files compressed."""
    folder.mkdir(exist_ok=True)
    generator = np.random.default_rng(0)
    for prefix, count, write in (("train", train, bytes), ("t10k", test, gzip.compress)):
        images = generator.integers(0, 256, (count, side, side), dtype=np.uint8)
        labels = (np.arange(count) % classes).astype(np.uint8)
        end = "" if write is bytes else ".gz"
        (folder / f"{prefix}-images-idx3-ubyte{end}").write_bytes(write(format_idx(images)))
        (folder / f"{prefix}-labels-idx1-ubyte{end}").write_bytes(write(format_idx(labels)))
    return folder


def write_image_folder(
    root: Path, classes: tuple[str, ...] = ("ant", "bee", "cat"), train: int = 16, val: int = 4
) -> Path:
    """`train/` and `val/` with JPEGs of many sizes; the classes differ in colour, the images in pattern."""
    generator = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for number, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                height, width = generator.integers(24, 64, 2)
                pixels = generator.integers(0, 120, (height, width, 3), dtype=np.uint8)
                pixels[..., number % 3] += 120
                Image.fromarray(pixels).save(folder / f"{name} {index:03}.jpg")
    return root
