"""Folders of image files, one folder for each class, as ImageNet has them."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from ..errors import InputError
from .picture_sets import FilePictures

SPLITS = ("train", "val", "test")
Classes = dict[str, list[Path]]


def list_images(place: Path) -> tuple[dict[str, Classes], list[str]]:
    """The files of an image folder by split and class, and what is wrong with the folders themselves.

    `place` holds `train`, `val` or `test`, each with a folder for every class; or the folders of the
    classes themselves, then the one split is called `all`. Files may lie deeper; hidden ones are left out.

    Returns:
        Split -> class -> files in order; and one line for each class without a file, each class that
        another split lacks, and each link that leads back to a folder above it.

    Raises:
        InputError: the folder is missing, or holds no folder of a class.
    """
    if not place.is_dir():
        raise InputError(f"there is no folder {place}; give one that holds a folder for each class")
    folders = {name: place / name for name in SPLITS if (place / name).is_dir()} or {"all": place}
    problems: list[str] = []
    splits = {split: _classes(folder, problems) for split, folder in folders.items()}
    if not any(splits.values()):
        raise InputError(f"{place} holds no folder of a class; put the images of each class into one")
    for split, classes in splits.items():
        problems += [
            f"{folders[split] / name} holds no image" for name, files in classes.items() if not files
        ]
        missing = sorted(set().union(*splits.values()) - set(classes))
        if missing:
            problems.append(
                f"{folders[split]} lacks the classes {', '.join(missing)}, which another split has"
            )
    return splits, problems


def as_pictures(place: Path, classes: Classes) -> FilePictures:
    """The files of one split, labelled by the order of the classes' names."""
    names = [str(file.relative_to(place)) for files in classes.values() for file in files]
    counts = torch.tensor([len(files) for files in classes.values()], dtype=torch.int64)
    labels = torch.repeat_interleave(torch.arange(len(classes)), counts)
    return FilePictures(place, names, labels)


def _classes(folder: Path, problems: list[str]) -> Classes:
    return {
        entry.name: _files(entry, problems)
        for entry in sorted(folder.iterdir())
        if entry.is_dir() and not entry.name.startswith(".")
    }


def _files(folder: Path, problems: list[str]) -> list[Path]:
    found = []
    for place, folders, names in os.walk(folder, followlinks=True):
        here = Path(place)
        above = {parent.resolve() for parent in (here, *here.parents)}
        for name in sorted(folders):
            if (here / name).resolve() in above:
                problems.append(f"{here / name} is a link to a folder above it; remove it")
                folders.remove(name)
        folders.sort()
        found += [here / name for name in sorted(names) if not name.startswith(".")]
    return found
