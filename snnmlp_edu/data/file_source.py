"""Data sets whose pictures stay in their files: folders of classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..errors import InputError
from .datasets import Split
from .image_folder import as_pictures, list_images
from .picture_sets import FilePictures
from .settings import Verification
from .verification import only_sound


class FileSource:
    """The training and the test pictures of a data set in files, each part checked when it is first opened.

    Args:
        parts: training and test pictures.
        class_names: what each label stands for.
        verify: how they are checked.
        skip_corrupt: leave out what cannot be read.
    """

    def __init__(
        self,
        parts: Mapping[Split, FilePictures],
        class_names: tuple[str, ...],
        verify: Verification,
        skip_corrupt: bool,
    ) -> None:
        self.parts, self.class_names = parts, class_names
        self.verify, self.skip_corrupt = verify, skip_corrupt
        self._sound: dict[Split, tuple[FilePictures, list[str]]] = {}

    def open(self, split: Split) -> FilePictures:
        """The pictures that can be read.

        Raises:
            InputError: one is damaged, and is not to be left out.
        """
        return self._checked(split, announce=False)[0]

    def check(self, announce: bool) -> list[str]:
        """Check both parts now; a line for each picture that is left out.

        Raises:
            InputError: one is damaged, and is not to be left out.
        """
        return [line for split in self.parts for line in self._checked(split, announce)[1]]

    def _checked(self, split: Split, announce: bool) -> tuple[FilePictures, list[str]]:
        if split not in self._sound:
            self._sound[split] = only_sound(self.parts[split], self.verify, self.skip_corrupt, announce)
        return self._sound[split]


def open_folder(folder: Path, verify: Verification, skip_corrupt: bool) -> FileSource:
    """A folder with `train/`, and with `test/` or `val/`, each of which holds a folder for every class.

    The test images are those in `test/`, or in `val/` where there is no `test/`, as in ImageNet, whose test
    labels are not published. Either way they only test: validation images are split off `train/`.

    Raises:
        InputError: the folders are not so.
    """
    splits, problems = list_images(folder)
    test = "test" if "test" in splits else "val"
    if not {"train", test} <= set(splits):
        missing = "train" if "train" not in splits else "val"
        raise InputError(
            f"{folder} holds no folder {missing}; put training images into train/CLASS/ and test images into"
            " val/CLASS/"
        )
    if problems:
        more = f" ({len(problems)} such problems: 'snnmlp data describe' lists them)"
        raise InputError(problems[0] + (more if len(problems) > 1 else ""))
    parts: dict[Split, FilePictures] = {
        "train": as_pictures(folder, splits["train"]),
        "test": as_pictures(folder, splits[test]),
    }
    return FileSource(parts, tuple(splits["train"]), verify, skip_corrupt)
