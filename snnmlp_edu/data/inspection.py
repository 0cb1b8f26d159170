"""What a data set holds, and whether all of it can be read: before hours are spent on it."""

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
    """A data set as it was found.

    Args:
        place: what was looked at.
        kind: a name that `open_source` knows, or `image folder`.
        counts: part -> class -> number of images; parts that cannot be read are left out.
        shapes: part -> `(C, H, W)` of its images, where they all have one shape.
        problems: one line for each thing that is wrong.
    """

    place: str
    kind: str
    counts: Mapping[str, Mapping[str, int]]
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def images(self) -> int:
        """Number of images in all parts."""
        return sum(sum(classes.values()) for classes in self.counts.values())


def recognise(place: str) -> str:
    """The kind of data set in a place, from the names of its files.

    Raises:
        InputError: there is nothing, or nothing that is known.

    >>> recognise("digits")
    'digits'
    """
    if not place:
        raise InputError(f"the path is empty; give a path, or one of {', '.join(SHIPPED)}")
    path = Path(place)
    if place in SHIPPED and not path.exists():
        return place
    kinds = cifar_kinds(path)
    if len(kinds) == 1:
        return kinds[0]
    if len(kinds) > 1:
        raise InputError(f"{place} holds {' and '.join(kinds)}; give the path of one")
    if path.is_dir():
        return "idx" if is_idx_folder(path) else "image folder"
    if path.is_file():
        known = ", ".join(form.archive for form in CIFAR.values())
        raise InputError(f"{place} is no data set that is known; give a folder, or one of {known}")
    raise InputError(f"there is nothing at {place}; give a path, or one of {', '.join(SHIPPED)}")


def inspect(place: str, md5: str | None = None, decode: bool = True) -> Inspection:
    """Look at a data set; problems are listed, not raised.

    Args:
        place: a folder, an archive, or the name of a shipped data set.
        md5: checksum of a CIFAR archive; None expects the published one.
        decode: read every picture of a folder; False only counts them. Other sets are always read.

    Raises:
        InputError: there is nothing at that place, or nothing that is known.
    """
    kind = recognise(place)
    if kind == "image folder":
        splits, problems = list_images(Path(place))
        counts = {
            split: {name: len(files) for name, files in classes.items()} for split, classes in splits.items()
        }
        for classes in splits.values() if decode else ():
            problems += examine(as_pictures(Path(place), classes), again=True).lines()
        return Inspection(place, kind, counts, problems=tuple(problems))
    return _inspect_source(place, kind, md5)


def _inspect_source(place: str, kind: str, md5: str | None) -> Inspection:
    problems: list[str] = []
    counts: dict[str, dict[str, int]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    try:
        source = open_source(kind, None if kind in SHIPPED else place, md5)
    except InputError as error:
        return Inspection(place, kind, {}, problems=(str(error),))
    for part in PARTS:
        try:
            images, labels = source.load(part)
        except InputError as error:
            problems.append(str(error))
            continue
        tally = labels.bincount(minlength=len(source.class_names)).tolist()
        counts[part] = dict(zip(source.class_names, tally, strict=True))
        shapes[part] = tuple(images.shape[1:])
    return Inspection(place, kind, counts, shapes, tuple(problems))
