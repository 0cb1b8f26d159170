r"""The event-driven form of each layer of a folded network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...errors import InputError
from ...model.linear import AxisLinear
from ..folding.layers import SteppedLinear
from .layers import EventConv2d, EventLinear, EventMap

FOLDED = (SteppedLinear, AxisLinear, nn.Linear, nn.Conv2d)


def event_form(layer: nn.Module, path: str, operations: dict[str, int]) -> EventMap:
    """The event-driven form of a folded layer, one of `FOLDED`.

    Args:
        layer: the layer.
        path: what it is called in errors and in `operations`.
        operations: where it writes how many weights it added.

    Raises:
        InputError: its exact class is none of `FOLDED`.
    """
    form = _event_map(path, layer).eval()
    form.path, form.operations = path, operations
    return form


def _event_map(path: str, layer: nn.Module) -> EventMap:
    if type(layer) not in FOLDED:
        raise InputError(
            f"{path or 'the network'} is a {type(layer).__name__}, which has no event-driven form; extend"
            " snnmlp_edu/mfi/events/forms.py"
        )
    match layer:
        case SteppedLinear():
            weights = [step.get_parameter("weight") for step in layer.steps]
            biases = [step.get_parameter("bias") for step in layer.steps]
            return EventLinear(layer.axis, torch.stack((*weights,)), torch.stack((*biases,)))
        case nn.Conv2d():
            return EventConv2d(layer)
        case AxisLinear():
            return EventLinear(layer.axis, layer.weight.unsqueeze(0), _bias(layer).unsqueeze(0))
        case _:
            assert isinstance(layer, nn.Linear)
            return EventLinear("channel", layer.weight.unsqueeze(0), _bias(layer).unsqueeze(0))


def _bias(layer: nn.Linear) -> Tensor:
    bias = layer.bias
    return bias if isinstance(bias, Tensor) else layer.weight.new_zeros(layer.out_features)
