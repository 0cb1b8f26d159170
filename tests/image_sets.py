"""Small data sets in the exact formats of the published ones, for tests."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from snnmlp_edu.data.cifar import CIFAR
from snnmlp_edu.data.datasets import format_idx


def cifar_pixels(images: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (images, 3072), dtype=np.uint8)


def cifar_files(kind: str, images: int = 40) -> dict[str, bytes]:
    """The files of a data set by name; part i holds pixels of seed i, and labels 0, 1, 2 and so on."""
    form = CIFAR[kind]
    labels = (np.arange(images) % form.classes).astype(np.uint8)[:, None]
    superclasses = (labels % 20,) if kind == "cifar100" else ()
    parts = [*form.parts["train"], *form.parts["test"]]
    files = {
        name: np.hstack([*superclasses, labels, cifar_pixels(images, seed)]).tobytes()
        for seed, name in enumerate(parts)
    }
    names = "".join(f"class {i}\n" for i in range(form.classes))
    return files | {form.names: f"{names}\n".encode(), "readme.html": b"<html>"}


def write_cifar(folder: Path, kind: str, files: dict[str, bytes]) -> tuple[Path, str]:
    """An archive under its published name, and its MD5."""
    form = CIFAR[kind]
    path = folder / form.archive
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{form.folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path, hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def write_unpacked_cifar(folder: Path, kind: str, files: dict[str, bytes]) -> Path:
    """The files of an archive, as it unpacks them."""
    place = folder / CIFAR[kind].folder
    place.mkdir(parents=True)
    for name, content in files.items():
        (place / name).write_bytes(content)
    return place


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
