"""Finding every damaged picture before the first epoch: once, on all cores, and cached."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from ..errors import AccessError, InputError
from ..printing import printable
from .files import remembered, write_atomically
from .picture_sets import FilePictures
from .pictures import read_picture
from .settings import Verification, cores
from .workers import parallel_map, progress

CHUNK = 32
FEW = 256  # so many are read sooner than workers are started


class Examination(NamedTuple):
    """Numbers of pictures, each with a line that says what is wrong.

    Args:
        damaged: their content is not as it should be.
        unreadable: the system did not let them be read, so nothing is known of their content.
    """

    damaged: dict[int, str]
    unreadable: dict[int, str]

    def lines(self) -> list[str]:
        """All lines, in the order of the pictures."""
        return [line for _, line in sorted((self.damaged | self.unreadable).items())]


def find_damage(
    pictures: FilePictures, how: Verification = "decode", announce: bool = False
) -> dict[int, str]:
    """Numbers of the damaged pictures, each with a line that says what is wrong; see `examine`.

    Raises:
        AccessError: one cannot be read, so that it is unknown whether it is damaged.
    """
    found = examine(pictures, how, announce)
    if found.unreadable:
        more = f" ({len(found.unreadable)} such files)" if len(found.unreadable) > 1 else ""
        raise AccessError(next(iter(found.unreadable.values())) + more)
    return found.damaged


def examine(
    pictures: FilePictures, how: Verification = "decode", announce: bool = False, again: bool = False
) -> Examination:
    """Which pictures are damaged, and which cannot be read.

    Every picture is unpacked, which finds all that a training could stumble over; a JPEG at an eighth of its
    size, so that it costs less than a first epoch's reading. The outcome is remembered in the user's cache
    under a checksum over the path, size, time and inode of every file: the next training on unchanged files
    only lists them. Where a file could not be read, nothing is remembered.

    Args:
        pictures: all of one part of a data set.
        how: `decode`, or `none`, which reads nothing.
        announce: show how far it is.
        again: read all, whatever is remembered.
    """
    if how == "none":
        return Examination({}, {})
    with remembered("\n".join(pictures.state_on_disk())) as memory:
        known = None if again else _recalled(memory, len(pictures.labels))
        if known is not None:
            return Examination(known, {})
        count = len(pictures.labels)
        chunks = [range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
        workers = cores() if count > FEW else 0
        results = parallel_map(partial(_examined, pictures), chunks, workers)
        found = Examination({}, {})
        for part in progress(results, "reading every image once", len(chunks), announce):
            found.damaged.update(part.damaged)
            found.unreadable.update(part.unreadable)
        if memory is not None and not found.unreadable:
            with suppress(OSError):
                write_atomically(memory, json.dumps(found.damaged).encode())
    return found


def only_sound(
    pictures: FilePictures, how: Verification, skip: bool, announce: bool = False
) -> tuple[FilePictures, list[str]]:
    """The intact pictures, and a line for each damaged one, which was left out.

    Raises:
        AccessError: one cannot be read.
        InputError: one is damaged and `skip` is false: names the first and says how many there are; or all
            of a class are.
    """
    damaged = find_damage(pictures, how, announce)
    if not damaged:
        return pictures, []
    count = len(pictures.labels)
    if not skip:
        raise InputError(
            f"{next(iter(damaged.values()))} ({len(damaged)} of {count:,} images damaged: 'snnmlp data"
            " verify' lists them, --skip-corrupt leaves them out)"
        )
    whole = torch.ones(count, dtype=torch.bool)
    whole[list(damaged)] = False
    lost = set(pictures.labels.tolist()) - set(pictures.labels[whole].tolist())
    if lost:
        raise InputError(
            f"no image of class {min(lost)} can be read: {next(iter(damaged.values()))}; repair or remove the"
            " class"
        )
    return pictures.subset(whole.nonzero().flatten()), list(damaged.values())


def _recalled(memory: Path | None, count: int) -> dict[int, str] | None:
    try:
        content = b"" if memory is None else memory.read_bytes()
        found = {int(index): str(line) for index, line in json.loads(content).items()}
    except (OSError, ValueError, AttributeError):  # nothing was kept, or the cache is damaged
        return None
    return found if all(0 <= index < count for index in found) else None


def _examined(pictures: FilePictures, chunk: Sequence[int]) -> Examination:
    found = Examination({}, {})
    for index in chunk:
        try:
            read_picture(pictures.file(index), channels=3, small=True)
        except AccessError as error:
            found.unreadable[index] = printable(error)
        except InputError as error:
            found.damaged[index] = printable(error)
    return found
