"""Recordings of a real event camera, as N-MNIST publishes them, and how they are cut into steps.

Orchard et al. turned an event camera in three short jerks in front of each digit of MNIST. A recording is a
file of events without a header. Ten recordings of each digit travel with the package.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..fields import checked, whole
from .files import read_bytes, read_verified

SIDE = 34  # pixels of the sensor, in either direction
EVENT_BYTES = 5
RECORDINGS = "nmnist/recordings.zip"


class Events(NamedTuple):
    """The events of one recording, int64 `[N]` each, in the order of the file.

    Args:
        x: column of the pixel, from 0 at the left to 33.
        y: row of the pixel, from 0 at the top to 33.
        polarity: 1 where it became brighter (ON), 0 where it became darker (OFF).
        time: in microseconds.
    """

    x: Tensor
    y: Tensor
    polarity: Tensor
    time: Tensor


class Recordings(NamedTuple):
    """Recordings with their labels int64 `[N]`."""

    events: tuple[Events, ...]
    labels: Tensor


def parse_nmnist_events(content: bytes, name: str) -> Events:
    """The events in the bytes of a recording.

    Each event is 40 bits, the first of them the most significant one: 8 for the column, 8 for the row, 1 for
    the polarity, and 23 for the time in microseconds.

    Args:
        content: the file.
        name: what error messages call it.

    Raises:
        InputError: no events, part of an event, or one from outside of the sensor.

    Source: doi:10.3389/fnins.2015.00437.

    >>> parse_nmnist_events(bytes([3, 20, 0x81, 0x00, 0x02]), "one event")
    Events(x=tensor([3]), y=tensor([20]), polarity=tensor([1]), time=tensor([65538]))
    """
    if not content:
        raise InputError(f"{name} is empty; give a recording with at least one event")
    if len(content) % EVENT_BYTES:
        raise InputError(
            f"{name} has {len(content)} bytes, which is no multiple of the {EVENT_BYTES} of an event:"
            " it is cut short, or no recording of N-MNIST; download it again"
        )
    rows = np.frombuffer(content, np.uint8).reshape(-1, EVENT_BYTES).astype(np.int64)
    x, y, third, fourth, fifth = torch.from_numpy(rows).unbind(1)
    outside = (x >= SIDE) | (y >= SIDE)
    if outside.any():
        first = int(outside.nonzero()[0])
        raise InputError(
            f"{name} has event {first} at column {int(x[first])}, row {int(y[first])}, outside of the"
            f" {SIDE} x {SIDE} pixels of the sensor: it is damaged, or no recording of N-MNIST"
        )
    return Events(x, y, third >> 7, (third & 0x7F) << 16 | fourth << 8 | fifth)


def read_nmnist_events(path: str | Path) -> Events:
    """The events in a file of N-MNIST, such as `Train/0/00002.bin`; see `parse_nmnist_events`.

    Raises:
        InputError: the file is missing, or is no recording of N-MNIST.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"there is no file {file}; give the path of a recording of N-MNIST")
    return parse_nmnist_events(read_bytes(file), str(file))


def load_nmnist() -> Recordings:
    """100 recordings of N-MNIST, ten of each digit, ordered by digit.

    They are the first of each digit in the training part, in the published order and unchanged.

    Returns:
        Their events, and labels int64 `[100]`, the digits.

    Raises:
        InputError: the file is not the one the manifest names.

    Source: doi:10.3389/fnins.2015.00437; `data/nmnist/README.md` has the licence, CC BY-SA 4.0.

    >>> load_nmnist().labels.bincount().tolist()
    [10, 10, 10, 10, 10, 10, 10, 10, 10, 10]
    """
    with zipfile.ZipFile(io.BytesIO(read_verified(RECORDINGS))) as archive:
        names = archive.namelist()  # DIGIT/NUMBER.bin
        events = tuple(parse_nmnist_events(archive.read(name), name) for name in names)
    return Recordings(events, torch.tensor([int(name.split("/")[0]) for name in names]))


def bin_events(events: Events, steps: int, microseconds: int) -> Tensor:
    r"""A recording cut into steps: 1 where a pixel sent at least one event of a polarity, else 0.

    An event at time :math:`t` belongs to step :math:`\lfloor t / \Delta \rfloor`, where :math:`\Delta` is the
    length of a step. Events after the last step are left out.

    Args:
        events: of one recording.
        steps: T, how many.
        microseconds: the length of each step.

    Returns:
        float32 `[T, 2, 34, 34]`; channel 0 has the ON events, channel 1 the OFF events.

    Raises:
        InputError: `steps` or `microseconds` is no whole number above 0.

    >>> bin_events(load_nmnist().events[0], steps=3, microseconds=105_000).shape
    torch.Size([3, 2, 34, 34])
    """
    checked("steps", steps, Annotated[int, whole(1)])
    checked("microseconds", microseconds, Annotated[int, whole(1)])
    step = events.time // microseconds
    kept = step < steps
    binned = torch.zeros(steps, 2, SIDE, SIDE)
    binned[step[kept], 1 - events.polarity[kept], events.y[kept], events.x[kept]] = 1
    return binned
