"""Batches for Lightning, from images that are in memory, in an order that can be taken up again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lightning.pytorch import LightningDataModule
from torch import Generator, Tensor, randperm
from torch.utils.data import BatchSampler, DataLoader, Sampler, SequentialSampler, TensorDataset

from ..data.datasets import LabelledImages
from ..data.transforms import Preprocessing, check_finite, flip_and_shift
from ..errors import InputError
from .evaluation import BATCH_SIZE
from .recipe import Recipe


class ShuffledBatches(Sampler[list[int]]):
    """Indices in batches of one size, each epoch in an order of its own; an incomplete last step is left out.

    The order is drawn when an epoch's iterator is made, and not when it is first used, so that its
    generator does not depend on how far ahead batches are fetched.

    Args:
        count: indices are 0 to `count - 1`.
        batch_size: indices in a batch.
        generator: draws the orders.
        skip: batches that the first epoch leaves out, because they were trained on before.
        accumulate: batches that make up one step.
    """

    def __init__(
        self, count: int, batch_size: int, generator: Generator, skip: int = 0, accumulate: int = 1
    ) -> None:
        self.count, self.batch_size, self.generator, self.skip = count, batch_size, generator, skip
        self.accumulate = accumulate
        self.before_epoch = generator.get_state()

    def __len__(self) -> int:
        return self.count // (self.batch_size * self.accumulate) * self.accumulate

    def __iter__(self) -> Iterator[list[int]]:
        self.before_epoch = self.generator.get_state()
        order = randperm(self.count, generator=self.generator)
        batches = order[: len(self) * self.batch_size].view(-1, self.batch_size).tolist()[self.skip :]
        self.skip = 0
        return iter(batches)


class ImageDataModule(LightningDataModule):
    """Training and validation batches; pixels are normalised and augmented on the device.

    Args:
        train: images to learn from.
        validation: images that select the best epoch.
        preprocessing: from the stored pixels to the network's input.
        recipe: batch size, augmentation and seed.

    Raises:
        InputError: an image is NaN or infinite or of a shape that does not fit, or there are fewer images
            than one batch needs.
    """

    def __init__(
        self, train: LabelledImages, validation: LabelledImages, preprocessing: Preprocessing, recipe: Recipe
    ) -> None:
        super().__init__()
        for images, _ in (train, validation):
            check_finite(images)
            preprocessing(images[:1])  # images that do not fit are noticed before anything is trained
        if len(train.labels) < recipe.batch_size:
            raise InputError(
                f"batch_size is {recipe.batch_size} and there are {len(train.labels)} training images;"
                " choose a smaller batch_size"
            )
        self.train_images, self.validation_images = train, validation
        self.preprocessing = preprocessing
        self.recipe = recipe
        order = Generator().manual_seed(recipe.seed)
        self.batches = ShuffledBatches(
            len(train.labels), recipe.batch_size, order, accumulate=recipe.accumulate
        )
        self.augmentation = Generator().manual_seed(recipe.seed)

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches; the last one is left out where it is incomplete."""
        return _loader(TensorDataset(*self.train_images), self.batches)

    def val_dataloader(self) -> DataLoader:
        """All validation images in order."""
        dataset = TensorDataset(*self.validation_images)
        return _loader(dataset, BatchSampler(SequentialSampler(dataset), BATCH_SIZE, drop_last=False))

    def state_dict(self) -> dict[str, Any]:
        """Where the order and the augmentation are: after an epoch, in its midst, or in its validation."""
        assert self.trainer is not None
        trained = self.trainer.fit_loop.batch_idx + 1
        over = trained == len(self.batches) and not self.trainer.validating
        return {
            "order": self.batches.generator.get_state() if over else self.batches.before_epoch,
            "skip": 0 if over else trained,
            "augmentation": self.augmentation.get_state(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.batches.generator.set_state(state_dict["order"])
        self.batches.skip = state_dict["skip"]
        self.augmentation.set_state(state_dict["augmentation"])

    def on_after_batch_transfer(self, batch: list[Tensor], dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """Stored pixels to network input, augmented while training."""
        images, labels = batch
        images = self.preprocessing(images)
        if self.trainer is not None and self.trainer.training:
            images = flip_and_shift(images, self.augmentation, self.recipe.max_shift, self.recipe.flip)
        return images, labels


def _loader(dataset: TensorDataset, batches: Sampler[list[int]]) -> DataLoader:
    # A sampler of batches and no batch_size: a batch is one indexing, not one call for every image. Without
    # a generator of its own a loader draws from the shared one each time it is iterated over.
    return DataLoader(dataset, sampler=batches, batch_size=None, generator=Generator())
