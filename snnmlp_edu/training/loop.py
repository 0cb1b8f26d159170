r"""The training loop, from the first batch to the last epoch.

It is meant to be read from top to bottom. Lightning Fabric knows devices, precision and processes; the loop
is here. All that the next step depends on is in one `TrainingState`, which is saved and loaded. Nothing
else has to be: what a step draws at random follows from the recipe's seed, the epoch, the batch and the
process, so a run that was killed continues bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn import functional

from .batches import TrainingData
from .diagnosis import require_finite_loss
from .epochs import EpochKeeper
from .saving import StateSaver
from .state import Tally, TrainingState


def train(
    fabric: Fabric,
    network: Any,
    optimizer: Any,
    state: TrainingState,
    data: TrainingData,
    keeper: EpochKeeper,
    saver: StateSaver,
) -> None:
    """Train until the schedule ends, and keep the epoch that validates best.

    Args:
        fabric: device, precision and processes.
        network: the state's model as Fabric wraps it, so that processes average their gradients.
        optimizer: the state's, likewise.
        state: of the training; new, or loaded.
        data: batches of training and validation images.
        keeper: writes down every epoch, and the weights of the best one.
        saver: writes the state now and then, and ends the run when it is told to stop.

    Raises:
        Diverged: a loss or a weight is NaN or infinite.
        InputError: a file cannot be written.
        Preempted: the run was told to stop; its state is saved.
    """
    recipe = state.schedule.recipe
    saver.save_first(state)  # a folder that cannot be written is noticed before the first step
    keeper.begin(state)
    for epoch in state.remaining_epochs():
        keeper.begin_epoch(state)
        for images, labels in data.training_batches(epoch, state.batch, state.batches_this_epoch):
            state.model.train()
            with fabric.no_backward_sync(network, enabled=not state.batch_completes_step):
                loss = loss_of(network, images, labels, state)
                fabric.backward(loss / recipe.accumulate)
            state.batch += 1
            if state.step_is_complete:
                update_weights(fabric, network, optimizer, state)
            keeper.end_batch(state, loss)
            saver.save_if_due(state)
        validation = validate(fabric, state, data, saver)
        keeper.keep(state, validation)
        state.end_epoch()
        saver.save(state)


def loss_of(network: Any, images: Tensor, labels: Tensor, state: TrainingState) -> Tensor:
    """The recipe's loss of one batch; what was hit and missed is counted in the state.

    Args:
        network: whose `forward_steps` gives logits `[T, B, classes]`.
        images: network input `[B, C, H, W]`.
        labels: int64 `[B]`, or each image's share of every class, `[B, classes]`.
        state: the loss, and how often images are presented in this epoch.

    Raises:
        Diverged: the loss of any process is NaN or infinite.
    """
    with presentation(state):
        steps = network.forward_steps(images)
        steps = steps if steps.dtype == torch.float64 else steps.float()  # [T, B, classes]
        loss = state.loss(steps, labels)
        require_finite_loss(loss, state.model, images, state.step)
    state.tally.add(loss, state.model.head.combine(steps), labels)
    return loss


@contextmanager
def presentation(state: TrainingState) -> Iterator[None]:
    """How often an image is presented in this epoch: as the network says, or fewer times in early epochs."""
    recipe = state.schedule.recipe
    early = state.epoch < recipe.early_epochs
    with state.model.presenting(recipe.early_time_steps) if early else nullcontext():
        yield


def update_weights(fabric: Fabric, network: Any, optimizer: Any, state: TrainingState) -> None:
    """One step of the optimiser and of its schedule; the average of the weights, if there is one, follows."""
    clip = state.schedule.recipe.gradient_clip
    if clip is not None:
        fabric.clip_gradients(network, optimizer, max_norm=clip, error_if_nonfinite=False)
    state.learning_rate = state.optimizer.param_groups[0]["lr"]
    optimizer.step()
    optimizer.zero_grad()
    state.learning_rate_schedule.step()
    if state.average is not None:
        state.average.update_parameters(state.model)


@torch.no_grad()
def validate(fabric: Fabric, state: TrainingState, data: TrainingData, saver: StateSaver) -> Tally:
    """Loss and hits on the validation images, which only select the best epoch."""
    tally = Tally()
    state.evaluated.eval()
    for images, labels in data.validation_batches():
        saver.stop_if_told(state)  # a long validation does not make SIGTERM wait; it is repeated
        logits = evaluated_logits(fabric, images, state)
        tally.add(functional.cross_entropy(logits, labels), logits, labels)
    return tally


def evaluated_logits(fabric: Fabric, images: Tensor, state: TrainingState) -> Tensor:
    """Logits `[B, classes]` of the network that is validated, in the precision of the training."""
    with fabric.autocast():
        return state.evaluated(images)
