"""Batches for Lightning, in an order that can be taken up again: from memory, or picture by picture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Generator, Tensor, randperm
from torch.utils.data import BatchSampler, DataLoader, Sampler, TensorDataset

from ..checkpoints import hash_tensors
from ..data.augmenting import training_transform
from ..data.batches import Draw, PictureBatches, check_shared_memory, in_order, load_batches, sound
from ..data.datasets import LabelledImages
from ..data.picture_sets import PictureSet, listing_digest
from ..data.settings import cores
from ..data.transforms import Preprocessing, flip_and_shift
from ..errors import InputError
from ..inputs import check_labels, check_pixels
from .evaluation import BATCH_SIZE
from .optimisation import Plan
from .orders import EpochBatches, own_share
from .recipe import Recipe


class ShuffledBatches(Sampler[list[int]]):
    """Indices in batches of one size, each epoch in an order of its own; an incomplete last step is left out.

    The order is drawn when an epoch's iterator is made, and not when it is first used, so that its
    generator does not depend on how far ahead batches are fetched.

    Args:
        count: indices are 0 to `count - 1`.
        batch_size: indices in a batch, over all processes.
        generator: draws the orders.
        skip: batches that the first epoch leaves out, because they were trained on before.
        accumulate: batches that make up one step.
    """

    def __init__(
        self, count: int, batch_size: int, generator: Generator, skip: int = 0, accumulate: int = 1
    ) -> None:
        self.count, self.batch_size, self.generator, self.skip = count, batch_size, generator, skip
        self.accumulate = accumulate
        self.share = (0, 1)
        self.before_epoch = generator.get_state()

    def __len__(self) -> int:
        return self.count // (self.batch_size * self.accumulate) * self.accumulate

    def __iter__(self) -> Iterator[list[int]]:
        self.before_epoch = self.generator.get_state()
        order = randperm(self.count, generator=self.generator)
        batches = order[: len(self) * self.batch_size].view(-1, self.batch_size)
        first, step = self.share
        own = batches[self.skip :, first::step].tolist()
        self.skip = 0
        return iter(own)

    def set_epoch(self, epoch: int) -> None:
        """Each order follows from the one before it, whatever epoch that is."""

    def state(self, trained: int, over: bool) -> dict[str, Any]:
        """Where the order is after so many batches of an epoch, or when it is over."""
        return {
            "order": self.generator.get_state() if over else self.before_epoch,
            "skip": 0 if over else trained,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.generator.set_state(state["order"])
        self.skip = state["skip"]


class DataModule(LightningDataModule):
    """Training and validation batches, stored pixels until they are on the device.

    With several processes, each takes its share of every training batch and of the validation images.

    Args:
        preprocessing: from the stored pixels to the network's input.
        recipe: batch size, augmentation and seed.
        batches: the order of the training images.

    Raises:
        InputError: there are fewer training images than one batch needs.
    """

    def __init__(
        self, preprocessing: Preprocessing, recipe: Recipe, batches: ShuffledBatches | EpochBatches
    ) -> None:
        super().__init__()
        Plan(recipe, batches.count)  # which knows how many images a step needs
        self.preprocessing, self.recipe, self.batches = preprocessing, recipe, batches
        self.augmentation = Generator().manual_seed(recipe.seed)

    @property
    def description(self) -> dict[str, Any]:
        """What a run that goes on must find again, beside the recipe."""
        raise NotImplementedError

    def validation_sample(self, count: int) -> Tensor:
        """The first validation images as network input."""
        raise NotImplementedError

    def check_memory(self, processes: int, cuda: bool) -> None:
        """Make sure that the batches that wait for a training fit into memory.

        Args:
            processes: of the training, on this machine.
            cuda: whether the network runs on a GPU.

        Raises:
            InputError: they do not fit.
        """

    def share_out(self) -> None:
        """Let this process take its share of every batch."""
        if self.trainer is not None:
            self.batches.share = own_share(
                self.recipe.batch_size, self.trainer.global_rank, self.trainer.world_size
            )

    def own_validation(self, count: int) -> range:
        """Which of so many validation images this process looks at.

        Raises:
            InputError: there are fewer than processes.
        """
        rank, processes = (
            (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        )
        if count < processes:
            raise InputError(
                f"there are {count} validation images for {processes} processes; raise validation_fraction"
            )
        return range(rank, count, processes)

    def state_dict(self) -> dict[str, Any]:
        """Where the order and the augmentation are: after an epoch, in its midst, or in its validation."""
        assert self.trainer is not None
        trained = self.trainer.fit_loop.batch_idx + 1
        over = trained == len(self.batches) and not self.trainer.validating
        return {**self.batches.state(trained, over), "augmentation": self.augmentation.get_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.batches.load_state(state_dict)
        self.augmentation.set_state(state_dict["augmentation"])


class ImageDataModule(DataModule):
    """Batches from images that are in memory; pixels are normalised and augmented on the device.

    Args:
        train: images to learn from.
        validation: images that select the best epoch.
        preprocessing: from the stored pixels to the network's input.
        recipe: batch size, augmentation and seed.

    Raises:
        InputError: an image is NaN or infinite or of a shape or range that does not fit, labels are no whole
            numbers, or there are fewer images than one batch needs.
    """

    def __init__(
        self, train: LabelledImages, validation: LabelledImages, preprocessing: Preprocessing, recipe: Recipe
    ) -> None:
        for images, labels in (train, validation):
            check_pixels(images)
            check_labels(labels, len(images))
            preprocessing(images[:1])  # images that do not fit are noticed before anything is trained
        order = Generator().manual_seed(recipe.seed)
        batches = ShuffledBatches(len(train.labels), recipe.batch_size, order, accumulate=recipe.accumulate)
        super().__init__(preprocessing, recipe, batches)
        self.train_images, self.validation_images = train, validation

    @property
    def description(self) -> dict[str, Any]:
        """How many images there are, and a checksum over their pixels and labels."""
        parts = {"train": self.train_images, "validation": self.validation_images}
        return {
            name: {"images": len(part.labels), "sha256": hash_tensors(part._asdict())[:16]}
            for name, part in parts.items()
        }

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches; the last one is left out where it is incomplete."""
        self.share_out()
        return _loader(TensorDataset(*self.train_images), self.batches)

    def val_dataloader(self) -> DataLoader:
        """All validation images in order, shared out among the processes."""
        own = self.own_validation(len(self.validation_images.labels))
        batches = BatchSampler(own, BATCH_SIZE, drop_last=False)
        return _loader(TensorDataset(*self.validation_images), batches)

    def validation_sample(self, count: int) -> Tensor:
        """The first validation images as network input."""
        return self.preprocessing(self.validation_images.images[:count])

    def on_after_batch_transfer(self, batch: list[Tensor], dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """Stored pixels to network input, augmented while training."""
        images, labels = batch
        images = self.preprocessing(images)
        if self.trainer is not None and self.trainer.training:
            max_shift, flip = self.recipe.max_shift, self.recipe.flip
            images = flip_and_shift(images, self.augmentation, max_shift, flip, self.batches.share)
        return images, labels


class PictureDataModule(DataModule):
    """Batches of pictures that loader workers decode, fit and augment; normalised on the device.

    Args:
        train: pictures to learn from.
        validation: pictures that select the best epoch.
        preprocessing: from a picture to the network's input.
        recipe: batch size, augmentation, loading and seed.

    Raises:
        InputError: there are fewer pictures than one batch needs, or the augmentation is not possible.
    """

    def __init__(
        self, train: PictureSet, validation: PictureSet, preprocessing: Preprocessing, recipe: Recipe
    ) -> None:
        count, repeats = len(train.labels), recipe.augmentation.repeats
        batches = EpochBatches(
            count, recipe.batch_size, recipe.seed, repeats, train.shards, recipe.accumulate
        )
        super().__init__(preprocessing, recipe, batches)
        transform = training_transform(recipe.augmentation, preprocessing, recipe.flip, recipe.max_shift)
        self.train_pictures = PictureBatches(train, preprocessing, transform, recipe.seed)
        self.validation_pictures = PictureBatches(validation, preprocessing)

    @property
    def description(self) -> dict[str, Any]:
        """How many pictures there are, and a checksum over their names and labels."""
        parts = {"train": self.train_pictures.pictures, "validation": self.validation_pictures.pictures}
        return {
            name: {"images": len(part.labels), "listing": listing_digest(part)}
            for name, part in parts.items()
        }

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches; the last one is left out where it is incomplete."""
        self.share_out()
        return load_batches(self.train_pictures, self.batches, self._loading(), keep_workers=True)

    def val_dataloader(self) -> DataLoader:
        """All validation pictures in order, shared out among the processes."""
        own = self.own_validation(len(self.validation_pictures))
        order = [[Draw(0, index) for index in batch] for batch in BatchSampler(own, BATCH_SIZE, False)]
        return load_batches(self.validation_pictures, order, self._loading())

    def validation_sample(self, count: int) -> Tensor:
        """The first validation images as network input."""
        draws = in_order(min(count, len(self.validation_pictures)), count)[0]
        return self.preprocessing.normalise(sound(self.validation_pictures[draws])[0])

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """Fitted pixels to network input."""
        images, labels = sound(batch)
        return self.preprocessing.normalise(images), labels

    def check_memory(self, processes: int, cuda: bool) -> None:
        """Make sure that what the workers keep ready fits into shared memory."""
        loading = self.recipe.loading.on_machine(cores(), cuda, processes)
        for batches, size in (
            (self.train_pictures, self.recipe.batch_size // processes),
            (self.validation_pictures, min(BATCH_SIZE, len(self.validation_pictures))),
        ):
            check_shared_memory(size * batches.image_bytes, loading, processes)

    def _loading(self) -> Any:
        trainer = self.trainer
        cuda = torch.cuda.is_available() if trainer is None else trainer.strategy.root_device.type == "cuda"
        return self.recipe.loading.on_machine(cores(), cuda, 1 if trainer is None else trainer.num_devices)


def _loader(dataset: TensorDataset, batches: Any) -> DataLoader:
    # A sampler of batches and no batch_size: a batch is one indexing, not one call for every image. Without
    # a generator of its own a loader draws from the shared one each time it is iterated over.
    return DataLoader(dataset, sampler=batches, batch_size=None, generator=Generator())
