"""WebDataset shards: tar files that hold many pictures, each beside the number of its class.

A sample is a run of members with one name up to the first dot: `000042.jpg` and `000042.cls`, the class as
text. Other members are ignored. The shards are read where they lie, by position and not as a stream: an
index of all members is made once and remembered, and any picture can be read at any time, so that a run
goes on exactly. `EpochBatches` keeps to a few shards at a time. (The package webdataset streams, and its
order depends on the workers.)

Source: the format is described at https://github.com/webdataset/webdataset
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import AccessError, InputError
from .datasets import Split
from .file_source import FileSource
from .files import is_hidden, remembered
from .idx_folder import CLASS_FILE, read_lines
from .picture_sets import PictureSet, Texts, describe_file, file_state
from .pictures import decode_picture
from .settings import Verification, cores
from .workers import in_workers, shown

LABEL = "cls"
OPEN_FILES = 64
MOST_CLASSES = 1_000_000  # where no file names them
LONGEST_LABEL = 18  # bytes; so many digits still fit into 64 bits
SPLIT_WORDS = {
    "train": {"train", "training"},
    "test": {"test", "testing"},
    "val": {"val", "valid", "validation"},
}


class ShardIndex(NamedTuple):
    """Where the pictures of shards lie: arrays with an entry for each one, and their names."""

    names: list[str]
    shards: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray


class ShardPictures:
    """Pictures in tar files.

    Args:
        files: the shards.
        index: where the pictures lie in them.
        states: what `describe_file` said of each shard before it was indexed; None asks now.
    """

    def __init__(self, files: Sequence[Path], index: ShardIndex, states: Sequence[str] | None = None) -> None:
        self.files, self.index = tuple(files), index._replace(names=[])
        self.states = tuple(map(describe_file, files) if states is None else states)
        self.names: Sequence[str] = Texts(index.names)
        self.labels = torch.from_numpy(index.labels)
        self.shards: Tensor | None = torch.from_numpy(index.shards)

    def name(self, index: int) -> str:
        """The shard, and the member in it."""
        return f"{self.files[self.index.shards[index]]}: {self.names[index]}"

    def read(self, index: int, channels: int) -> Image.Image:
        """A picture in mode `L` or `RGB`; see `decode_picture`."""
        return decode_picture(self.source(index), self.name(index), channels)

    def source(self, index: int) -> bytes:
        """The bytes of its file.

        Raises:
            AccessError: the shard cannot be read, or another has taken its place.
            InputError: it is cut off.
        """
        shard, size = self.index.shards[index], int(self.index.sizes[index])
        file = self.files[shard]
        try:
            descriptor = _opened(file, self.states[shard]).descriptor
            if f"{file} {file_state(os.fstat(descriptor))}" != self.states[shard]:
                raise AccessError(f"{file} is not the file that was indexed: it was replaced; start again")
            # By position: processes that share the open file do not move each other's.
            content = os.pread(descriptor, size, int(self.index.offsets[index]))
        except OSError as error:
            raise AccessError.of(file, error) from error
        if len(content) < size:
            raise InputError(f"{self.name(index)} is cut off; fetch the shard again")
        return content

    def subset(self, indices: Tensor) -> ShardPictures:
        """The pictures of these numbers, numbered anew."""
        chosen = indices.numpy()
        names = [self.names[i] for i in chosen]
        arrays = (self.index.shards, self.index.offsets, self.index.sizes, self.index.labels)
        index = ShardIndex(names, *(array[chosen] for array in arrays))
        return ShardPictures(self.files, index, self.states)

    def state_on_disk(self) -> Iterator[str]:
        """Path, size and time of change of each shard."""
        yield from map(describe_file, self.files)


def index_shard(file: Path) -> ShardIndex:
    """Read the headers of a shard; the pictures are passed over, and hidden members left out.

    Raises:
        AccessError: the file cannot be read.
        InputError: it is no whole tar archive, or a sample lacks its picture or its label.
    """
    names, offsets, sizes, labels = [], [], [], []
    try:
        length = file.stat().st_size
        with tarfile.open(file, "r:") as archive:
            for key, members in _samples(archive):
                picture, label = members.get("picture"), members.get(LABEL)
                if picture is None and label is None:
                    continue
                if picture is None or label is None:
                    lacking = "picture" if picture is None else f".{LABEL} with its class"
                    raise InputError(f"{file}: sample {key} has no {lacking}; write the shard again")
                if picture.offset_data + picture.size > length:
                    raise InputError(f"{file} is cut off in {picture.name}; fetch it again")
                names.append(picture.name)
                offsets.append(picture.offset_data)
                sizes.append(picture.size)
                labels.append(_label(archive, label, file))
    except InputError:
        raise
    except OSError as error:
        raise AccessError.of(file, error) from error
    except Exception as error:  # a header that is damaged can fail in any way
        raise InputError(f"{file} is a damaged tar archive ({error}); fetch it again") from error
    shards = [0] * len(names)
    return ShardIndex(names, *(np.array(values, np.int64) for values in (shards, offsets, sizes, labels)))


def index_shards(
    files: Sequence[Path], announce: bool = False, states: Sequence[str] | None = None
) -> ShardIndex:
    """The index of many shards, made by all cores, once.

    Args:
        files: the shards.
        announce: show how far it is.
        states: what `describe_file` says of each, by which the index is remembered; None asks.

    Raises:
        AccessError: a shard cannot be read.
        InputError: one is damaged.
    """
    if states is None:
        states = [describe_file(file) for file in files]
    with remembered("\n".join(("shards", *states))) as memory:
        known = _recalled(memory.recall())
        if known is not None:
            return known
        parts = in_workers(_indexed, files, cores() if len(files) > 8 else 0)
        every = shown(parts, "reading the shards' headers", len(files), announce)
        columns: list[ShardIndex] = []
        for number, part in enumerate(every):
            if isinstance(part, InputError):
                raise part
            columns.append(part._replace(shards=np.full(len(part.names), number, np.int64)))
        numbers = [np.concatenate([part[column] for part in columns]) for column in range(1, 5)]
        index = ShardIndex([name for part in columns for name in part.names], *numbers)
        content = BytesIO()
        joined = os.fsencode("".join(f"{name}\0" for name in index.names))
        np.savez(content, **index._asdict() | {"names": np.frombuffer(joined, np.uint8)})
        memory.keep(content.getvalue())
    return index


def _recalled(content: bytes | None) -> ShardIndex | None:
    try:
        with np.load(BytesIO(content or b""), allow_pickle=False) as arrays:
            names, *numbers = (arrays[name] for name in ShardIndex._fields)
    except Exception:  # nothing was kept, or the cache is damaged in some way
        return None
    return ShardIndex(os.fsdecode(names.tobytes()).split("\0")[:-1], *numbers)


def shard_files(place: Path) -> dict[Split, list[Path]]:
    """The shards of the training and of the test images, by their names or those of their folders.

    The word `train` stands in the path of the first below `place`; `test` in that of the others, or `val`
    where there is no `test`; `SPLIT_WORDS` has their longer forms. A word ends where letters end:
    `interval-000000.tar` is for validation of nothing. Hidden files and folders are left out.

    Raises:
        InputError: the path of a shard says both.
    """
    found: dict[str, list[Path]] = {part: [] for part in SPLIT_WORDS}
    for file in sorted(place.rglob("*.tar")):
        below = str(file.relative_to(place))
        if is_hidden(below):
            continue
        words = set(re.split("[^a-z]+", below.lower()))
        said = [part for part, names in SPLIT_WORDS.items() if words & names]
        if "train" in said and len(said) > 1:
            raise InputError(f"the path of {file} says both train and {said[1]}; rename it or its folder")
        for part in said:
            found[part].append(file)
    return {"train": found["train"], "test": found["test"] or found["val"]}


def open_shards(place: Path, verify: Verification, skip_corrupt: bool) -> FileSource:
    """A folder of shards; `classes.txt` names the classes, a line each, else they are called by number.

    Raises:
        InputError: shards are missing or damaged, or a label has no class.
    """
    if not place.is_dir():
        raise InputError(f"there is no folder {place}; give the one that holds the shards")
    parts: dict[Split, PictureSet] = {}
    for split, files in shard_files(place).items():
        if not files:
            word = "train" if split == "train" else "val"
            raise InputError(f"{place} holds no shard of {split} images, such as {word}-000000.tar")
        states = [describe_file(file) for file in files]
        parts[split] = ShardPictures(files, index_shards(files, states=states), states)
        if not len(parts[split].labels):
            raise InputError(f"the shards of {split} images in {place} hold no sample; write them again")
    listed = place / CLASS_FILE
    if listed.is_file():
        names = read_lines(listed)
    else:
        most = min(int(parts["train"].labels.max()) + 1, MOST_CLASSES)  # a wrong label could be of any size
        names = tuple(map(str, range(most)))
    for part in parts.values():
        wrong = ((part.labels < 0) | (part.labels >= len(names))).nonzero().flatten()
        if len(wrong):
            first = int(wrong[0])
            raise InputError(
                f"{part.name(first)} has label {int(part.labels[first])}; labels must lie in 0 to"
                f" {len(names) - 1}"
            )
    return FileSource(parts, names, verify, skip_corrupt)


def _samples(archive: tarfile.TarFile) -> Iterator[tuple[str, dict[str, tarfile.TarInfo]]]:
    """Keys with their members: the picture, and the label."""
    current = ""
    members: dict[str, tarfile.TarInfo] = {}
    for member in archive:
        if not member.isfile() or is_hidden(member.name):
            continue
        folder, slash, name = member.name.rpartition("/")
        base, _, ending = name.partition(".")
        key = folder + slash + base
        if key != current:
            if members:
                yield current, members
            current, members = key, {}
        ending = ending.lower()
        kind = LABEL if ending == LABEL else "picture" if f".{ending.split('.')[-1]}" in endings() else ending
        members[kind] = member
    if members:
        yield current, members


@cache
def endings() -> frozenset[str]:
    """The endings of the files that Pillow reads, each with its dot."""
    return frozenset(Image.registered_extensions())


def _label(archive: tarfile.TarFile, member: tarfile.TarInfo, file: Path) -> int:
    held = archive.extractfile(member)
    content = held.read(LONGEST_LABEL + 1) if held is not None else b""
    if re.fullmatch(rb"\s*-?[0-9]+\s*", content) and len(content) <= LONGEST_LABEL:
        return int(content)
    raise InputError(f"{file}: {member.name} holds {content[:20]!r} and no class number")


def _indexed(file: Path) -> ShardIndex | InputError:
    try:
        return index_shard(file)
    except InputError as error:
        return error


class _Opened:
    """An open shard of one state; closed when nobody holds it any more."""

    def __init__(self, file: Path, _state: str) -> None:
        self.descriptor = os.open(file, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


_opened = lru_cache(OPEN_FILES)(_Opened)
