"""CIFAR's binary files from a folder of PNGs, as others distribute the same images."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path

import numpy as np

from ..errors import InputError
from .cifar import CIFAR, PIXELS, SIDE, CifarFormat
from .datasets import Split
from .files import is_hidden
from .pictures import open_picture
from .workers import progress

CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# CIFAR-100's classes by their superclasses. Both are numbered in alphabetical order.
SUPERCLASSES = {
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man-made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non-insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}
SUPERCLASS_OF = {name: number for number, names in enumerate(SUPERCLASSES.values()) for name in names.split()}
NAMES = {"cifar10": CIFAR10_NAMES, "cifar100": tuple(sorted(SUPERCLASS_OF))}
# Published with images that occur more than once (arXiv 1902.00423): in the other one that is a mistake.
WITH_DUPLICATES = ("cifar100",)
NUMBERED = re.compile(r"(?:\d+[ _-])?(.+?)(?:[ _-]\d+)?")


def write_from_images(kind: str, folder: Path, output: Path, announce: bool = False) -> Path:
    """Write the published binary files from PNGs in `folder/train` and `folder/test`.

    An image's class is the name of its folder, at any depth, such as `train/frog/7.png`; or
    its own name without a number, such as `train/7_frog.png`. The records are sorted by the number of their
    class, and within it by their paths, with numbers in these compared as numbers. The published ones have
    another order; once loaded both come in the same. All is written under a temporary name first.

    Args:
        kind: `cifar10` or `cifar100`.
        folder: holds `train/` and `test/`.
        output: folder in which the folder of the files is made, under its published name.
        announce: show how far it is.

    Returns:
        The folder of the files.

    Raises:
        InputError: the files are there already; a class has another number of images than was published; a
            file is no PNG of 32 x 32 pixels in RGB, or of no class; or, in CIFAR-10, an image is there twice.
    """
    form = CIFAR[kind]
    target, partial = output / form.folder, output / f".{form.folder}.partial"
    if target.exists():
        raise InputError(f"{target} is already there; remove it, or choose another folder")
    files = {split: _listed(kind, form, folder / split, split) for split in form.parts}
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        seen: dict[bytes, Path] | None = None if kind in WITH_DUPLICATES else {}
        for split, names in form.parts.items():
            every = progress(files[split], f"reading {split} images", len(files[split]), announce)
            records = np.stack([_record(kind, number, file, seen) for number, file in every])
            for name, part in zip(names, np.split(records, len(names)), strict=True):
                (partial / name).write_bytes(part.tobytes())
        listed = {form.names: NAMES[kind]}
        if kind == "cifar100":
            listed["coarse_label_names.txt"] = tuple(SUPERCLASSES)
        for name, lines in listed.items():
            (partial / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        os.replace(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _listed(kind: str, form: CifarFormat, folder: Path, split: Split) -> list[tuple[int, Path]]:
    """The numbers of the classes with their files, in the order in which they are written."""
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; put the images into {split}/CLASS/")
    classes: dict[str, list[Path]] = {name: [] for name in NAMES[kind]}
    for file in folder.rglob("*"):
        if file.is_dir() or is_hidden(str(file.relative_to(folder))):
            continue
        named = NUMBERED.fullmatch(file.stem)
        name = file.parent.name if file.parent.name in classes or named is None else named[1]
        if name not in classes:
            raise InputError(f"{file} is not of a class of {kind}; put it into {split}/CLASS/, or remove it")
        classes[name].append(file)
    each = form.images[split] // form.classes
    for name, files in classes.items():
        if len(files) != each:
            raise InputError(
                f"{folder} holds {len(files):,} images of {name}, expected {each:,}; add or remove images"
            )
    return [
        (number, file)
        for number, files in enumerate(classes.values())
        for file in sorted(files, key=lambda file: _natural(file.relative_to(folder)))
    ]


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort key of paths, such that `a/10` comes after `a/9`; equal numbers by how they are written."""
    parts = re.split(r"(\d+)", path.as_posix())
    return [(int(part), part) if part.isdecimal() else (-1, part) for part in parts]


def _record(kind: str, number: int, file: Path, seen: dict[bytes, Path] | None) -> np.ndarray:
    with open_picture(file) as picture:
        kinds = picture.format, picture.mode, picture.size
        plain = kinds == ("PNG", "RGB", (SIDE, SIDE)) and picture.tile[0].args == "RGB"  # not 16 bits
        pixels = np.asarray(picture).transpose(2, 0, 1).flatten() if plain else np.empty(0, np.uint8)
    if pixels.size != PIXELS:
        raise InputError(
            f"{file} is {kinds[0]} {kinds[1]} of {kinds[2][0]} x {kinds[2][1]} pixels; give a PNG of"
            f" {SIDE} x {SIDE} in RGB with 8 bits"
        )
    if seen is not None:
        digest = hashlib.sha256(pixels.tobytes()).digest()
        if digest in seen:
            raise InputError(f"{file} holds the same image as {seen[digest]}; {kind} has each one once")
        seen[digest] = file
    labels = [number] if kind == "cifar10" else [SUPERCLASS_OF[NAMES[kind][number]], number]
    return np.concatenate((np.array(labels, np.uint8), pixels))
