"""Shards from an image folder: few large files in the place of many small ones."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Sequence
from functools import partial
from io import BytesIO
from pathlib import Path

import torch
from torch import Generator

from ..errors import InputError
from ..printing import printable
from .batches import mixed_seed
from .datasets import Split
from .file_source import FileSource
from .files import write_atomically
from .idx_folder import CLASS_FILE
from .picture_sets import PictureSet, listing_digest
from .settings import cores
from .shards import LABEL, endings
from .workers import in_workers, shown

DONE = "prepared.json"
PER_SHARD = 1000
NAMES: dict[Split, str] = {"train": "train", "test": "val"}


def write_shards(
    source: FileSource, folder: Path, per_shard: int = PER_SHARD, seed: int = 0, announce: bool = False
) -> list[Path]:
    """Write the pictures of a data set as shards, their files as they are, in a random order.

    The order is fixed by the seed. Within a shard, classes are mixed: a training that reads a few shards at
    a time still sees all of them. Each shard is written under a temporary name first; `prepared.json` is
    written last. A second call for the same pictures finds it, and writes only what has got lost since.

    Args:
        source: the pictures; damaged ones are left out or refused, as it says.
        folder: gets the shards; made if it is not there.
        per_shard: pictures in each.
        seed: of the order.
        announce: show how far it is.

    Returns:
        The shards.

    Raises:
        InputError: a picture is damaged, or the folder holds other shards or a damaged `prepared.json`.
        OSError: the folder cannot be written.
    """
    if per_shard < 1:
        raise InputError(f"there are to be {per_shard} images in a shard; give at least 1")
    parts = {split: source.open(split) for split in NAMES}
    listing = {split: listing_digest(pictures) for split, pictures in parts.items()}
    facts = {"listing": listing, "per_shard": per_shard, "seed": seed}
    files = {
        split: _files(folder, NAMES[split], len(part.labels), per_shard) for split, part in parts.items()
    }
    everything = [file for split in NAMES for file in files[split]]
    done = folder / DONE
    if done.is_file() and _read(done) != facts:
        raise InputError(f"{folder} holds shards of other images, or other ones of these; choose another")
    missing = {file for file in everything if not (done.is_file() and file.is_file())}
    if not missing:
        return everything
    strange = sorted(set(folder.glob("*.tar")) - set(everything))
    if strange:
        raise InputError(f"{folder} already holds {strange[0].name}; choose an empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    for remains in folder.glob(".*.tar.*"):  # of a call that was cut off
        remains.unlink()
    for split, part in parts.items():
        order = _order(len(part.labels), seed)
        chunks = [order[start : start + per_shard] for start in range(0, len(order), per_shard)]
        jobs = [job for job in zip(files[split], chunks, strict=True) if job[0] in missing]
        workers = cores() if len(jobs) > 1 and announce else 0
        results = in_workers(partial(_write_shard, part), jobs, workers)
        title = f"writing {NAMES[split]} shards"
        for mistake in shown(results, title, len(jobs), announce):
            if mistake is not None:
                raise mistake
    names = "".join(f"{printable(name)}\n" for name in source.class_names)
    write_atomically(folder / CLASS_FILE, names.encode())
    write_atomically(done, json.dumps(facts, indent=2).encode())
    return everything


def _read(done: Path) -> object:
    try:
        return json.loads(done.read_bytes())
    except ValueError as error:
        raise InputError(f"{done} is damaged ({error}); delete it to write all shards anew") from error


def _order(count: int, seed: int) -> list[int]:
    return torch.randperm(count, generator=Generator().manual_seed(mixed_seed(seed, "shards"))).tolist()


def _files(folder: Path, word: str, count: int, per_shard: int) -> list[Path]:
    shards = -(-count // per_shard)
    return [folder / f"{word}-{number:06}.tar" for number in range(shards)]


def _write_shard(pictures: PictureSet, job: tuple[Path, Sequence[int]]) -> InputError | OSError | None:
    """Write one shard; what went wrong is returned, as a worker's exception would lose its line."""
    file, chunk = job
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as archive:
            for index in chunk:
                source = pictures.source(index)
                content = source if isinstance(source, bytes) else source.read_bytes()
                _add(archive, f"{index:09}.{_ending(pictures, index)}", content)
                _add(archive, f"{index:09}.{LABEL}", str(int(pictures.labels[index])).encode())
        os.replace(temporary, file)
    except (InputError, OSError) as error:
        return error
    finally:
        temporary.unlink(missing_ok=True)
    return None


def _ending(pictures: PictureSet, index: int) -> str:
    """The ending of a picture's name, by which a reader knows it for a picture."""
    ending = Path(pictures.name(index)).suffix.lower()
    return ending.removeprefix(".") if ending in endings() else "png"


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # no owner, no time: the same pictures give the same shard
    member.size = len(content)
    archive.addfile(member, BytesIO(content))
