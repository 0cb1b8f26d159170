"""Predictions of a trained network for your own pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .checkpoints import Checkpoint
from .data.pictures import read_pictures
from .errors import InputError

BATCH_SIZE = 100


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of one picture.

    Args:
        path: the image file.
        classes: names with their probabilities, the likeliest first.
    """

    path: str
    classes: tuple[tuple[str, float], ...]


def predict(
    checkpoint: Checkpoint,
    images: Sequence[str | Path],
    top: int = 3,
    invert: bool = False,
    classify: Callable[[Tensor], Tensor] | None = None,
) -> list[Prediction]:
    """The likeliest classes of pictures, by the softmax of the network's logits.

    A picture is brought to the size, the channels and the normalisation of the training images, which the
    checkpoint knows. Its brightness is not: a network that learned from white on black sees little in
    black on white, unless `invert` exchanges the two.

    Args:
        checkpoint: the trained network with its preprocessing and class names.
        images: paths of image files.
        top: how many classes to name; all of them, where there are fewer.
        invert: exchange black and white before anything else.
        classify: from stored images, uint8 `[B, C, h, w]`, to logits, instead of the checkpoint's network.

    Returns:
        One prediction for each picture, in their order.

    Raises:
        InputError: there is no picture, one cannot be read, or `top` is below 1.
    """
    if not images or top < 1:
        raise InputError(f"there are {len(images)} images and top is {top}; both must be at least 1")
    files = [Path(image) for image in images]
    classify = classify or (lambda pixels: checkpoint.model(checkpoint.preprocessing.normalise(pixels)))
    found = []
    for start in range(0, len(files), BATCH_SIZE):
        chunk = files[start : start + BATCH_SIZE]
        pixels = read_pictures(chunk, checkpoint.preprocessing, invert)
        with torch.no_grad():
            probabilities = classify(pixels).softmax(dim=1)
        best = probabilities.topk(min(top, probabilities.shape[1]), dim=1)
        for file, values, labels in zip(chunk, best.values.tolist(), best.indices.tolist(), strict=True):
            names = (_name(checkpoint, label) for label in labels)
            found.append(Prediction(str(file), tuple(zip(names, values, strict=True))))
    return found


def _name(checkpoint: Checkpoint, label: int) -> str:
    return checkpoint.class_names[label] if label < len(checkpoint.class_names) else f"class {label}"
