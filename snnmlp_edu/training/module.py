"""The training step: loss, optimiser and schedule of a recipe, as a LightningModule."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR

from .diagnosis import Diverged, first_broken_layer
from .recipe import Recipe


@dataclass
class Tally:
    """Sums over the batches of an epoch, so that means are over images."""

    loss_sum: float = 0.0
    correct: int = 0
    seen: int = 0

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Count one batch; `loss` is its mean."""
        self.loss_sum += float(loss.detach()) * len(labels)
        self.correct += int((logits.argmax(1) == labels).sum())
        self.seen += len(labels)

    @property
    def loss(self) -> float:
        """Mean loss of an image."""
        return self.loss_sum / self.seen

    @property
    def accuracy(self) -> float:
        """Part of the images that were classified correctly."""
        return self.correct / self.seen


class TrainingModule(LightningModule):
    """What Lightning needs to train a network by a recipe.

    Args:
        model: takes images `[B, C, H, W]` and returns logits `[B, classes]`.
        recipe: how to train it.
        total_steps: optimiser steps that the schedule spans.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, total_steps: int) -> None:
        super().__init__()
        self.model = model
        self.recipe = recipe
        self.total_steps = total_steps
        self.learning_rate = recipe.learning_rate
        self.train_tally = Tally()
        self.validation_tally = Tally()

    def on_train_epoch_start(self) -> None:
        """Count anew."""
        self.train_tally = Tally()

    def on_validation_epoch_start(self) -> None:
        """Count anew."""
        self.validation_tally = Tally()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy of the logits, which are the mean over T."""
        images, labels = batch
        logits = self.model(images)
        loss = functional.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)
        if not torch.isfinite(loss):
            broken = first_broken_layer(self.model, images) or "the loss itself"
            raise Diverged(f"the loss is {loss.item()} at step {self.global_step}, first broken: {broken}")
        self.learning_rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.train_tally.add(loss, logits, labels)
        self.log("loss", self.train_tally.loss, prog_bar=True, logger=False)
        self.log("accuracy", self.train_tally.accuracy, prog_bar=True, logger=False)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Count loss and hits on images that are not trained on."""
        images, labels = batch
        logits = self.model(images)
        self.validation_tally.add(functional.cross_entropy(logits, labels), logits, labels)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What was counted so far in the epoch goes into the state of the run."""
        checkpoint["counted"] = {
            "learning_rate": self.learning_rate,
            "train": asdict(self.train_tally),
            "validation": asdict(self.validation_tally),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on counting."""
        counted = checkpoint["counted"]
        self.learning_rate = counted["learning_rate"]
        self.train_tally = Tally(**counted["train"])
        self.validation_tally = Tally(**counted["validation"])

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Optimiser and schedule of the recipe, the schedule step by step."""
        optimizer = make_optimizer(self.model, self.recipe)
        schedule = make_schedule(optimizer, self.recipe, self.total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def make_optimizer(model: nn.Module, recipe: Recipe) -> Optimizer:
    """The recipe's optimiser; weight decay acts on matrices and kernels, not on vectors."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        return SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=recipe.momentum > 0)
    return AdamW(groups, lr=recipe.learning_rate)


def make_schedule(optimizer: Optimizer, recipe: Recipe, total_steps: int) -> LRScheduler:
    """The recipe's learning rate over `total_steps` optimiser steps."""
    if recipe.schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=total_steps)
    return OneCycleLR(
        optimizer,
        max_lr=recipe.learning_rate,
        total_steps=total_steps,
        pct_start=recipe.warmup,
        # One-cycle would also move the first moment's decay; a recipe names one momentum.
        cycle_momentum=False,
    )
