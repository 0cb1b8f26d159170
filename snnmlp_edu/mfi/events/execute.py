r"""Run a folded network on its events alone.

Every linear map and convolution after the stem is replaced by one that finds which spikes occurred and adds
the weight rows that they select: no product is formed. This is the readable form, in PyTorch's own
operations, that `audit` can follow value by value; `snnmlp_edu.engine` makes a fast program of it.
"""

from __future__ import annotations

import copy
from typing import Any, Literal

from torch import nn

from ...data import Preprocessing
from ...errors import InputError
from ...fields import checked
from ...model.patches import Stem
from ..folding.fold import NORMS
from .forms import FOLDED, event_form
from .layers import EventMap
from .quantisation import quantise

Weights = Literal["float", "int8"]


def event_driven(
    folded: nn.Module, weights: Weights = "float", preprocessing: Preprocessing | None = None
) -> Any:
    r"""A network that computes the same from spike events, by gathering and adding weight rows.

    .. math::
        y_q = b_q + \sum_{p:\, s_p = 1} W'_{qp}

    Module paths stay, so that `record` names the same neurons. With weights in floating point, the neurons
    stay too, and the stem stays dense: it takes pixels. With `int8` the whole network counts in whole numbers
    (`snnmlp_edu.mfi.events.integer`), from the bytes of the pixels to the logits, and takes images as they
    are stored, uint8 `[B, C, h, w]`, or preprocessed ones.

    The result holds, by path:

    - `synaptic_operations`, a dict: how many weights each map added in its last run, all steps and images
      together, counted from the rows that it gathered: for each spike as many as it has targets, at the
      border of a convolution fewer. Biases are not among them, nor what the stem adds.
    - `scales`, a dict (weights `int8`): what one unit of a group of membranes stands for; that of `head` is
      the unit of the logits, which are whole numbers.

    Args:
        folded: what `fold_batch_norm` returned; it stays as it is.
        weights: `float` as folded, or `int8`.
        preprocessing: for `int8`, how pixels become the network's input. By default that of the checkpoint
            which the network was loaded from, or else p / 255 for pixels p.

    Raises:
        InputError: the network is not folded, is in training mode, has no spikes, runs on events already, or
            (`int8`) has something that whole numbers cannot represent; or, when it runs, a map meets a value
            that is neither 0 nor 1.

    >>> import torch
    >>> from snnmlp_edu import load_pretrained
    >>> from snnmlp_edu.mfi import fold_batch_norm
    >>> folded = fold_batch_norm(load_pretrained("mlp_spe_nano"))
    >>> images = torch.rand(2, 1, 32, 32)
    >>> on_events = event_driven(folded)
    >>> torch.allclose(on_events(images), folded(images), atol=1e-3)
    True
    >>> sum(on_events.synaptic_operations.values()) > 0
    True
    """
    checked("weights", weights, Weights)
    _check(folded)
    network: Any = copy.deepcopy(folded)
    operations: dict[str, int] = {}
    for path, dense in _maps(network):
        form = event_form(dense, path, operations)
        if path:
            network.set_submodule(path, form)
        else:
            network = form  # one layer alone
    network.synaptic_operations = operations
    if weights == "int8":
        network.scales = quantise(network, preprocessing)
    return network


def _maps(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """The maps that take spikes: all but the stem's, by path."""
    maps: list[tuple[str, nn.Module]] = []
    beyond: list[str] = []  # modules inside these are not looked at
    for path, module in network.named_modules():
        if any(path.startswith(f"{outer}.") for outer in beyond):
            continue
        if isinstance(module, Stem):
            beyond.append(path)
        elif isinstance(module, FOLDED):
            beyond.append(path)
            maps.append((path, module))
    return maps


def _check(network: nn.Module) -> None:
    if not isinstance(network, nn.Module):
        raise InputError(
            f"{network!r} is no network; give a folded one, as fold_batch_norm(load_pretrained(NAME)) returns"
        )
    for path, module in network.named_modules():
        where = path or type(network).__name__
        if module.training:
            raise InputError(f"{where} is in training mode; call eval() and fold_batch_norm first")
        if isinstance(module, NORMS):
            raise InputError(
                f"{where} normalises real values, which events cannot represent: fold the network first, by"
                " snnmlp_edu.mfi.fold_batch_norm"
            )
        if isinstance(module, EventMap):
            raise InputError(f"{where} runs on events already; give the folded network that it was made from")
        if isinstance(module, nn.ReLU):
            raise InputError(f"{where} is a ReLU and sends no spikes; events need LIF neurons")
    if not _maps(network):
        raise InputError(
            f"{type(network).__name__} has no linear map or convolution after its stem to run on events"
        )
