"""Which test images the runs of a variant classified correctly, and what that adds to an error."""

from __future__ import annotations

import base64
import binascii
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from . import intervals
from .intervals import Error
from .record import Record


def right_images(record: Record) -> NDArray[np.bool_] | None:
    """Which test images a run classified correctly, in the order of the data set; None of an older record.

    Raises:
        InputError: what the record holds does not fit its number of correct test images.
    """
    if record.test_right is None:
        return None
    try:
        packed = np.frombuffer(base64.b64decode(record.test_right, validate=True), np.uint8)
    except (binascii.Error, ValueError):
        packed = np.zeros(0, np.uint8)
    right = np.unpackbits(packed).astype(bool)
    if len(packed) != -(-record.test_total // 8) or right.sum() != record.test_correct:
        raise InputError(
            f"{record.location or 'a record'}: test_right does not name {record.test_correct} of"
            f" {record.test_total} test images; delete the line and run the plan again"
        )
    return right[: record.test_total]


@dataclass(frozen=True)
class Answers:
    """The answers of one variant: accuracy, test images, and which were right, `[seeds, images]`."""

    accuracy: float
    images: int
    right: NDArray[np.bool_] | None


def answers_by_variant(records: Sequence[Record]) -> dict[str, Answers]:
    """The answers of each variant of the records."""
    found = {}
    for variant in dict.fromkeys(record.variant for record in records):
        runs = [record for record in records if record.variant == variant]
        tables = [right_images(run) for run in runs]
        right = [table for table in tables if table is not None]
        whole = len(right) == len(runs) and len({len(table) for table in right}) == 1
        images = min(run.test_total for run in runs)
        accuracy = statistics.fmean(run.test_accuracy for run in runs)
        found[variant] = Answers(accuracy, images, np.stack(right) if whole else None)
    return found


def images_error(one: Answers, other: Answers, same: bool) -> tuple[Error, bool]:
    """What the choice of the test images adds to the error of a difference, and whether it is paired.

    Args:
        one: answers of one variant.
        other: of the other.
        same: whether all runs saw the same images, and each variant has two or more.
    """
    if (
        same
        and one.right is not None
        and other.right is not None
        and one.right.shape[1] == other.right.shape[1]
    ):
        return intervals.images_error(one.right, other.right), True
    images = min(one.images, other.images)
    return intervals.unpaired_images_error(one.accuracy, other.accuracy, images), False
