"""A folder with the four idx files of an MNIST-like data set."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from .datasets import LabelledImages, Split, labelled_images, read_idx
from .files import is_hidden, read_bytes

_WORDS = {"train": ("train",), "test": ("t10k", "test")}
CLASS_FILE = "classes.txt"


def is_idx_folder(folder: Path) -> bool:
    """Whether the folder holds files that are named like idx files."""
    return any(_is_idx(file) for file in folder.iterdir())


def idx_files(folder: Path, split: Split) -> tuple[Path, Path]:
    """The file of images and the file of labels of one part of the data.

    Their names are those of MNIST and its successors: `train-images-idx3-ubyte` and
    `train-labels-idx1-ubyte`, with `t10k` or `test` in place of `train` for the test images; a dot may
    come before `idx`, a prefix before all, `.gz` after all. Of a file and its `.gz`, the first is read.

    Raises:
        InputError: the folder is missing, or a file is missing or there twice.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; give the one that holds the four idx files")
    found: list[Path] = []
    for kind in ("images", "labels"):
        files = {
            file.name.removesuffix(".gz"): file
            for file in sorted(folder.iterdir(), reverse=True)  # so that the plain file comes last, and stays
            if _is_idx(file) and kind in file.name and any(word in file.name for word in _WORDS[split])
        }
        if len(files) != 1:
            names = ", ".join(sorted(files)) or "none"
            raise InputError(
                f"{folder} must hold one idx file of {split} {kind}, such as"
                f" {_WORDS[split][0]}-{kind}-idx{3 if kind == 'images' else 1}-ubyte.gz; found: {names}"
            )
        found += files.values()
    return found[0], found[1]


def idx_class_names(folder: Path) -> tuple[str, ...]:
    """What the labels stand for: the lines of `classes.txt`, else the numbers up to the largest label.

    Raises:
        InputError: a file is missing, or is no idx file of labels.
    """
    listed = folder / CLASS_FILE
    if listed.is_file():
        return read_lines(listed)
    labels = read_idx(idx_files(folder, "train")[1])
    if labels.size == 0:
        raise InputError(f"{folder} has no training images; download the files again")
    return tuple(map(str, range(int(labels.max()) + 1)))


def read_lines(file: Path) -> tuple[str, ...]:
    """The lines of a text file that are not empty.

    Raises:
        AccessError: it cannot be read.
        InputError: it is not in UTF-8, or has no line.
    """
    try:
        lines = read_bytes(file).decode("utf-8-sig").splitlines()  # editors may put a mark before the text
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 ({error.reason}); save it as UTF-8") from error
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise InputError(f"{file} names no class; write one name per line")
    return names


def load_idx(folder: Path, split: Split, class_names: tuple[str, ...]) -> LabelledImages:
    """The images and labels of one part of the data.

    Args:
        folder: holds the four files.
        split: `train` or `test`.
        class_names: one for each label.

    Returns:
        Images uint8 `[N, 1, H, W]` and labels int64 `[N]`.

    Raises:
        InputError: a file is missing or no complete idx file, images and labels do not belong together,
            or a label has no class.
    """
    images, labels = map(read_idx, idx_files(folder, split))
    return labelled_images(images, labels, len(class_names), f"{folder} ({split})")


def _is_idx(file: Path) -> bool:
    is_named = "idx1" in file.name or "idx3" in file.name
    return is_named and not is_hidden(file.name) and file.is_file()
