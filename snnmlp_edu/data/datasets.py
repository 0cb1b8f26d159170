"""Labelled images, the idx format they are stored in, and the split into training and validation."""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..fields import FRACTION, checked
from ..inputs import check_labels
from .files import read_bytes

GZIP_MAGIC = b"\x1f\x8b"
UNSIGNED_BYTE = 0x08

Split = Literal["train", "test"]


class LabelledImages(NamedTuple):
    """Images uint8 `[N, C, H, W]` with their labels int64 `[N]`."""

    images: Tensor
    labels: Tensor


def parse_idx(content: bytes, name: str) -> np.ndarray:
    """The array in the bytes of an idx file of unsigned bytes, as MNIST introduced it.

    The format is: two zero bytes, the type code (8), the number of dimensions, each dimension as a
    big-endian 32-bit number, then the values, last dimension fastest.

    Args:
        content: the file, plain or compressed by gzip.
        name: what error messages call it.

    Returns:
        uint8 array in the file's shape.

    Raises:
        InputError: the bytes are not such a file, or more or fewer than its header says.

    >>> parse_idx(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]), "two")
    array([7, 9], dtype=uint8)
    """
    again = "download it again"
    if content[:2] == GZIP_MAGIC:
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error) as error:
            raise InputError(f"{name} is a damaged gzip file ({error}); {again}") from error
    if len(content) < 4 or content[:2] != b"\0\0":
        raise InputError(f"{name} is not an idx file: it does not start with two zero bytes; {again}")
    if content[2] != UNSIGNED_BYTE:
        raise InputError(f"{name} has idx type 0x{content[2]:02x}; only unsigned bytes (0x08) are read")
    rank = content[3]
    start = 4 + 4 * rank
    if rank == 0 or len(content) < start:
        raise InputError(f"{name} ends inside its idx header; {again}")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", count=rank, offset=4))
    if len(content) - start != math.prod(shape):
        raise InputError(f"{name} holds {len(content) - start} values and its header says {shape}; {again}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def read_idx(file: Path) -> np.ndarray:
    """The array in an idx file, plain or compressed by gzip; see `parse_idx`.

    Raises:
        InputError: the file is missing, or is no complete idx file of unsigned bytes.
    """
    if not file.is_file():
        raise InputError(f"there is no file {file}; give the path of an idx file")
    return parse_idx(read_bytes(file), str(file))


def format_idx(array: np.ndarray) -> bytes:
    """The bytes of an uncompressed idx file for a uint8 array; the inverse of `parse_idx`."""
    header = bytes([0, 0, UNSIGNED_BYTE, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.astype(np.uint8, casting="equiv").tobytes()


def labelled_images(images: np.ndarray, labels: np.ndarray, classes: int, name: str) -> LabelledImages:
    """Tensors of images `[N, H, W]` and labels `[N]`, after a check that they belong together.

    Raises:
        InputError: another shape, another number of labels than images, or a label outside the classes.
    """
    if images.ndim != 3 or labels.ndim != 1:
        raise InputError(
            f"{name} has images of shape {images.shape} and labels of shape {labels.shape};"
            " give images [N, H, W] and labels [N]"
        )
    if 0 in images.shape[1:]:
        size = f"{images.shape[1]} x {images.shape[2]}"
        raise InputError(f"{name} has images of {size} pixels; download it again")
    if len(images) != len(labels):
        raise InputError(
            f"{name} has {len(images)} images and {len(labels)} labels; use a pair made together"
        )
    if len(labels) and labels.max() >= classes:
        raise InputError(f"{name} has label {labels.max()}; labels must be from 0 to {classes - 1}")
    pixels = torch.from_numpy(images.copy()).unsqueeze(1)
    return LabelledImages(pixels, torch.from_numpy(labels.astype(np.int64)))


def dataset_sha256(*parts: LabelledImages) -> str:
    """SHA-256 over shapes, images and labels, however the files are compressed.

    Args:
        parts: such as training and test images.

    >>> part = LabelledImages(torch.arange(6, dtype=torch.uint8).view(2, 3, 1, 1), torch.tensor([0, 1]))
    >>> dataset_sha256(part) == dataset_sha256(LabelledImages(part.images.flip(0), part.labels.flip(0)))
    False
    """
    digest = hashlib.sha256()
    for part in parts:
        for tensor in part:
            digest.update(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def train_validation_split(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of the training and of the validation images, the same fraction of every class.

    Args:
        labels: int64 `[N]`.
        fraction: part of each class that goes to validation, above 0 and below 1.
        seed: of the generator that chooses; the same seed gives the same split.

    Returns:
        Two sorted int64 vectors without a common index, together all of `0..N-1`.

    Raises:
        InputError: there are no labels, or they are no whole numbers `[N]`; or the fraction is no number
            between 0 and 1, or leaves a class without a training or without a validation image.

    >>> train, validation = train_validation_split(torch.tensor([0, 0, 1, 1]), 0.5, seed=0)
    >>> len(train), len(validation)
    (2, 2)
    """
    check_labels(labels, len(labels))
    if len(labels) == 0:
        raise InputError("there are 0 labels; give at least two images of each class")
    checked("validation_fraction", fraction, Annotated[float, FRACTION])
    generator = torch.Generator().manual_seed(seed)
    train, validation = [], []
    for label in labels.unique().tolist():
        members = (labels == label).nonzero().flatten()
        held_out = round(fraction * len(members))
        if not 0 < held_out < len(members):
            raise InputError(
                f"validation_fraction {fraction} of the {len(members)} images of class {label} is {held_out};"
                " choose a fraction that leaves at least one for each side"
            )
        shuffled = members[torch.randperm(len(members), generator=generator)]
        validation.append(shuffled[:held_out])
        train.append(shuffled[held_out:])
    return torch.cat(train).sort().values, torch.cat(validation).sort().values
