"""ImageNet-1K from the tar files that its publishers distribute: class folders for training and for testing.

The archives need an account at https://image-net.org to be downloaded; `prepare` starts from the files.
torchvision knows their checksums and unpacks them; a folder gets its name when all of it is there.
Source of their layout: ILSVRC 2012, arXiv 1409.0575.
"""

from __future__ import annotations

import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Literal

from ..errors import InputError
from .files import write_atomically

SYNSET = re.compile(r"n\d{8}")
WORDS = "words.txt"


def prepare_train(archive: Path, folder: Path) -> Path:
    """Make `folder/train/` from `ILSVRC2012_img_train.tar`, an archive of one archive for each class.

    An interrupted call starts over; a call after the end finds everything done.

    Raises:
        InputError: there is no such archive, it is another one, or torchvision is not installed.
    """
    target = folder / "train"
    if not target.is_dir():
        with _torchvision("train", archive) as imagenet, _emptied(folder / ".train.partial") as root:
            imagenet.parse_train_archive(root, str(archive.resolve()))
            os.replace(root / "train", target)
    return target


def prepare_val(archive: Path, folder: Path, synsets: Sequence[str]) -> Path:
    """Make `folder/val/` from `ILSVRC2012_img_val.tar`, which holds all pictures in one folder.

    Args:
        archive: the file.
        folder: in which `val/` is made.
        synsets: the class of each picture, in the order of their numbers.

    Raises:
        InputError: there is no such archive, it is another one, or there are not as many pictures as classes
            for them; or torchvision is not installed.
    """
    target = folder / "val"
    if not target.is_dir():
        with _torchvision("val", archive) as imagenet, _emptied(folder / ".val.partial") as root:
            imagenet.parse_val_archive(root, str(archive.resolve()), list(synsets))
            images = sum(file.is_file() for file in (root / "val").rglob("*"))
            if images != len(synsets):
                raise InputError(
                    f"{archive} holds {images:,} images and there are {len(synsets):,} labels; give its own"
                )
            os.replace(root / "val", target)
    return target


def read_synsets(file: Path) -> list[str]:
    """The class of each validation picture from a text file with one synset per line, such as `n01440764`.

    Raises:
        InputError: there is no such file, or a line is no synset.
    """
    if not file.is_file():
        raise InputError(f"there is no file {file}; give one with the synset of each validation image")
    lines = file.read_text(encoding="utf-8", errors="replace").split()
    for number, line in enumerate(lines, 1):
        if not SYNSET.fullmatch(line):
            raise InputError(f"{file} has {line[:20]!r} as entry {number}; write synsets such as n01440764")
    return lines


def named_classes(folder: Path, synsets: Sequence[str]) -> tuple[str, ...]:
    """Synsets with what they mean in words, as `n01440764 tench, Tinca tinca`, by the folder's `words.txt`.

    Without that file, and for a synset that it does not have, the synset is used alone.
    """
    file = folder / WORDS
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
    words = dict(line.split(maxsplit=1) for line in lines if " " in line.strip())
    return tuple(f"{synset} {words[synset]}" if synset in words else synset for synset in synsets)


def same_classes(some: Sequence[str], others: Sequence[str]) -> bool:
    """Whether two lists of class names mean the same classes, whether or not words follow the synsets.

    >>> same_classes(["n01440764 tench, Tinca tinca"], ["n01440764"])
    True
    >>> same_classes(["ant"], ["bee"])
    False
    """
    return [_identifier(name) for name in some] == [_identifier(name) for name in others]


def _identifier(name: str) -> str:
    first = name.partition(" ")[0]
    return first if SYNSET.fullmatch(first) else name


def read_devkit(archive: Path, folder: Path | None = None) -> list[str]:
    """The class of each validation picture from `ILSVRC2012_devkit_t12.tar.gz`.

    Its list numbers the classes in an order of its own, which `meta.mat` explains.

    Args:
        archive: the file.
        folder: where to write `words.txt`, which says in words what each synset is; None writes nothing.

    Raises:
        InputError: there is no such archive, it is another one, or torchvision is not installed.
    """
    with _torchvision("devkit", archive) as imagenet, tempfile.TemporaryDirectory() as root:
        imagenet.parse_devkit_archive(root, str(archive.resolve()))
        words_of, synsets = imagenet.load_meta_file(root)
    if folder is not None:
        words = "".join(f"{synset} {', '.join(words)}\n" for synset, words in words_of.items())
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / WORDS, words.encode())
    return [str(synset) for synset in synsets]


@contextmanager
def _emptied(root: Path) -> Iterator[Path]:
    """A folder to unpack into, without what an interrupted call left there; removed in the end."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


@contextmanager
def _torchvision(kind: Literal["train", "val", "devkit"], archive: Path) -> Iterator[ModuleType]:
    """torchvision's functions for the archives, kept within the folder that they unpack into."""
    if not archive.is_file():
        raise InputError(f"there is no file {archive}; give the archive from https://image-net.org")
    try:
        from torchvision.datasets import imagenet  # it takes seconds to import
    except ModuleNotFoundError as error:
        raise InputError(
            "the archives are unpacked with torchvision, which is not installed; run, in a clone:"
            " pip install -e '.[train]'"
        ) from error
    unfiltered = tarfile.TarFile.extraction_filter
    tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)
    try:
        yield imagenet
    except RuntimeError as error:  # of the checksum, or of a name without an ending
        name, md5 = imagenet.ARCHIVE_META[kind]
        raise InputError(
            f"{archive} is not {name} as it is published (MD5 {md5}); it is not used; download it again"
        ) from error
    except tarfile.TarError as error:
        raise InputError(f"{archive} cannot be unpacked ({error}); download it again") from error
    finally:
        tarfile.TarFile.extraction_filter = unfiltered
