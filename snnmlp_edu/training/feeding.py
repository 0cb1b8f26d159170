"""From a data set and a recipe to the batches of a training."""

from __future__ import annotations

import dataclasses

from ..config import NetworkConfig
from ..data.batches import PictureBatches, in_order, sound
from ..data.datasets import train_validation_split
from ..data.picture_sets import MemoryPictures, PictureSet, evenly_spaced
from ..data.pictures import MODES
from ..data.sources import ImageSource, open_source
from ..data.transforms import Preprocessing
from ..errors import InputError
from .data_module import DataModule, ImageDataModule, PictureDataModule
from .recipe import Recipe

# What torchvision, timm and most trained networks normalise ImageNet by.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
EVALUATION_RESIZE = 256 / 224  # of the network's input, as the released evaluation has it
MEASURED = 1000


def open_recipe_source(recipe: Recipe) -> ImageSource:
    """The data set that a recipe names.

    Raises:
        InputError: as `open_source`.
    """
    return open_source(
        recipe.dataset, recipe.data_dir, recipe.data_md5, recipe.loading.verify, recipe.skip_corrupt
    )


def feed(source: ImageSource, recipe: Recipe, config: NetworkConfig, announce: bool = False) -> DataModule:
    """The training and validation batches of a recipe.

    Validation images are split off the training images. The test images of a data set in files are checked
    too, so that none stops the run at its end; nothing else is done with them here.

    Args:
        source: of the images.
        recipe: how to train.
        config: of the network.
        announce: print which images are left out.

    Raises:
        InputError: images are damaged, too few, or do not fit the network.
    """
    left_out = source.left_out(announce)
    if left_out and announce:
        print("\n".join(["left out:", *left_out, f"{len(left_out)} images left out"]))
    everything = source.pictures("train")
    split = train_validation_split(everything.labels, recipe.validation_fraction, recipe.seed)
    train, validation = (everything.subset(part) for part in split)
    preprocessing = make_preprocessing(source.name, train, recipe, config)
    if recipe.augmentation.one_by_one or not isinstance(train, MemoryPictures):
        return PictureDataModule(train, validation, preprocessing, recipe)
    assert isinstance(validation, MemoryPictures)
    return ImageDataModule(train.as_tensors(), validation.as_tensors(), preprocessing, recipe)


def make_preprocessing(
    dataset: str, train: PictureSet, recipe: Recipe, config: NetworkConfig
) -> Preprocessing:
    """From stored pixels to the network's input, for validation, tests and predictions.

    Pixels are normalised by the mean and standard deviation of the training images: of all that are in
    memory; of `MEASURED` that are spread evenly over the files; of ImageNet by the values that all use.

    Raises:
        InputError: the network takes images of other than one or three channels, or none of the files can
            be read.
    """
    size, channels = config.image_size, config.in_channels
    resize, interpolation = recipe.augmentation.resize, recipe.augmentation.interpolation
    if isinstance(train, MemoryPictures):
        fitted = Preprocessing.fitted_to(train.images, size, channels)
        return dataclasses.replace(fitted, resize=resize, interpolation=interpolation)
    if channels not in MODES:
        raise InputError(f"the network takes {channels} channels and files give 1 or 3; set in_channels=3")
    plain = Preprocessing(
        size, channels, resize=resize or round(EVALUATION_RESIZE * size), interpolation=interpolation
    )
    if dataset == "imagenet" and channels == 3:
        return dataclasses.replace(plain, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    sample = PictureBatches(train.subset(evenly_spaced(len(train.labels), MEASURED)), plain)
    images, _ = sound(sample[in_order(len(sample), MEASURED)[0]])
    measured = Preprocessing.fitted_to(images, size, channels)
    return dataclasses.replace(plain, mean=measured.mean, std=measured.std)
