r"""Run a folded network on its events alone.

Every linear map and convolution after the stem is replaced by one that finds which spikes occurred and adds
the weight rows that they select: no product is formed, and the time it takes follows the number of
spikes, not the size of the map.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ...errors import InputError
from ...fields import checked
from ...model.patches import Stem
from ...model.synapses import Synapse
from ...timing import race
from ..folding.fold import NORMS
from .forms import FOLDED, EventSynapse, event_form
from .integer import to_integers
from .layers import EventMap
from .tables import is_watched

Mode = Literal["events", "auto", "dense"]
Weights = Literal["float", "int8"]

# A map runs on events where that was faster by at least this much, since no timing is exact.
MARGIN = 0.9
REPETITIONS = 5
_choosing = threading.RLock()  # two threads that chose each for itself might leave no form


class Choice(NamedTuple):
    """How a map runs, and why: the firing rate that it met, and what both ways took, in milliseconds."""

    mode: str
    rate: float
    events_ms: float
    dense_ms: float


def event_driven(
    folded: nn.Module, mode: Mode = "events", images: Tensor | None = None, weights: Weights = "float"
) -> Any:
    r"""A network that computes the same from spike events, by gathering and adding weight rows.

    .. math::
        y_q = b_q + \sum_{p:\, s_p = 1} W'_{qp}

    Module paths stay, so that `record` names the same neurons, and so do the neurons themselves. The stem
    stays dense: it takes pixels. The result holds, by path of each map that runs on events:

    - `synaptic_operations`, a dict: how many weights its last run added, all steps and images together,
      counted from the rows that it gathered: for each spike as many as it has targets, at the border of a
      convolution fewer. Biases are not among them.
    - `choices`, a dict (mode `auto`): which way each map took, the firing rate that it met, and the times.
    - `scales`, a dict (weights `int8`): what one unit of a group of membranes stands for, by path
      (`snnmlp_edu.mfi.events.integer`); that of `head` is the unit of the logits, which are whole numbers.

    Args:
        folded: what `fold_batch_norm` returned; it stays as it is.
        mode: `events` for all maps; `dense` for none; `auto` times both for each map, on the first images
            that it runs or on those given here, and keeps the faster.
        images: for `auto`, what to decide on, as the network takes them.
        weights: `float` as folded; `int8` for weights of 8 bits, and currents, membranes and logits in exact
            whole numbers.

    Raises:
        InputError: the network is not folded, is in training mode, has no spikes or runs on events already;
            or, when it runs, a map meets a value that is neither 0 nor 1.

    >>> from snnmlp_edu import load_pretrained
    >>> from snnmlp_edu.mfi import fold_batch_norm
    >>> folded = fold_batch_norm(load_pretrained("mlp_spe_nano"))
    >>> images = torch.rand(2, 1, 32, 32)
    >>> fast = event_driven(folded)
    >>> torch.allclose(fast(images), folded(images), atol=1e-3)
    True
    >>> sum(fast.synaptic_operations.values()) > 0
    True
    """
    checked("mode", mode, Mode)
    checked("weights", weights, Weights)
    if weights == "int8" and mode != "events":
        raise InputError(f"weights='int8' run on events alone; use mode='events' with them, not {mode!r}")
    _check(folded)
    network: Any = copy.deepcopy(folded)
    network.synaptic_operations, network.choices = {}, {}
    for path, dense in _maps(network) if mode != "dense" else ():
        events = event_form(dense, path, network.synaptic_operations)
        network.set_submodule(path, events if mode == "events" else Faster(dense, events, network.choices))
    if weights == "int8":
        network.scales = to_integers(network)
    if mode == "auto" and images is not None:
        with torch.no_grad():
            network(images)
    return network


class Faster(Synapse):
    """Two forms of one map, or of a synapse; the first run times both, and the slower goes."""

    def __init__(self, dense: nn.Module, events: EventMap | EventSynapse, choices: dict[str, Choice]) -> None:
        nn.Module.__init__(self)
        if isinstance(dense, Synapse):
            self.neuron = dense.neuron  # both forms' own; named here first, so that its path stays
        self.dense: Any = dense
        self.events: Any = events
        self.choices = choices
        self.eval()

    def forward(self, *spikes: Tensor, **more: Any) -> Any:
        """What the form returns that is faster for such spikes."""
        return self._run(lambda form: form(*spikes, **more), spikes)

    def current(self, *spikes: Tensor) -> Tensor:
        """The current alone, likewise."""
        current: Tensor = self._run(lambda form: form.current(*spikes), spikes)
        return current

    def _run(self, run: Callable[[Any], Any], spikes: tuple[Tensor, ...]) -> Any:
        if self.dense is not None and self.events is not None and not is_watched():
            with _choosing:
                self._choose(run, spikes)
        return run(self.events or self.dense)

    def _choose(self, run: Callable[[Any], Any], spikes: tuple[Tensor, ...]) -> None:
        if self.dense is None or self.events is None:
            return  # another thread has chosen meanwhile
        forms = {"events": partial(run, self.events), "dense": partial(run, self.dense)}
        times = race("both forms", forms, REPETITIONS, warm_up=1, settle=False).milliseconds
        rate = sum(float(part.mean()) for part in spikes) / len(spikes)
        map_ = self.events.linear if isinstance(self.events, EventSynapse) else self.events
        mode = "events" if times["events"] < MARGIN * times["dense"] else "dense"
        self.choices[map_.path] = Choice(mode, rate, times["events"], times["dense"])
        if mode == "events":
            self.dense = None
        else:
            self.events = None
            map_.operations.pop(map_.path, None)


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
    for path, module in network.named_modules():
        where = path or type(network).__name__
        if module.training:
            raise InputError(f"{where} is in training mode; call eval() and fold_batch_norm first")
        if isinstance(module, NORMS):
            raise InputError(
                f"{where} normalises real values, which events cannot represent: fold the network first, by"
                " snnmlp_edu.mfi.fold_batch_norm"
            )
        if isinstance(module, EventMap | Faster):
            raise InputError(f"{where} runs on events already; give the folded network that it was made from")
        if isinstance(module, nn.ReLU):
            raise InputError(f"{where} is a ReLU and sends no spikes; events need LIF neurons")
    if not _maps(network):
        raise InputError(
            f"{type(network).__name__} has no linear map or convolution after its stem to run on events"
        )
