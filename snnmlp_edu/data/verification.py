"""Finding every damaged picture before the first epoch: once, by all cores, and remembered."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, assert_never

import torch
from PIL import Image

from ..errors import AccessError, InputError
from ..printing import printable
from .files import remembered
from .picture_sets import PictureSet
from .pictures import decode_picture, open_picture, picture_error, strictly
from .settings import Verification, cores
from .workers import in_workers, shown

CHUNK = 32
FEW = 256  # so many are read sooner than workers are started
TAIL = 1024
END_OF_JPEG, END_OF_PNG = b"\xff\xd9", b"IEND"


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


def find_damage(pictures: PictureSet, how: Verification = "decode", announce: bool = False) -> dict[int, str]:
    """Numbers of the damaged pictures, each with a line that says what is wrong; see `examine`.

    Raises:
        AccessError: one cannot be read, so that nobody can say whether it is damaged.
    """
    found = examine(pictures, how, announce)
    if found.unreadable:
        more = f" ({len(found.unreadable)} such files)" if len(found.unreadable) > 1 else ""
        raise AccessError(next(iter(found.unreadable.values())) + more)
    return found.damaged


def examine(
    pictures: PictureSet, how: Verification = "decode", announce: bool = False, again: bool = False
) -> Examination:
    """Which pictures are damaged, and which cannot be read.

    `decode` unpacks every picture, which finds all that a training could stumble over; for JPEG at an
    eighth of the size, so that it costs less than a first epoch's reading. Its outcome is remembered in the
    user's cache under a checksum over the path, size, time and inode of every file: the next training on
    unchanged files only lists them. Where a file could not be read, nothing is remembered.

    Args:
        pictures: all of one part of a data set.
        how: `decode`, or only the beginning and end of each file (`header`), or `none`.
        announce: show how far it is.
        again: read all, whatever is remembered.
    """
    if how == "none":
        return Examination({}, {})
    with remembered("\n".join((how, *pictures.state_on_disk()))) as memory:
        known = None if again else _recalled(memory.recall(), len(pictures.labels))
        if known is not None:
            return Examination(known, {})
        count = len(pictures.labels)
        chunks = [range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
        workers = cores() if count > FEW else 0
        results = in_workers(partial(_examined, pictures, how), chunks, workers)
        every = shown(results, "reading every image once", len(chunks), announce)
        found = Examination({}, {})
        for part in every:
            found.damaged.update(part.damaged)
            found.unreadable.update(part.unreadable)
        if not found.unreadable:
            memory.keep(json.dumps(found.damaged).encode())
    return found


def only_sound(
    pictures: PictureSet, how: Verification, skip: bool, announce: bool = False
) -> tuple[PictureSet, list[str]]:
    """The pictures that are whole, and a line for each damaged one, which was left out.

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
            f"no image of class {min(lost)} can be read: {next(iter(damaged.values()))}; mend or remove the"
            " class"
        )
    return pictures.subset(whole.nonzero().flatten()), list(damaged.values())


def check_ends(source: Path | bytes, name: str) -> None:
    """Look at the beginning and the end of an image file, and at nothing in between.

    Raises:
        AccessError: it cannot be read.
        InputError: it is empty, of no known format, or a JPEG or PNG without its end.
    """
    with open_picture(source, name) as file, strictly():
        try:
            kind = Image.open(file).format
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - TAIL))
            tail = file.read()
        except Exception as error:  # a decoder can fail in any way
            raise picture_error(name, error) from error
    end = {"JPEG": END_OF_JPEG, "PNG": END_OF_PNG}.get(kind or "")
    if end is not None and end not in tail:
        raise InputError(f"{name} cannot be read: its end is missing; it is damaged or cut off")


def _recalled(content: bytes | None, count: int) -> dict[int, str] | None:
    try:
        found = {int(index): str(line) for index, line in json.loads(content or b"").items()}
    except (ValueError, AttributeError):  # nothing was kept, or the cache is damaged
        return None
    return found if all(0 <= index < count for index in found) else None


def _examined(pictures: PictureSet, how: Verification, chunk: Sequence[int]) -> Examination:
    found = Examination({}, {})
    for index in chunk:
        try:
            name = pictures.name(index)
            match how:
                case "none":
                    pass
                case "header":
                    check_ends(pictures.source(index), name)
                case "decode":
                    decode_picture(pictures.source(index), name, channels=3, small=True)
                case _:
                    assert_never(how)
        except AccessError as error:
            found.unreadable[index] = printable(error)
        except InputError as error:
            found.damaged[index] = printable(error)
    return found
