"""From a data set and a recipe to the batches of a training: network input on the device, and labels.

What is random in a batch follows from the recipe's seed, the epoch, the batch and the process alone. So it
does not depend on where a run was interrupted, nor on whether images are read from files or kept in memory.
"""

from __future__ import annotations

import dataclasses
import os
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset

from ..checkpoints import hash_tensors
from ..config import NetworkConfig
from ..data.augmenting import training_transform
from ..data.batches import (
    PictureBatches,
    SampleIndex,
    check_shared_memory,
    derive_seed,
    in_order,
    load_batches,
    unwrap,
)
from ..data.datasets import train_validation_split
from ..data.picture_sets import MemoryPictures, PictureSet, evenly_spaced, listing_digest
from ..data.pictures import MODES
from ..data.settings import Loading, cores
from ..data.sources import ImageSource, open_source
from ..data.transforms import Preprocessing, flip_and_shift
from ..data.workers import parallel_map
from ..errors import InputError
from ..inputs import check_labels, check_pixels
from .evaluation import BATCH_SIZE
from .mixing_images import BatchMixing
from .orders import EpochBatches
from .recipe import Recipe
from .schedule import TrainingSchedule

# What torchvision, timm and most trained networks normalise ImageNet by.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
EVALUATION_RESIZE = 256 / 224  # of the network's input, as the released evaluation has it
MEASURED = 1000
KEPT_AT_ONCE = 500


