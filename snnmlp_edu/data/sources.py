"""The data sets that a recipe can name, each with its classes, its training images and its test images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from ..errors import InputError
from ..fields import nearest
from .cifar import CifarFiles
from .datasets import LabelledImages, Split
from .digit_pairs import PAIR_NAMES, load_digit_pairs
from .digits import DIGIT_NAMES, load_digits
from .downloading import DOWNLOADS, Download
from .embedded import CLASS_NAMES, load_embedded
from .file_source import FileSource, open_folder
from .idx_folder import idx_class_names, load_idx
from .imagenet import named_classes
from .photographs import ROTATION_NAMES, load_photographs
from .picture_sets import MemoryPictures, PictureSet
from .settings import Verification

Dataset = Literal[
    "embedded",
    "digits",
    "digit_pairs",
    "photographs",
    "fashion_mnist",
    "idx",
    "cifar10",
    "cifar100",
    "imagenet",
    "image_folder",
]


def _not_at_once(split: Split) -> LabelledImages:
    raise InputError(
        f"the {split} images stay in files of many sizes; this needs a data set that fits in memory"
    )


@dataclass(frozen=True)
class ImageSource:
    """A data set: its images are read when they are asked for.

    Args:
        name: what messages call it.
        class_names: what each label stands for.
        load: reads the training or the test images, uint8 `[N, C, H, W]`, with their labels.
        files: the images, where they stay in files and are read one by one; else None.
    """

    name: str
    class_names: tuple[str, ...]
    load: Callable[[Split], LabelledImages] = _not_at_once
    files: FileSource | None = None

    def pictures(self, split: Split) -> PictureSet:
        """The training or the test images one by one, wherever they are.

        Raises:
            InputError: they are not as they should be.
        """
        if self.files is not None:
            return self.files.open(split)
        return MemoryPictures(self.load(split))

    def left_out(self, announce: bool = False) -> list[str]:
        """A line for each damaged image that is left out of the training or the test images.

        Raises:
            InputError: an image is damaged, and is not to be left out.
        """
        return self.files.check(announce) if self.files is not None else []


class Wanted(NamedTuple):
    """What a data set is opened with; `open_source` has the fields."""

    name: str
    path: Path
    md5: str | None
    verify: Verification
    skip_corrupt: bool


Names = tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """What is decided by the name of a data set.

    Args:
        open: makes its source of what is wanted and of the class names below.
        class_names: what each label stands for; None where the files say it.
        shipped: whether it comes with the installation, so that no `data_dir` is given.
        requires: a package that it needs and that need not be installed.
        download: how `snnmlp data prepare NAME` downloads it; None where it does not.
    """

    open: Callable[[Wanted, Names | None], ImageSource]
    class_names: Names | None = None
    shipped: bool = False
    requires: str | None = None
    download: Download | None = None


def _shipped(
    load: Callable[[Split], LabelledImages], class_names: Names, requires: str | None = None
) -> Entry:
    return Entry(lambda wanted, _: ImageSource(wanted.name, class_names, load), class_names, True, requires)


def _open_idx(wanted: Wanted, class_names: Names | None) -> ImageSource:
    names = idx_class_names(wanted.path) if class_names is None else class_names
    return ImageSource(wanted.name, names, partial(load_idx, wanted.path, class_names=names))


def _open_cifar(wanted: Wanted, _: Names | None) -> ImageSource:
    files = CifarFiles(wanted.name, wanted.path, wanted.md5)
    return ImageSource(wanted.name, files.class_names, files.load)


def _open_folder(wanted: Wanted, _: Names | None) -> ImageSource:
    files = open_folder(wanted.path, wanted.verify, wanted.skip_corrupt)
    return ImageSource(wanted.name, files.class_names, files=files)


def _open_imagenet(wanted: Wanted, _: Names | None) -> ImageSource:
    files = open_folder(wanted.path, wanted.verify, wanted.skip_corrupt)
    return ImageSource(wanted.name, named_classes(wanted.path, files.class_names), files=files)


# All that is decided by the name of a data set is decided here.
DATASETS: dict[Dataset, Entry] = {
    "embedded": _shipped(load_embedded, CLASS_NAMES),
    "digits": _shipped(load_digits, DIGIT_NAMES, requires="scikit-learn"),
    "digit_pairs": _shipped(load_digit_pairs, PAIR_NAMES, requires="scikit-learn"),
    "photographs": _shipped(load_photographs, ROTATION_NAMES),
    "fashion_mnist": Entry(_open_idx, CLASS_NAMES, download=DOWNLOADS["fashion_mnist"]),
    "idx": Entry(_open_idx),
    "cifar10": Entry(_open_cifar, download=DOWNLOADS["cifar10"]),
    "cifar100": Entry(_open_cifar, download=DOWNLOADS["cifar100"]),
    "imagenet": Entry(_open_imagenet),
    "image_folder": Entry(_open_folder),
}
SHIPPED = tuple(name for name, entry in DATASETS.items() if entry.shipped)


def entry_of(dataset: str) -> Entry:
    """What is known of a data set.

    Raises:
        InputError: the name is unknown.

    >>> entry_of("digits").requires
    'scikit-learn'
    """
    entries: dict[str, Entry] = dict(DATASETS.items())
    if dataset not in entries:
        raise InputError(
            f"there is no data set {dataset!r}{nearest(dataset, entries)} (known: {', '.join(entries)})"
        )
    return entries[dataset]


def open_source(
    dataset: str,
    data_dir: str | Path | None = None,
    md5: str | None = None,
    verify: Verification = "decode",
    skip_corrupt: bool = False,
) -> ImageSource:
    """A data set by its name.

    | name | images | where they come from |
    |---|---|---|
    | `embedded` | 7,000 of Fashion-MNIST, 28 x 28 | this package |
    | `digits` | 1,797 handwritten digits, enlarged to 32 x 32 | scikit-learn |
    | `digit_pairs` | 10,000 pairs of them in far corners, equal or not, 64 x 64 | scikit-learn |
    | `photographs` | 13,000 patches of eight photographs, turned, 32 x 32 | this package |
    | `fashion_mnist` | all 70,000 of Fashion-MNIST, 28 x 28 | its four idx files in `data_dir` |
    | `idx` | any data set in four idx files, such as MNIST | `data_dir` |
    | `cifar10`, `cifar100` | 60,000, in colour, 32 x 32 | the published binary files in `data_dir` |
    | `imagenet`, `image_folder` | any files | folders `train/CLASS/` and `val/CLASS/` in `data_dir` |

    Args:
        dataset: one of these names.
        data_dir: folder of the files, or CIFAR's archive itself.
        md5: the CIFAR archive's checksum; None expects the published one.
        verify: how image files are checked before they are used.
        skip_corrupt: leave out those that cannot be read.

    Raises:
        InputError: the name is unknown, `data_dir` is missing or superfluous, or the files are not as
            they should be.

    >>> open_source("digits").class_names[:3]
    ('0', '1', '2')
    """
    entry = entry_of(dataset)
    if entry.shipped and data_dir is not None:
        raise InputError(f"the data set {dataset} is shipped; leave out data_dir ({data_dir})")
    if not entry.shipped and data_dir in (None, ""):  # an empty one would be the folder that one is in
        source = f"; `snnmlp data prepare {dataset} PATH` downloads them" if entry.download else ""
        raise InputError(
            f"the data set {dataset} is read from files; say where they are with data_dir=PATH{source}"
        )
    wanted = Wanted(dataset, Path(data_dir or ""), md5, verify, skip_corrupt)
    return entry.open(wanted, entry.class_names)
