"""Folders of image files, one folder for each class, as ImageNet has them."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from ..errors import AccessError, InputError
from .files import is_hidden
from .picture_sets import FilePictures

SPLITS = ("train", "val", "test")
Classes = dict[str, list[Path]]


def list_images(root: Path) -> tuple[dict[str, Classes], list[str]]:
    """The files of an image folder by split and class, and what is wrong with the folders themselves.

    `root` holds `train`, `val` or `test`, each with a folder for every class; or the folders of the
    classes themselves, then the one split is called `all`. Files may be in subfolders; hidden ones, and those
    in hidden folders, are left out; see `is_hidden`.

    Returns:
        Split -> class -> files in order; and one line for each class without a file, each class that
        another split lacks, and each link that leads nowhere or back to a folder above it.

    Raises:
        InputError: the folder is missing, or holds no folder of a class.
        AccessError: a folder cannot be read.
    """
    if not root.is_dir():
        raise InputError(f"there is no folder {root}; give one that holds a folder for each class")
    folders = {name: root / name for name in SPLITS if (root / name).is_dir()} or {"all": root}
    problems = [_nowhere(root / name) for name in SPLITS if _leads_nowhere(root / name)]
    splits = {split: _classes(folder, problems) for split, folder in folders.items()}
    if not any(splits.values()):
        raise InputError(f"{root} holds no folder of a class; put the images of each class into one")
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


def as_pictures(root: Path, classes: Classes) -> FilePictures:
    """The files of one split, labelled by the order of the classes' names."""
    names = [str(file.relative_to(root)) for files in classes.values() for file in files]
    counts = torch.tensor([len(files) for files in classes.values()], dtype=torch.int64)
    labels = torch.repeat_interleave(torch.arange(len(classes)), counts)
    return FilePictures(root, names, labels)


def _classes(folder: Path, problems: list[str]) -> Classes:
    try:
        entries = [entry for entry in sorted(folder.iterdir()) if not is_hidden(entry.name)]
    except OSError as error:
        raise AccessError.of(folder, error) from error
    problems += [_nowhere(entry) for entry in entries if _leads_nowhere(entry)]
    return {entry.name: _files(entry, problems) for entry in entries if entry.is_dir()}


def _leads_nowhere(entry: Path) -> bool:
    return entry.is_symlink() and not entry.exists()


def _nowhere(link: Path) -> str:
    return f"{link} is a broken link; fix or remove it"


def _files(folder: Path, problems: list[str]) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise AccessError.of(error.filename or folder, error) from error

    found = []
    for parent_name, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        here = Path(parent_name)
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        above = {parent.resolve() for parent in (here, *here.parents)}
        for name in tuple(folders):
            if (here / name).resolve() in above:
                problems.append(f"{here / name} is a link to a folder above it; remove it")
                folders.remove(name)
        found += [here / name for name in sorted(names) if not is_hidden(name)]
    return found
