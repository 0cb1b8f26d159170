"""Counting: one run of the network, with a hook on every layer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..inputs import check_network_input
from ..mfi.auditing.origins import is_recording
from ..mfi.events.layers import EventMap
from ..mfi.known import refuse_infinite, refuse_unknown
from ..model.holding import in_this_thread
from ..model.mixing import MixerBlock, wiring_of
from ..model.network import SpikingNetwork
from ..model.recording import uncompiled
from .results import Cost
from .tally import KNOWN, Tally


def count_operations(
    model: nn.Module,
    images: Tensor,
    *,
    mac_joules: float = 4.6e-12,
    accumulate_joules: float = 0.9e-12,
) -> Cost:
    r"""Count every operation that a network needs for these images, and price it.

    .. math::
        E = E_{mac}\, (N_{stem} + \dots) + E_{acc}\, (N_{synaptic} + N_{head} + N_{skip})

    The dots are zero in a spiking network that folds. In a ReLU twin they are all maps; in a network with
    normalisations that cannot fold, these. A map that gets other values than 0 and 1, as with the shortcut
    `spike`, multiplies too. The head of a spiking network adds weights for each spike, as folding leaves it.
    The head of a ReLU twin sums the grid up and then multiplies once for each channel: cheaper there.
    A recording, `[T, B, channels, H, W]` of nothing but 0 and 1, is spikes already: its stem adds as well.

    Args:
        model: a network of this package in evaluation mode, folded or not. What a spiking network costs
            depends on its weights: an untrained one is silent (`snnmlp_edu.mfi.calibrate` makes it fire).
        images: `[B, channels, H, W]`, or with time `[T, B, channels, H, W]`.
        mac_joules: energy of a multiply-accumulate operation; by default of 32 bit floats at 45 nm.
        accumulate_joules: energy of an addition, likewise.

    Returns:
        The cost of one image, the mean over all that were given.

    Raises:
        InputError: the network is none of this package, has a layer whose exact class is not known, runs on
            events, is in training mode or has weights that are not finite; or there are no images, or images
            that are not finite or of another size.

    Source: M. Horowitz, ISSCC 2014, doi 10.1109/ISSCC.2014.6757323, for the two energies.

    >>> from snnmlp_edu import load_pretrained
    >>> cost = count_operations(load_pretrained("mlp_spe_nano"), torch.rand(2, 1, 32, 32))
    >>> cost.stem_macs, cost.skip_additions
    (12288, 56832)
    >>> 0 < cost.synaptic_operations < cost.dense_macs
    True
    """
    network = _checked(model, images)
    tally = Tally(network, images=images.shape[-4], recording=is_recording(images))
    with torch.no_grad(), uncompiled(network), ExitStack() as hooks:
        for path, module in network.named_modules():
            see = tally.observer(path, module)
            if see is not None:
                hooks.callback(module.register_forward_hook(in_this_thread(_hook(see, path))).remove)
        network(images)
    return tally.cost(mac_joules, accumulate_joules)


def relu_twin(model: nn.Module) -> SpikingNetwork:
    """The non-spiking network of the same shape, with fresh weights: ReLU for each LIF, and one step.

    Raises:
        InputError: the network is none of this package.

    >>> from snnmlp_edu import create_model
    >>> relu_twin(create_model("mlp_spe_nano")).config.time_steps
    1
    """
    network = _ours(model)
    build: Any = type(network)
    twin: SpikingNetwork = build(network.config.replace(activation="relu", time_steps=1))
    return twin.eval()


def _hook(see: Callable[..., None], path: str) -> Callable[..., None]:
    return lambda module, inputs, output: see(path, module, inputs, output)


def _ours(model: nn.Module) -> SpikingNetwork:
    if not isinstance(model, SpikingNetwork):
        raise InputError(
            "operations are counted in networks of this package, such as a SpikingMLP, and this is a"
            f" {type(model).__name__}; build one with create_model"
        )
    return model


def _checked(model: nn.Module, images: Tensor) -> SpikingNetwork:
    network = _ours(model)
    if any(module.training for module in network.modules()):
        raise InputError("the network is in training mode; call model.eval() before counting")
    if any(isinstance(module, EventMap) for module in network.modules()):
        raise InputError(
            "the network runs on events and keeps a count of its own, synaptic_operations; count the folded"
            " network that event_driven was given"
        )
    blocks = {type(module) for module in network.modules() if isinstance(module, MixerBlock)}
    for block in blocks:
        if wiring_of(block) is None:
            raise InputError(
                f"{block.__name__} does not state how many additions its shortcut makes; give the class"
                " `wiring = Wiring(...)` (snnmlp_edu.model.mixing)"
            )
    refuse_unknown(network, KNOWN | blocks, "count_operations", "snnmlp_edu/cost/tally.py")
    refuse_infinite(network)
    check_network_input(images, network)
    if images.ndim not in (4, 5):
        raise InputError(
            f"images have shape {tuple(images.shape)}; give at least one, as [B, channels, H, W] or with time"
            " as [T, B, channels, H, W]"
        )
    return network
