"""What a network begins with where its recipe names a checkpoint."""

from __future__ import annotations

from ..checkpoints import Checkpoint
from ..data.imagenet import same_classes
from ..network import SpikingNetwork
from ..transfer import Transfer, transfer_weights
from .recipe import Recipe


def starting_weights(
    recipe: Recipe, start: Checkpoint, model: SpikingNetwork, class_names: tuple[str, ...]
) -> Transfer:
    """The weights of a checkpoint as a network takes them over, in shuffled order where the recipe says so.

    Args:
        recipe: its `init_shuffled`, and the seed of the order.
        start: the checkpoint that the recipe names.
        model: the network to come; it stays as it is.
        class_names: classes of the images to come; the head is new where they are others.
    """
    transfer = transfer_weights(start.model, model, keep_head=same_classes(start.class_names, class_names))
    return transfer.shuffled(recipe.seed) if recipe.init_shuffled else transfer
