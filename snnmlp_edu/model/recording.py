"""Look inside a network while it runs: spikes, firing rates and membranes by module path."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..inputs import check_network_input
from .holding import holding, in_this_thread
from .neurons import LIF


class Traces(dict[str, Tensor]):
    """What `record` saw: module path -> spikes `[T, B, H, W, C]`, in the order in which they fired.

    `membranes` maps the same paths to membrane potentials before the reset; it is empty unless asked for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.membranes: dict[str, Tensor] = {}

    def firing_rates(self) -> dict[str, float]:
        """Mean spikes per neuron and step, by module path."""
        return {path: spikes.mean().item() for path, spikes in self.items()}


def evaluating(model: nn.Module) -> AbstractContextManager[None]:
    """Evaluation mode inside, and every module in its own mode again afterwards."""
    return holding((module, "training", False) for module in model.modules())


def uncompiled(model: nn.Module) -> AbstractContextManager[None]:
    """Inside, modules that were compiled run as they are written: compiled code does not see a new hook."""
    compiled = (module for module in model.modules() if module._compiled_call_impl is not None)
    return holding((module, "_compiled_call_impl", None) for module in compiled)


def record(model: nn.Module, images: Tensor, membranes: bool = False) -> Traces:
    """Run a network once and keep the output of every neuron layer.

    The network runs in evaluation mode and without gradients; its own mode, weights and statistics are
    as before afterwards. In a ReLU twin the activations are kept. Several threads may record one network.

    Args:
        model: any module that holds `LIF` (or `ReLU`) layers.
        images: what to call it with, `[B, channels, H, W]`.
        membranes: whether to keep membrane potentials too, computed again from each layer's current.

    Returns:
        Module path -> spikes `[T, B, H, W, C]`; `.membranes` likewise.

    Raises:
        InputError: the model is no module; there are no images, they are not finite, or of another shape or
            type than the network takes.

    >>> from snnmlp_edu.registry import create_model
    >>> traces = record(create_model("mlp_spe_nano"), torch.rand(2, 1, 32, 32))
    >>> traces["stages.0.neuron"].shape
    torch.Size([4, 2, 16, 16, 12])
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"record got a {type(model).__name__} as its model; give a network, an nn.Module")
    check_network_input(images, model)
    traces = Traces()
    with ExitStack() as stack:
        stack.enter_context(evaluating(model))
        stack.enter_context(torch.no_grad())
        stack.enter_context(uncompiled(model))
        for path, module in model.named_modules():
            if isinstance(module, LIF | nn.ReLU):

                def keep(layer: nn.Module, inputs: tuple[Tensor], spikes: Tensor, path: str = path) -> None:
                    traces[path] = spikes
                    if membranes and isinstance(layer, LIF):
                        traces.membranes[path] = layer.trace(inputs[0]).membrane

                stack.callback(module.register_forward_hook(in_this_thread(keep)).remove)
        model(images)
    return traces
