"""What a data set holds, and whether all of it can be read, before hours are spent on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InputError
from .cifar import CIFAR, cifar_kinds
from .datasets import Split
from .idx_folder import is_idx_folder
from .image_folder import as_pictures, list_images
from .sources import SHIPPED, open_source
from .verification import examine

PARTS: tuple[Split, ...] = ("train", "test")


@dataclass(frozen=True)
class Inspection:
    """The result of inspecting a data set.

    Args:
        path: what was looked at.
        kind: a name that `open_source` knows, or `image folder`.
        counts: part -> class -> number of images; parts that cannot be read are left out.
        shapes: part -> `(C, H, W)` of its images, where they all have one shape.
        problems: one line for each thing that is wrong.
    """

    path: str
    kind: str
    counts: Mapping[str, Mapping[str, int]]
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def images(self) -> int:
        """Number of images in all parts."""
        return sum(sum(classes.values()) for classes in self.counts.values())


def recognise(path: str) -> str:
    """The kind of data set at a path, from the names of its files.

    Raises:
        InputError: there is nothing, or nothing that is known.

    >>> recognise("digits")
    'digits'
    """
    if not path:
        raise InputError(f"the path is empty; give a path, or one of {', '.join(SHIPPED)}")
    found = Path(path)
    if path in SHIPPED and not found.exists():
        return path
    kinds = cifar_kinds(found)
    if len(kinds) == 1:
        return kinds[0]
    if len(kinds) > 1:
        raise InputError(f"{path} holds {' and '.join(kinds)}; give the path of one")
    if found.is_dir():
        return "idx" if is_idx_folder(found) else "image folder"
    if found.is_file():
        known = ", ".join(form.archive for form in CIFAR.values())
        raise InputError(f"{path} is not a known data set; give a folder, or one of {known}")
    raise InputError(f"there is nothing at {path}; give a path, or one of {', '.join(SHIPPED)}")


def inspect(path: str, md5: str | None = None, decode: bool = True) -> Inspection:
    """Inspect a data set; problems are listed, not raised.

    Args:
        path: a folder, an archive, or the name of a shipped data set.
        md5: checksum of a CIFAR archive; None expects the published one.
        decode: read every picture of a folder; False only counts them. Other sets are always read.

    Raises:
        InputError: there is nothing at that path, or nothing that is known.
    """
    kind = recognise(path)
    if kind == "image folder":
        splits, problems = list_images(Path(path))
        counts = {
            split: {name: len(files) for name, files in classes.items()} for split, classes in splits.items()
        }
        for classes in splits.values() if decode else ():
            problems += examine(as_pictures(Path(path), classes), again=True).lines()
        return Inspection(path, kind, counts, problems=tuple(problems))
    return _inspect_source(path, kind, md5)


def _inspect_source(path: str, kind: str, md5: str | None) -> Inspection:
    problems: list[str] = []
    counts: dict[str, dict[str, int]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    try:
        source = open_source(kind, None if kind in SHIPPED else path, md5)
    except InputError as error:
        return Inspection(path, kind, {}, problems=(str(error),))
    for part in PARTS:
        try:
            images, labels = source.load(part)
        except InputError as error:
            problems.append(str(error))
            continue
        tally = labels.bincount(minlength=len(source.class_names)).tolist()
        counts[part] = dict(zip(source.class_names, tally, strict=True))
        shapes[part] = tuple(images.shape[1:])
    return Inspection(path, kind, counts, shapes, tuple(problems))
