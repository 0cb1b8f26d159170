"""Accuracy of a trained network: the one function that training, the command line and the book use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from ..checkpoints import Checkpoint
from ..data.batches import PictureBatches, check_shared_memory, in_order, load_batches, unwrap
from ..data.imagenet import same_classes
from ..data.picture_sets import PictureSet
from ..data.settings import Loading, cores
from ..data.sources import ImageSource, open_source
from ..data.transforms import Preprocessing
from ..data.workers import naming_lost_workers
from ..errors import InputError
from ..fields import checked, whole
from ..inputs import check_labels, check_pixels
from ..model.recording import evaluating

BATCH_SIZE = 200
Classify = Callable[[Tensor], Tensor]  # from stored images to logits


def evaluate(
    model: nn.Module,
    preprocessing: Preprocessing,
    images: Tensor,
    labels: Tensor,
    batch_size: int = BATCH_SIZE,
) -> tuple[int, int]:
    """How many images a network classifies correctly, and how many there are.

    The network runs in evaluation mode without gradients, and is left in the mode it came in. The same
    images in the same batches give the same answer.

    Args:
        model: takes `[B, C, H, W]` and returns logits `[B, classes]`.
        preprocessing: from the stored pixels to the network's input.
        images: uint8 `[N, c, h, w]`, or floating point in 0 to 1.
        labels: int64 `[N]`, each below the number of classes.
        batch_size: images in a pass.

    Raises:
        InputError: there are no images, not as many labels, an image is NaN, infinite or out of range, or a
            label is no whole number or none of the classes.
    """
    with _classifying(model, preprocessing) as classify:
        return _evaluate_stored(classify, images, labels, batch_size)


@contextmanager
def _classifying(model: nn.Module, prepare: Classify) -> Iterator[Classify]:
    """From stored images to a network's logits, in evaluation mode without gradients."""
    device = _device(model)
    with evaluating(model), torch.no_grad():
        yield lambda images: model(prepare(images.to(device)))


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _evaluate_stored(classify: Classify, images: Tensor, labels: Tensor, batch_size: int) -> tuple[int, int]:
    check_pixels(images)
    check_labels(labels, len(images))
    checked("batch_size", batch_size, Annotated[int, whole(1)])
    return _evaluate(classify, zip(images.split(batch_size), labels.split(batch_size), strict=True))


def evaluate_pictures(
    classify: Classify, preprocessing: Preprocessing, pictures: PictureSet, loading: Loading
) -> tuple[int, int]:
    """As `evaluate`, for pictures that are decoded one at a time, by loader workers.

    Args:
        classify: from fitted images, uint8 `[B, C, side, side]`, to logits.
        preprocessing: fits them.
        pictures: of the test.
        loading: how they are loaded.

    Raises:
        InputError: there are no pictures, one is damaged, or a process that reads them was lost.
    """
    count = len(pictures.labels)
    if count == 0:
        raise InputError("there are no images to test on")
    made = PictureBatches(pictures, preprocessing)
    check_shared_memory(min(BATCH_SIZE, count) * made.image_bytes, loading)
    with naming_lost_workers():
        return _evaluate(classify, load_batches(made, in_order(count, BATCH_SIZE), loading))


def _evaluate(classify: Classify, batches: Iterable[Any]) -> tuple[int, int]:
    correct = total = 0
    for images, labels in map(unwrap, batches):
        logits = classify(images)
        check_labels(labels, len(images), logits.shape[1])
        correct += int((logits.argmax(1) == labels.to(logits.device)).sum())
        total += len(labels)
    return correct, total


def evaluate_source(
    checkpoint: Checkpoint,
    source: ImageSource,
    loading: Loading | None = None,
    classify: Classify | None = None,
) -> tuple[int, int]:
    """How many of a data set's test images a checkpoint classifies correctly, and how many there are.

    Args:
        checkpoint: the trained network.
        source: of the images.
        loading: how images in files are loaded; None chooses for the machine.
        classify: from stored images, uint8 `[B, C, h, w]`, to logits, instead of the checkpoint's network.

    Raises:
        InputError: the checkpoint was trained on other classes.
    """
    if not same_classes(checkpoint.class_names, source.class_names):
        raise InputError(
            f"the checkpoint's classes are {', '.join(checkpoint.class_names) or 'unnamed'} and the"
            f" {source.name} images have {', '.join(source.class_names)}; use one that was trained on them"
        )
    model, preprocessing = checkpoint.model, checkpoint.preprocessing
    with nullcontext(classify) if classify else _classifying(model, preprocessing.normalise) as run:
        if source.files is None and preprocessing.resize is None:
            return _evaluate_stored(run, *source.load("test"), BATCH_SIZE)
        loading = (loading or Loading()).on_machine(cores(), _device(model).type == "cuda")
        return evaluate_pictures(run, preprocessing, source.pictures("test"), loading)


def evaluate_embedded(checkpoint: Checkpoint) -> tuple[int, int]:
    """How many of the embedded test images a checkpoint classifies correctly, and how many there are.

    Raises:
        InputError: the checkpoint was trained on other classes.
    """
    return evaluate_source(checkpoint, open_source("embedded"))


def own_source(
    checkpoint: Checkpoint, dataset: str | None = None, data_dir: str | None = None
) -> ImageSource:
    """The data set that a checkpoint was trained on, or another one to test it on.

    Args:
        checkpoint: its recipe names the data set; one without a recipe is tested on the embedded images.
        dataset: another data set.
        data_dir: another place of the files.

    Raises:
        InputError: as `open_source`.
    """
    recipe = checkpoint.recipe
    if dataset is not None and dataset != recipe.get("dataset"):
        return open_source(dataset, data_dir)
    return open_source(
        recipe.get("dataset", "embedded"),
        data_dir or recipe.get("data_dir"),
        recipe.get("data_md5"),
        skip_corrupt=recipe.get("skip_corrupt", False),
    )


def describe_accuracy(correct: int, total: int) -> str:
    """An accuracy in words.

    >>> describe_accuracy(843, 1000)
    '84.30 % (843 of 1000)'
    """
    return f"{100 * correct / total:.2f} % ({correct} of {total})"
