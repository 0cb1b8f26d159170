"""At which firing rate do events stop paying off? Timings of a network, dense and on events, over rates.

The numbers are plain results; figures are made of them elsewhere. Timings are of this machine, with as many
threads as PyTorch uses.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...model.holding import in_this_thread
from ...model.recording import record
from ...timing import race
from ..calibration import calibrate
from ..folding.fold import fold_batch_norm
from .execute import event_driven


class Timing(NamedTuple):
    """What one run took at a firing rate, end to end or in one layer.

    Args:
        path: module path of the layer; empty for the whole network.
        rate: firing rate asked for.
        arrived: what reached the layer, in mean spikes per neuron and step; of all neurons for the network.
        dense_ms: milliseconds of the dense folded form.
        events_ms: milliseconds on events, the search for them included.
        auto_ms: milliseconds where each map runs as is faster; for the network alone.
    """

    path: str
    rate: float
    arrived: float
    dense_ms: float
    events_ms: float
    auto_ms: float | None

    @property
    def speedup(self) -> float:
        """How many runs on events fit into a dense one."""
        return self.dense_ms / self.events_ms


@torch.no_grad()
def crossover(
    model: nn.Module,
    images: Tensor,
    rates: Sequence[float] = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3),
    repetitions: int = 5,
    layers: bool = True,
) -> list[Timing]:
    """Time a network and its layers at several firing rates, dense and on events.

    At each rate every layer's thresholds are calibrated to it (`calibrate`), which unlearns what the network
    had learnt; a trained network is timed as it is by `time_network`.

    Args:
        model: the network, not folded.
        images: what to run, `[B, channels, H, W]`.
        rates: spikes per neuron and step.
        repetitions: runs of which the median counts.
        layers: whether each map and convolution is also timed alone.

    Returns:
        For each rate the whole network first, then its layers in the order in which they run.
    """
    timings = []
    for rate in rates:
        folded = fold_batch_norm(calibrate(model, images, rate=rate))
        timings += time_network(folded, images, rate, repetitions, layers)
    return timings


@torch.no_grad()
def time_network(
    folded: nn.Module,
    images: Tensor,
    rate: float = float("nan"),
    repetitions: int = 5,
    layers: bool = True,
) -> list[Timing]:
    """Time one folded network as it is; `rate` is noted in the results. See `crossover`."""
    fast, auto = event_driven(folded), event_driven(folded, mode="auto", images=images)
    networks = {"dense": folded, "events": fast, "auto": auto}
    times = _race(networks, (images,), repetitions)
    fired = record(folded, images).values()
    arrived = sum(float(spikes.sum()) for spikes in fired) / sum(spikes.numel() for spikes in fired)
    whole = Timing("", rate, arrived, times["dense"], times["events"], times["auto"])
    if not layers:
        return [whole]
    return [whole, *_time_layers(folded, fast, images, rate, repetitions)]


def _time_layers(folded: nn.Module, fast: Any, images: Tensor, rate: float, repetitions: int) -> list[Timing]:
    """Each map alone, on the spikes that reach it in the folded network."""
    reached: dict[str, tuple[Tensor, ...]] = {}
    hooks = []
    for path in fast.synaptic_operations:

        def keep(layer: nn.Module, spikes: tuple[Tensor, ...], path: str = path) -> None:
            reached[path] = spikes

        hooks.append(folded.get_submodule(path).register_forward_pre_hook(in_this_thread(keep)))
    try:
        folded(images)
    finally:
        for hook in hooks:
            hook.remove()
    timings = []
    for path, spikes in reached.items():
        forms = {"dense": folded.get_submodule(path), "events": fast.get_submodule(path)}
        times = _race(forms, spikes, repetitions)
        arrived = sum(float(part.sum()) for part in spikes) / sum(part.numel() for part in spikes)
        timings.append(Timing(path, rate, arrived, times["dense"], times["events"], None))
    return timings


def _race(forms: Mapping[str, nn.Module], inputs: tuple[Tensor, ...], repetitions: int) -> dict[str, float]:
    """Median milliseconds of each form on the same inputs."""
    runs = {name: functools.partial(form, *inputs) for name, form in forms.items()}
    return race("", runs, repetitions, warm_up=1, settle=False).milliseconds
