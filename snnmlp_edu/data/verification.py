"""Finding every damaged picture before the first epoch: once, by all cores, and remembered."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import assert_never

import torch
from PIL import Image

from ..errors import InputError
from .files import remembered, write_atomically
from .picture_sets import PictureSet
from .pictures import decode_picture
from .settings import Verification, cores
from .workers import in_workers, shown

CHUNK = 32
FEW = 256  # so many are read sooner than workers are started
TAIL = 1024
END_OF_JPEG, END_OF_PNG = b"\xff\xd9", b"IEND"


def find_damage(
    pictures: PictureSet, how: Verification = "decode", announce: bool = False, again: bool = False
) -> dict[int, str]:
    """Numbers of the damaged pictures, each with a line that says what is wrong.

    `decode` unpacks every picture, which finds all that a training could stumble over; for JPEG at an
    eighth of the size, so that it costs less than a first epoch's reading. Its outcome is remembered in the
    user's cache under a checksum over the path, size and time of every file: the next training on
    unchanged files only lists them.

    Args:
        pictures: all of one part of a data set.
        how: `decode`, or only the beginning and end of each file (`header`), or `none`.
        announce: show how far it is.
        again: read all, whatever is remembered.
    """
    if how == "none":
        return {}
    with remembered("\n".join((how, *pictures.state_on_disk()))) as stamp:
        if stamp.is_file() and not again:
            return {int(index): problem for index, problem in json.loads(stamp.read_bytes()).items()}
        count = len(pictures.labels)
        chunks = [range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
        workers = cores() if count > FEW else 0
        results = in_workers(partial(_damaged, pictures, how), chunks, workers)
        every = shown(results, "reading every image once", len(chunks), announce)
        found = {index: problem for damaged in every for index, problem in damaged}
        with suppress(OSError):  # then it is not remembered
            write_atomically(stamp, json.dumps(found).encode())
    return found


def only_sound(
    pictures: PictureSet, how: Verification, skip: bool, announce: bool = False
) -> tuple[PictureSet, list[str]]:
    """The pictures that can be read, and a line for each one that was left out.

    Raises:
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
        InputError: it is empty, of no known format, or a JPEG or PNG without its end.
    """
    try:
        with open(source, "rb") if isinstance(source, Path) else BytesIO(source) as file:
            with Image.open(file) as picture:
                kind = picture.format
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL))
            tail = file.read()
    except (Image.UnidentifiedImageError, Image.DecompressionBombError, ValueError, OSError) as error:
        raise InputError(
            f"{name} is empty or no image of a format that is known; give a PNG or JPEG"
        ) from error
    end = {"JPEG": END_OF_JPEG, "PNG": END_OF_PNG}.get(kind or "")
    if end is not None and end not in tail:
        raise InputError(f"{name} cannot be read: its end is missing; it is damaged or cut off")


def _damaged(pictures: PictureSet, how: Verification, chunk: Sequence[int]) -> list[tuple[int, str]]:
    found = []
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
        except (InputError, OSError) as error:
            found.append((index, str(error)))
    return found