class TrainingData:
    """Training and validation batches. With several processes, each takes its share of every batch.

    Args:
        train: images to learn from.
        validation: images that select the best epoch.
        preprocessing: from the stored pixels to the network's input.
        recipe: batch size, augmentation, loading and seed.
        class_names: what each label stands for.

    Raises:
        InputError: there are fewer training images than one step needs, images or labels are of
            another kind, an image does not fit the network, or the augmentation is not possible.
    """

    def __init__(
        self,
        train: PictureSet,
        validation: PictureSet,
        preprocessing: Preprocessing,
        recipe: Recipe,
        class_names: tuple[str, ...],
    ) -> None:
        for part in (train, validation):
            if isinstance(part, MemoryPictures):
                check_pixels(part.images)
                check_labels(part.labels, len(part.images), len(class_names))
        TrainingSchedule(recipe, len(train.labels))  # which knows how many images a step needs
        self.train, self.validation = train, validation
        self.preprocessing, self.recipe, self.class_names = preprocessing, recipe, class_names
        self.device = torch.device("cpu")
        self.mixing = BatchMixing(recipe, len(class_names))
        self.validation_sample(1)  # images that do not fit are noticed before anything is trained
        transform = None
        if recipe.augmentation.one_by_one:
            transform = training_transform(recipe.augmentation, preprocessing, recipe.flip, recipe.max_shift)
        self._train_pictures = PictureBatches(train, preprocessing, transform, recipe.seed)
        self._order = EpochBatches(
            len(train.labels),
            recipe.batch_size,
            recipe.seed,
            recipe.augmentation.repeats,
            recipe.accumulate,
        )

    @property
    def description(self) -> dict[str, Any]:
        """What a resumed run must find unchanged, besides the recipe."""
        return {"train": describe(self.train), "validation": describe(self.validation)}

    def start(self, device: torch.device, rank: int = 0, world_size: int = 1, local_size: int = 1) -> None:
        """Let this process take its share of every batch and load it to its device.

        Args:
            device: of the network.
            rank: of this process.
            world_size: processes on all machines.
            local_size: processes on this machine, which share its cores and its memory.

        Raises:
            InputError: batches or validation images cannot be split evenly, or an image is damaged.
        """
        self.device = device
        self._order.share_out(rank, world_size)
        count = len(self.validation.labels)
        if count < world_size:
            raise InputError(
                f"there are {count} validation images for {world_size} processes; raise validation_fraction"
            )
        own = [SampleIndex(0, number) for number in range(rank, count, world_size)]
        validation = [own[at : at + BATCH_SIZE] for at in range(0, len(own), BATCH_SIZE)]
        loading = self.recipe.loading.on_machine(cores(), device.type == "cuda", local_size)
        self._train_batches = stored_batches(
            self._train_pictures, self._order, self.recipe.batch_size // world_size, loading, local_size
        )
        pictures = PictureBatches(self.validation, self.preprocessing)
        if not isinstance(self.validation, MemoryPictures):  # test images are read so, after the training
            check_shared_memory(min(BATCH_SIZE, count) * pictures.image_bytes, loading)
        self._validation_batches = stored_batches(
            pictures, validation, min(BATCH_SIZE, len(own)), loading, local_size
        )

    def training_batches(self, epoch: int, first: int, end: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Augmented network input `[B, C, H, W]` and labels, from one batch of an epoch up to another.

        Labels are int64 `[B]` or, of mixed images, each one's share of every class, `[B, classes]`.
        """
        recipe, order = self.recipe, self._order
        order.begin(epoch, first, end)
        for batch, (images, labels) in enumerate(map(unwrap, self._train_batches), first):
            seed = derive_seed(recipe.seed, epoch, batch)
            images, labels = self.preprocessing.normalise(images.to(self.device)), labels.to(self.device)
            if not recipe.augmentation.one_by_one:
                generator = Generator().manual_seed(seed)
                images = flip_and_shift(
                    images, generator, recipe.max_shift, recipe.flip, order.rank, order.world_size
                )
            # Mixing, and layers of a reader's own network, draw from the generators that programs share.
            seed_shared_generators(derive_seed(seed, order.rank))
            yield self.mixing(images, labels)

    def validation_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Network input `[B, C, H, W]` and labels, int64 `[B]`, of this process's validation images."""
        for images, labels in map(unwrap, self._validation_batches):
            yield self.preprocessing.normalise(images.to(self.device)), labels.to(self.device)

    def validation_sample(self, count: int) -> Tensor:
        """The first validation images as network input."""
        pictures = PictureBatches(self.validation, self.preprocessing)
        count = min(count, len(pictures))
        images, _ = unwrap(pixels_of(pictures)[in_order(count, count)[0]])
        return self.preprocessing.normalise(images.to(self.device))


class KeptImages(Dataset):
    """Images that are kept in memory as bytes; a batch is one indexing.

    Args:
        images: uint8 `[N, C, H, W]`.
        labels: int64 `[N]`.
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __getitem__(self, draws: Sequence[SampleIndex]) -> tuple[Tensor, Tensor]:
        """Images and labels of the draws."""
        numbers = [draw.number for draw in draws]
        return self.images[numbers], self.labels[numbers]


def pixels_of(pictures: PictureBatches) -> PictureBatches | KeptImages:
    """Images in memory that need no fitting, unchanged; else pictures to decode."""
    unfitted = pictures.transform is None and pictures.preprocessing.resize is None
    if unfitted and isinstance(pictures.pictures, MemoryPictures):
        return KeptImages(*pictures.pictures.as_tensors())
    return pictures


def stored_batches(
    pictures: PictureBatches, order: Any, largest_batch: int, loading: Loading, local_size: int = 1
) -> DataLoader:
    """A loader of batches of pixels: from memory, where all fitted images fit into their share of it.

    Args:
        pictures: decoded by loader workers where they are not kept.
        order: the draws of each batch.
        largest_batch: images in it at most.
        loading: with no field left open; its `memory_share` says how much may be kept.
        local_size: processes on this machine that keep the same images.

    Raises:
        InputError: an image that is to be kept is damaged, or shared memory is too small for loader workers.
    """
    images = pixels_of(pictures)
    if isinstance(images, PictureBatches) and images.transform is None:
        size = len(images) * images.channels * images.preprocessing.side**2
        if size * local_size <= loading.memory_share * physical_memory():
            parts = parallel_map(
                images.__getitem__, in_order(len(images), KEPT_AT_ONCE), loading.workers or 0
            )
            pixels, labels = zip(*map(unwrap, parts), strict=True)
            images = KeptImages(torch.cat(pixels), torch.cat(labels))
    if isinstance(images, KeptImages):
        loading = dataclasses.replace(loading, workers=0)
    else:
        check_shared_memory(largest_batch * images.image_bytes, loading, local_size)
    return load_batches(images, order, loading, keep_workers=True)


def physical_memory() -> int:
    """Bytes of memory of this machine; 0 where it is unknown."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError):
        return 0


def seed_shared_generators(seed: int) -> None:
    """Seed the generators that programs share: PyTorch's, NumPy's and Python's."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  (the shared one is what is meant)
    random.seed(seed)


def describe(pictures: PictureSet) -> dict[str, Any]:
    """How many images there are, and a checksum: of pixels and labels, or of file names and labels."""
    count = len(pictures.labels)
    if isinstance(pictures, MemoryPictures):
        return {"images": count, "sha256": hash_tensors(pictures.as_tensors()._asdict())[:16]}
    return {"images": count, "listing": listing_digest(pictures)}


def open_recipe_source(recipe: Recipe) -> ImageSource:
    """The data set that a recipe names.

    Raises:
        InputError: as `open_source`.
    """
    return open_source(
        recipe.dataset, recipe.data_dir, recipe.data_md5, recipe.loading.verify, recipe.skip_corrupt
    )


def make_training_data(
    source: ImageSource, recipe: Recipe, config: NetworkConfig, announce: bool = False
) -> TrainingData:
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
    return TrainingData(train, validation, preprocessing, recipe, source.class_names)


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
    images, _ = unwrap(sample[in_order(len(sample), MEASURED)[0]])
    measured = Preprocessing.fitted_to(images, size, channels)
    return dataclasses.replace(plain, mean=measured.mean, std=measured.std)
