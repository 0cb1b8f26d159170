r"""The event-driven form of each layer of a folded network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...errors import InputError
from ...model.firing import has_hooks
from ...model.linear import AxisLinear
from ...model.neurons import LIF
from ...model.synapses import Synapse
from ..folding.layers import SteppedLinear
from .layers import EventConv2d, EventLinear, EventMap

if TYPE_CHECKING:
    from .one_pass import Fired


class EventSynapse(Synapse):
    """A folded synapse on events; it finds, adds and fires in one pass where a compiled loop may.

    Where it may not (`runs_compiled`), where the neurons are of another kind than `LIF` or have a backend
    by name, and where hooks watch, the map and the neurons run one after the other, with the same spikes.

    Args:
        linear: the event-driven map.
        neuron: the neuron of the synapse.
    """

    linear: EventLinear  # type: ignore[assignment]

    def __init__(self, linear: EventLinear, neuron: nn.Module) -> None:
        nn.Module.__init__(self)
        self.linear = linear
        self.norm = nn.Identity()
        self.neuron = neuron

    def forward(
        self, *spikes: Tensor, shortcut: Tensor | None = None, keep_current: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Spikes of the neuron, and the current that it fires on, as `Synapse` has them."""
        fired = self._fire(spikes, shortcut, keep_current)
        if fired is None:
            return super().forward(*spikes, shortcut=shortcut, keep_current=keep_current)
        return fired.spikes, fired.current

    def _fire(self, spikes: tuple[Tensor, ...], shortcut: Tensor | None, keep: bool) -> Fired | None:
        neuron = self.neuron
        if type(neuron) is not LIF or has_hooks(self.linear, neuron):
            return None
        usual = neuron.config.input_gain == 1 and neuron.config.backend == "auto"
        return self.linear.fire(neuron.config, spikes, shortcut, keep) if usual else None


FOLDED = (Synapse, SteppedLinear, AxisLinear, nn.Linear, nn.Conv2d)


def event_form(layer: nn.Module, path: str, operations: dict[str, int]) -> EventMap | EventSynapse:
    """The event-driven form of a folded layer, one of `FOLDED`.

    Args:
        layer: the layer.
        path: what it is called in errors and in `operations`; the map of a synapse is `linear` below it.
        operations: where it writes how many weights it added.

    Raises:
        InputError: its exact class is none of `FOLDED`, or its synapse normalises.
    """
    if type(layer) is Synapse:
        if type(layer.norm) is not nn.Identity:
            raise InputError(
                f"{path}.norm is a {type(layer.norm).__name__}; events need a folded synapse, without one"
            )
        linear = event_form(layer.linear, f"{path}.linear", operations)
        if not isinstance(linear, EventLinear):
            raise _without_events(f"{path}.linear", layer.linear)
        return EventSynapse(linear, layer.neuron).eval()
    form = _event_map(path, layer).eval()
    form.path, form.operations = path, operations
    return form


def _event_map(path: str, layer: nn.Module) -> EventMap:
    if type(layer) not in FOLDED:
        raise _without_events(path, layer)
    match layer:
        case SteppedLinear():
            weights = [step.get_parameter("weight") for step in layer.steps]
            biases = [step.get_parameter("bias") for step in layer.steps]
            return EventLinear(layer.axis, torch.stack((*weights,)), torch.stack((*biases,)))
        case nn.Conv2d():
            return EventConv2d(layer)
        case AxisLinear():
            return EventLinear(layer.axis, layer.weight.unsqueeze(0), _bias(layer).unsqueeze(0))
        case nn.Linear():
            return EventLinear("channel", layer.weight.unsqueeze(0), _bias(layer).unsqueeze(0))
        case _:
            raise _without_events(path, layer)


def _bias(layer: nn.Linear) -> Tensor:
    bias = layer.bias
    return bias if isinstance(bias, Tensor) else layer.weight.new_zeros(layer.out_features)


def _without_events(path: str, layer: nn.Module) -> InputError:
    return InputError(
        f"{path or 'the network'} is a {type(layer).__name__}, which has no event-driven form; extend"
        " snnmlp_edu/mfi/events/forms.py"
    )
