"""ImageNet-1K from the tar files that its publishers hand out: class folders for training and for testing.

The archives cannot be fetched without an account at https://image-net.org; `prepare` starts from the files.
Source of their layout and checksums: ILSVRC 2012, arXiv 1409.0575, as torchvision reads them.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from ..errors import InputError
from .files import write_atomically

TRAIN_MD5 = "1d675b47d978889d74fa0da5fadfb00e"
VAL_MD5 = "29b22e2961454d5413ddabcf34fc5622"
DEVKIT_MD5 = "fa75699e90414af021442c21a62c3abf"
CLASS_ARCHIVE = re.compile(r"(n\d{8})\.tar")
TRAIN_IMAGE = re.compile(r"n\d{8}_\d+\.JPEG")
VAL_IMAGE = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")
SYNSET = re.compile(r"n\d{8}")
WORDS = "words.txt"


def prepare_train(archive: Path, place: Path, md5: str = TRAIN_MD5) -> Path:
    """`place/train/` from `ILSVRC2012_img_train.tar`, an archive of one archive for each class.

    The archive is read once; its checksum is known at the end, and only then the folder gets its name. A
    call that was cut off is started anew; one after the end finds all done.

    Raises:
        InputError: there is no such archive, or it is another one.
    """
    target, partial = place / "train", place / ".train.partial"
    if target.is_dir():
        return target
    shutil.rmtree(partial, ignore_errors=True)
    with _Hashed(archive, md5) as content, tarfile.open(fileobj=content, mode="r|") as classes:
        for member in classes:
            synset = _matched(CLASS_ARCHIVE, member, archive)[1]
            inner = classes.extractfile(member)
            assert inner is not None
            with tarfile.open(fileobj=inner, mode="r|") as images:
                for image in images:
                    _matched(TRAIN_IMAGE, image, archive)
                    _write(images, image, partial / synset / image.name)
    os.replace(partial, target)
    return target


def prepare_val(archive: Path, place: Path, synsets: Sequence[str], md5: str = VAL_MD5) -> Path:
    """`place/val/` from `ILSVRC2012_img_val.tar`, whose pictures lie in one heap.

    Args:
        archive: the file.
        place: gets the folder.
        synsets: the class of each picture, in the order of their numbers.
        md5: the checksum to expect.

    Raises:
        InputError: there is no such archive, it is another one, or a picture has no class.
    """
    target, partial = place / "val", place / ".val.partial"
    if target.is_dir():
        return target
    shutil.rmtree(partial, ignore_errors=True)
    seen = 0
    with _Hashed(archive, md5) as content, tarfile.open(fileobj=content, mode="r|") as images:
        for image in images:
            number = int(_matched(VAL_IMAGE, image, archive)[1])
            if not 0 < number <= len(synsets):
                raise InputError(
                    f"{archive} holds {image.name} and there are {len(synsets)} labels; give the labels that"
                    " belong to it"
                )
            _write(images, image, partial / synsets[number - 1] / image.name)
            seen += 1
    if seen != len(synsets):
        raise InputError(f"{archive} holds {seen} images and there are {len(synsets)} labels; give its own")
    os.replace(partial, target)
    return target


def read_synsets(file: Path) -> list[str]:
    """The class of each validation picture from a text file with one synset a line, such as `n01440764`.

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


def named_classes(place: Path, synsets: Sequence[str]) -> tuple[str, ...]:
    """Synsets with what they mean in words, as `n01440764 tench, Tinca tinca`, by the folder's `words.txt`.

    Without that file, and for a synset that it does not have, the synset stands alone.
    """
    file = place / WORDS
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


def read_devkit(archive: Path, place: Path | None = None, md5: str = DEVKIT_MD5) -> list[str]:
    """The class of each validation picture from `ILSVRC2012_devkit_t12.tar.gz`.

    Its list numbers the classes in an order of its own, which `meta.mat` explains.

    Args:
        archive: the file.
        place: gets `words.txt`, which says in words what each synset is; None writes nothing.
        md5: the checksum to expect.

    Raises:
        InputError: there is no such archive, it is another one, or scipy is not installed.
    """
    try:
        from scipy.io import loadmat  # scikit-learn brings it
    except ModuleNotFoundError as error:
        raise InputError(
            "the devkit is read with scipy, which is not installed; run, in a clone:"
            " pip install -e '.[train]'"
        ) from error
    with _Hashed(archive, md5) as content:
        whole = content.read()
    with tarfile.open(fileobj=io.BytesIO(whole), mode="r:gz") as files:
        meta = loadmat(io.BytesIO(_member(files, "data/meta.mat", archive)), squeeze_me=True)["synsets"]
        numbers = _member(files, "data/ILSVRC2012_validation_ground_truth.txt", archive).split()
    leaves: Mapping[int, Any] = {int(row["ILSVRC2012_ID"]): row for row in meta if row["num_children"] == 0}
    if place is not None:
        words = "".join(f"{row['WNID']} {row['words']}\n" for row in leaves.values())
        place.mkdir(parents=True, exist_ok=True)
        write_atomically(place / WORDS, words.encode())
    return [str(leaves[int(number)]["WNID"]) for number in numbers]


class _Hashed(io.RawIOBase):
    """A file that is read from its beginning to its end, and whose checksum is compared there."""

    def __init__(self, file: Path, md5: str) -> None:
        if not file.is_file():
            raise InputError(f"there is no file {file}; give the archive from https://image-net.org")
        self.file, self.expected = file, md5
        self.digest = hashlib.md5(usedforsecurity=False)
        self.content: IO[bytes] = open(file, "rb")  # noqa: SIM115

    def readable(self) -> bool:
        """It is."""
        return True

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        content = self.content.read(size)
        self.digest.update(content)
        return content

    def __exit__(self, kind: Any, error: Any, *_: Any) -> None:
        try:
            if isinstance(error, tarfile.TarError | EOFError):
                raise InputError(f"{self.file} is a damaged archive ({error}); fetch it again") from error
            if kind is None:
                while self.read(1 << 20):
                    pass
                found = self.digest.hexdigest()
                if found != self.expected:
                    raise InputError(
                        f"{self.file} has MD5 {found} and not {self.expected}; it is not used; fetch it again"
                    )
        finally:
            self.content.close()


def _matched(pattern: re.Pattern[str], member: tarfile.TarInfo, archive: Path) -> re.Match[str]:
    found = pattern.fullmatch(member.name) if member.isfile() else None
    if found is None:
        raise InputError(
            f"{archive} holds {member.name!r}, which ImageNet's does not; give the archive as it is published"
        )
    return found


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, file: Path) -> None:
    held = archive.extractfile(member)
    assert held is not None
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "wb") as out:
        shutil.copyfileobj(held, out)


def _member(archive: tarfile.TarFile, ending: str, file: Path) -> bytes:
    for member in archive.getmembers():
        if member.isfile() and member.name.endswith(ending):
            held = archive.extractfile(member)
            assert held is not None
            return held.read()
    raise InputError(f"{file} lacks {ending}; give the devkit of ILSVRC 2012 as it is published")
