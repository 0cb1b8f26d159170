"""Batches for Lightning, from images that are in memory."""

from __future__ import annotations

from lightning.pytorch import LightningDataModule
from torch import Generator, Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler, TensorDataset

from ..data.datasets import LabelledImages
from ..data.transforms import Preprocessing, check_finite, flip_and_shift
from ..errors import InputError
from .evaluation import BATCH_SIZE
from .recipe import Recipe


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
        self.order = Generator().manual_seed(recipe.seed)
        self.augmentation = Generator().manual_seed(recipe.seed)

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches; the last one is left out where it is incomplete."""
        dataset = TensorDataset(*self.train_images)
        shuffled = RandomSampler(dataset, generator=self.order)
        return _loader(dataset, BatchSampler(shuffled, self.recipe.batch_size, drop_last=True))

    def val_dataloader(self) -> DataLoader:
        """All validation images in order."""
        dataset = TensorDataset(*self.validation_images)
        return _loader(dataset, BatchSampler(SequentialSampler(dataset), BATCH_SIZE, drop_last=False))

    def on_after_batch_transfer(self, batch: list[Tensor], dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """Stored pixels to network input, augmented while training."""
        images, labels = batch
        images = self.preprocessing(images)
        if self.trainer is not None and self.trainer.training:
            images = flip_and_shift(images, self.augmentation, self.recipe.max_shift, self.recipe.flip)
        return images, labels


def _loader(dataset: TensorDataset, batches: BatchSampler) -> DataLoader:
    # A sampler of batches and no batch_size: a batch is one indexing, not one call for every image.
    return DataLoader(dataset, sampler=batches, batch_size=None)
