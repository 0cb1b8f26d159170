"""Two ways to run the blocks of a network that trade one resource for another; the numbers stay the same."""

from __future__ import annotations

from torch import nn

from .compiled import vector_width
from .mixing import MixerBlock
from .network import Stage


def checkpoint_activations(model: nn.Module, enabled: bool = True) -> None:
    """Keep only the inputs of each mixer block for the backward pass, and compute the rest again there.

    Training then takes about a third more time, and memory for one block in place of all: for large images.

    Args:
        model: a network with `Stage`s; changed in place.
        enabled: False switches it off again.

    >>> from snnmlp_edu.registry import create_model
    >>> model = create_model("mlp_spe_nano")
    >>> checkpoint_activations(model)
    """
    for module in model.modules():
        if isinstance(module, Stage):
            module.recompute = enabled


def compile_blocks(model: nn.Module) -> None:
    """Let torch.compile see each mixer block as a whole.

    No default: the first training step then compiles every kind of block and shape, which takes minutes on
    two cores, and what is gained depends on the machine. Measure it on yours.

    Args:
        model: a network with mixer blocks; changed in place.
    """
    for module in model.modules():
        if isinstance(module, MixerBlock):
            module.compile(options=vector_width())
