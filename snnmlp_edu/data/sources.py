"""The data sets that a recipe can name, each with its classes, its training images and its test images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from ..config import nearest
from ..errors import InputError
from .cifar import CifarArchive
from .datasets import LabelledImages, Split
from .digits import DIGIT_NAMES, load_digits
from .embedded import CLASS_NAMES, load_embedded
from .file_source import FileSource, open_folder
from .idx_folder import idx_class_names, load_idx
from .imagenet import named_classes
from .photographs import ROTATION_NAMES, load_photographs
from .picture_sets import MemoryPictures, PictureSet
from .settings import Verification
from .shards import open_shards

Dataset = Literal[
    "embedded",
    "digits",
    "photographs",
    "fashion_mnist",
    "idx",
    "cifar10",
    "cifar100",
    "imagenet",
    "image_folder",
    "webdataset",
]
SHIPPED = ("embedded", "digits", "photographs")


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
        return MemoryPictures(self.load(split), f"{self.name} ({split})")

    def left_out(self, announce: bool = False) -> list[str]:
        """A line for each damaged image that is left out of the training or the test images.

        Raises:
            InputError: an image is damaged, and is not to be left out.
        """
        return self.files.check(announce) if self.files is not None else []


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
    | `photographs` | 13,000 patches of eight photographs, turned, 32 x 32 | this package |
    | `fashion_mnist` | all 70,000 of Fashion-MNIST, 28 x 28 | its four idx files in `data_dir` |
    | `idx` | any data set in four idx files, such as MNIST | `data_dir` |
    | `cifar10`, `cifar100` | 60,000, in colour, 32 x 32 | the published archive in `data_dir` |
    | `imagenet`, `image_folder` | any files | folders `train/CLASS/` and `val/CLASS/` in `data_dir` |
    | `webdataset` | any files | tar shards, such as `train-000000.tar` and `val-000000.tar` in `data_dir` |

    Args:
        dataset: one of these names.
        data_dir: folder of the files, or the CIFAR archive itself.
        md5: the CIFAR archive's checksum; None expects the published one.
        verify: how image files are checked before they are used.
        skip_corrupt: leave out those that cannot be read.

    Raises:
        InputError: the name is unknown, `data_dir` is missing or superfluous, or the files are not as
            they should be.

    >>> open_source("digits").class_names[:3]
    ('0', '1', '2')
    """
    known = get_args(Dataset)
    if dataset not in known:
        raise InputError(
            f"there is no data set {dataset!r}{nearest(dataset, known)} (known: {', '.join(known)})"
        )
    if dataset in SHIPPED:
        if data_dir is not None:
            raise InputError(f"the data set {dataset} is shipped; leave out data_dir ({data_dir})")
        if dataset == "embedded":
            return ImageSource("embedded", CLASS_NAMES, load_embedded)
        if dataset == "photographs":
            return ImageSource("photographs", ROTATION_NAMES, load_photographs)
        return ImageSource("digits", DIGIT_NAMES, load_digits)
    if data_dir is None or data_dir == "":  # which would be the folder that one is in
        fetched = dataset in ("fashion_mnist", "cifar10", "cifar100")
        source = f"; `snnmlp data prepare {dataset} PATH` fetches them" if fetched else ""
        raise InputError(
            f"the data set {dataset} is read from files; say where they are with data_dir=PATH{source}"
        )
    place = Path(data_dir)
    if dataset in ("idx", "fashion_mnist"):
        names = CLASS_NAMES if dataset == "fashion_mnist" else idx_class_names(place)
        return ImageSource(dataset, names, partial(load_idx, place, class_names=names))
    if dataset in ("imagenet", "image_folder", "webdataset"):
        files = (open_shards if dataset == "webdataset" else open_folder)(place, verify, skip_corrupt)
        names = named_classes(place, files.class_names) if dataset == "imagenet" else files.class_names
        return ImageSource(dataset, names, files=files)
    archive = CifarArchive(dataset, place, md5)
    return ImageSource(dataset, archive.class_names(), archive.load)
