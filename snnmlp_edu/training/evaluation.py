"""Accuracy of a trained network: the one function that training, the command line and the book use."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..checkpoints import Checkpoint
from ..data.embedded import CLASS_NAMES, load_embedded
from ..data.transforms import Preprocessing, check_finite
from ..errors import InputError

BATCH_SIZE = 200


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
        labels: int64 `[N]`.
        batch_size: images in a pass.

    Raises:
        InputError: there are no images, not as many labels, or an image is NaN or infinite.
    """
    if len(images) != len(labels) or len(images) == 0:
        raise InputError(f"there are {len(images)} images and {len(labels)} labels; give as many of each")
    check_finite(images)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    correct = 0
    with torch.no_grad():
        for batch, targets in zip(images.split(batch_size), labels.split(batch_size), strict=True):
            logits = model(preprocessing(batch.to(device)))
            correct += int((logits.argmax(1) == targets.to(device)).sum())
    model.train(was_training)
    return correct, len(images)


def evaluate_embedded(checkpoint: Checkpoint) -> tuple[int, int]:
    """How many of the embedded test images a checkpoint classifies correctly, and how many there are.

    Raises:
        InputError: the checkpoint was trained on other classes.
    """
    if checkpoint.class_names != CLASS_NAMES:
        raise InputError(
            f"the checkpoint tells {', '.join(checkpoint.class_names) or 'nameless classes'} apart and the"
            f" embedded images show {', '.join(CLASS_NAMES)}; use one that was trained on them"
        )
    return evaluate(checkpoint.model, checkpoint.preprocessing, *load_embedded("test"))


def describe_accuracy(correct: int, total: int) -> str:
    """An accuracy in words.

    >>> describe_accuracy(843, 1000)
    '84.30 % (843 of 1000)'
    """
    return f"{100 * correct / total:.2f} % ({correct} of {total})"
