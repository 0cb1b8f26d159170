"""The engine raced against what a user would take instead, on one thread and on two.

Everything in a race is called in turn, each time on other images: a processor learns which branches one
image takes. A race is repeated, and each repetition gives ratios of its own, so that their spread is known.
The engine takes the bytes of images; the others are given images that were preprocessed beforehand.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, pairwise
from typing import Any

import torch
from torch import Tensor

from ..checkpoints import load_checkpoint
from ..config import NetworkConfig
from ..data import Preprocessing, load_embedded
from ..data.photographs import PHOTOGRAPHS, photograph
from ..data.resizing import cover, to_picture, to_pixels
from ..data.settings import cores
from ..engine.program import compile_network
from ..errors import InputError
from ..mfi import calibrate, fold_batch_norm
from ..model.network import SpikingMLP
from ..model.recording import record
from ..registry import get_config
from ..timing import Action, Measurement, Sweep, race
from .onnx_twin import LAYOUTS, OnnxNetwork, check_installed, quantise, write_twin

ENGINE = "engine"
ONE_THREAD = "engine, 1 thread"
DENSE = "spiking, PyTorch fp32"
TWIN = "ReLU twin, PyTorch fp32"
FP32, INT8 = "ReLU twin, ONNX Runtime fp32", "ReLU twin, ONNX Runtime int8"

TRAINED = ("mlp_spe_micro", "mlp_spe_nano")
LARGE = "mlp_spe_t"
BATCHES = (1, 16, 64)
ROUNDS = {1: 60, 16: 24, 64: 12}  # of one repetition on one thread
ROUNDS_AT_REST = 8  # of one on several, where each call is preceded by a rest
REPETITIONS = 5
REST = 0.1  # seconds; ONNX Runtime's threads look out for work for half of it
RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)  # spikes per neuron and step
FOR_RANGES = 256  # training images that show the ranges of activations, for int8
FOR_RATES = 32  # images on which a network is calibrated


@dataclass(frozen=True)
class Networks:
    """One size of network in every form that is raced.

    Args:
        preset: its name.
        folded: the spiking network, folded; it carries its preprocessing.
        twin: the ReLU twin, of one step, likewise.
        program: the spiking network as the engine's program.
        graphs: name -> the twin as a graph of ONNX; none where ONNX Runtime is not installed.
    """

    preset: str
    folded: Any
    twin: Any
    program: Callable[..., Any]
    graphs: Mapping[str, bytes]


@dataclass(frozen=True)
class Contestant:
    """What is raced.

    Args:
        logits: what is called, for a batch of images.
        prepare: makes its images of bytes, before any clock starts.
    """

    logits: Callable[[Tensor], Any]
    prepare: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class EngineRace:
    """A race that was repeated.

    Args:
        preset: of the networks.
        batch: images in each call.
        threads: that each contestant may use.
        repetitions: what each repetition measured.
    """

    preset: str
    batch: int
    threads: int
    repetitions: tuple[Measurement, ...]

    @property
    def task(self) -> str:
        """What was done, in words."""
        return self.repetitions[0].task

    @property
    def measurement(self) -> Measurement:
        """The median of the repetitions."""
        names = self.repetitions[0].milliseconds
        median = {name: statistics.median(m.milliseconds[name] for m in self.repetitions) for name in names}
        return Measurement(self.task, median, ENGINE)

    @property
    def ratios(self) -> dict[str, list[float]]:
        """Contestant -> its time as a multiple of the engine's, in each repetition."""
        names = self.repetitions[0].ratios
        return {name: [m.ratios[name] for m in self.repetitions] for name in names}


@dataclass(frozen=True)
class RateSweep:
    """Untrained networks of one size that fire at several rates.

    Args:
        sweep: times of the engine and the others, over the rate that was measured.
        crossovers: contestant -> the rate at which it is as fast as the engine, or why there is none.
    """

    sweep: Sweep
    crossovers: dict[str, float | str]


@dataclass(frozen=True)
class EngineResults:
    """All that was measured.

    Args:
        accuracy: preset -> contestant -> share of the embedded test images classified correctly.
        races: the races.
        sweeps: over the firing rate.
        notes: what was left out, and why.
    """

    accuracy: dict[str, dict[str, float]]
    races: list[EngineRace]
    sweeps: list[RateSweep]
    notes: list[str]


def graph_names(kind: str) -> tuple[str, ...]:
    """The contestants of one precision, a graph each; the faster one counts.

    >>> graph_names(FP32)[0]
    'ReLU twin, ONNX Runtime fp32, channels first'
    """
    return tuple(f"{kind}, {layout}" for layout in LAYOUTS)


def write_graphs(twin: Any, images: Tensor | None) -> dict[str, bytes]:
    """Contestant -> graph, in both layouts: fp32, and int8 where there are images.

    Args:
        twin: the twin, folded.
        images: bytes, of the kind that it was trained on; None leaves out int8.
    """
    graphs = {name: write_twin(twin, layout) for name, layout in zip(graph_names(FP32), LAYOUTS, strict=True)}
    if images is None:
        return graphs
    ranges = twin.preprocessing(images)
    smaller = [quantise(graph, ranges) for graph in graphs.values()]
    return graphs | dict(zip(graph_names(INT8), smaller, strict=True))


def trained_networks(preset: str, with_graphs: bool = True) -> Networks:
    """A shipped network and its shipped twin."""
    folded = fold_batch_norm(load_checkpoint(preset).model)
    twin = fold_batch_norm(load_checkpoint(f"relu_{preset}").model)
    images = load_embedded("train").images[:FOR_RANGES]
    graphs = write_graphs(twin, images) if with_graphs else {}
    return Networks(preset, folded, twin, compile_network(folded), graphs)


def untrained_networks(
    name: str, config: NetworkConfig, images: Tensor, rate: float, with_graphs: bool = True
) -> Networks:
    """A network that fires at a rate, and its twin, both untrained, for times alone; without int8.

    Args:
        name: what it is called.
        config: sizes and variants.
        images: bytes to calibrate on, of the network's size.
        rate: spikes per neuron and step, in every layer.
        with_graphs: whether the twin runs in ONNX Runtime.
    """
    preprocessing = Preprocessing(config.image_size, config.in_channels)
    folded = calibrated(config, preprocessing, images, rate)
    twin = calibrated(config.replace(activation="relu", time_steps=1), preprocessing, images)
    graphs = write_graphs(twin, None) if with_graphs else {}
    return Networks(name, folded, twin, compile_network(folded), graphs)


def calibrated(
    config: NetworkConfig, preprocessing: Preprocessing, images: Tensor, rate: float | None = None
) -> Any:
    """An untrained network, folded, calibrated on images given as bytes, where it fires at a rate."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = SpikingMLP(config).eval()
    model.preprocessing = preprocessing
    return fold_batch_norm(calibrate(model, preprocessing(images), rate))


def firing_rate(folded: Any, images: Tensor) -> float:
    """Spikes per neuron and step of the whole network, on images given as bytes."""
    traces = record(folded, folded.preprocessing(images))
    return sum(s.sum().item() for s in traces.values()) / sum(s.numel() for s in traces.values())


def contestants(networks: Networks, threads: int) -> dict[str, Contestant]:
    """All that takes part, by name."""
    program, folded, twin = networks.program, networks.folded, networks.twin

    def as_stored(images: Tensor) -> Tensor:
        return images

    found = {ENGINE: Contestant(partial(program, threads=threads), as_stored)}
    if threads > 1:
        found[ONE_THREAD] = Contestant(partial(program, threads=1), as_stored)
    found[DENSE] = Contestant(folded, folded.preprocessing)
    found[TWIN] = Contestant(twin, twin.preprocessing)
    for name, graph in networks.graphs.items():
        found[name] = Contestant(OnnxNetwork(graph, threads), twin.preprocessing)
    return found


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(before)


def race_engine(
    networks: Networks,
    images: Tensor,
    batch: int,
    threads: int,
    rounds: int | None = None,
    repetitions: int = REPETITIONS,
    rest: float = REST,
) -> EngineRace:
    """All forms of one network in turn, again and again, each time on the next images.

    Args:
        networks: what is raced.
        images: bytes `[N, C, h, w]`, at least one batch.
        batch: images in a call.
        threads: that each may use.
        rounds: calls in a repetition of which the median counts; by default as many as the batch allows.
        repetitions: races of which each gives ratios.
        rest: seconds before each call where there are several threads.
    """
    rounds = rounds or (ROUNDS.get(batch, min(ROUNDS.values())) if threads == 1 else ROUNDS_AT_REST)
    batches = [each.contiguous() for each in images.split(batch) if len(each) == batch]
    actions = {
        name: _on_the_next(each.logits, [each.prepare(images) for images in batches])
        for name, each in contestants(networks, threads).items()
    }
    config = networks.folded.config
    task = f"{networks.preset} at {config.image_size} px, batch {batch}, {threads} thread" + "s" * (
        threads > 1
    )
    with _torch_threads(threads):
        measured = [
            race(task, actions, rounds, warm_up=1, rest=rest if threads > 1 else 0)
            for _ in range(repetitions)
        ]
    return EngineRace(networks.preset, batch, threads, tuple(map(_with_the_faster_graphs, measured)))


def _on_the_next(logits: Callable[[Tensor], Any], batches: Sequence[Tensor]) -> Action:
    following = cycle(batches)
    return lambda: logits(next(following))


def _with_the_faster_graphs(measured: Measurement) -> Measurement:
    """The same, and for each precision the time of its faster graph."""
    times = dict(measured.milliseconds)
    for kind in (FP32, INT8):
        both = [times[name] for name in graph_names(kind) if name in times]
        if both:
            times[kind] = min(both)
    return Measurement(measured.task, times, ENGINE)


def accuracy(networks: Networks, images: Tensor, labels: Tensor, batch: int = 50) -> dict[str, float]:
    """Contestant -> share of images, given as bytes, that it classifies correctly."""
    found = {}
    with _torch_threads(1):
        for name, each in contestants(networks, 1).items():
            chosen = [torch.as_tensor(each.logits(each.prepare(b))).argmax(1) for b in images.split(batch)]
            found[name] = (torch.cat(chosen) == labels).double().mean().item()
    return found


def sweep_rates(
    networks: Networks, images: Tensor, rates: Iterable[float] = RATES, batch: int = 16, **how: Any
) -> RateSweep:
    """One thread, over the firing rate: networks of the same size, untrained; the twin stays as it is.

    Args:
        networks: of that size.
        images: bytes.
        rates: spikes per neuron and step wanted in every layer.
        batch: images in a call.
        how: further arguments of `race_engine`.
    """
    reached, measured = [], []
    for rate in rates:
        few, trained = images[:FOR_RATES], networks.folded
        folded = calibrated(trained.config, trained.preprocessing, few, rate)
        firing = replace(networks, folded=folded, program=compile_network(folded))
        reached.append(firing_rate(folded, few))
        measured.append(race_engine(firing, images, batch, 1, **how).measurement)
    task = f"{networks.preset}, not trained, batch {batch}, 1 thread"
    sweep = Sweep(task, "firing rate, spikes per neuron and step", tuple(reached), tuple(measured))
    rivals = [name for name in measured[0].ratios if name not in (*graph_names(FP32), *graph_names(INT8))]
    return RateSweep(sweep, {name: crossover(reached, [m.ratios[name] for m in measured]) for name in rivals})


def crossover(rates: Sequence[float], ratios: Sequence[float]) -> float | str:
    """The rate at which another is as fast as the engine: the first at which its ratio falls to 1.

    Args:
        rates: rising.
        ratios: its time as a multiple of the engine's, at each.

    >>> crossover([0.1, 0.2, 0.3], [2.0, 1.5, 0.5])
    0.25
    >>> crossover([0.1, 0.2], [2.0, 1.5])
    'the engine is faster up to 20%'
    """
    if ratios[0] < 1:
        return f"the engine is slower from {rates[0]:.0%}"
    for (rate, ratio), (next_rate, next_ratio) in pairwise(zip(rates, ratios, strict=True)):
        if next_ratio < 1:
            return rate + (next_rate - rate) * (ratio - 1) / (ratio - next_ratio)
    return f"the engine is faster up to {rates[-1]:.0%}"


def photographs(side: int, channels: int = 3) -> Tensor:
    """The shipped photographs in a size of choice, in grey: bytes `[N, channels, side, side]`."""
    pictures = [to_picture(photograph(name).unsqueeze(0)) for name in PHOTOGRAPHS]
    return torch.stack([to_pixels(cover(p, side, side, "bilinear")) for p in pictures]).repeat(
        1, channels, 1, 1
    )


def race_large(
    rate: float, with_graphs: bool = True, config: NetworkConfig | None = None, **how: Any
) -> EngineRace:
    """A network for large images, untrained, which fires as often as a trained one, one image at a time.

    Args:
        rate: spikes per neuron and step.
        with_graphs: whether the twin runs in ONNX Runtime.
        config: sizes and variants; by default those of `LARGE`.
        how: further arguments of `race_engine`.
    """
    config = config or get_config(LARGE)
    images = photographs(config.image_size, config.in_channels)
    networks = untrained_networks(LARGE, config, images[:2], rate, with_graphs)
    return race_engine(networks, images, batch=1, threads=1, **{"rounds": 3, "repetitions": 3} | how)


def run(quick: bool = False, large: bool = False) -> EngineResults:
    """All races; `quick` leaves out the small network and the sweeps, `large` adds `mlp_spe_t` at 224 px.

    Raises:
        InputError: there is no compiler for the engine.
    """
    notes = []
    try:
        check_installed()
        runtime = True
    except InputError as error:
        notes.append(str(error))
        runtime = False
    threads = (1, 2) if cores() > 1 else (1,)
    test = load_embedded("test")
    networks = [trained_networks(preset, runtime) for preset in (TRAINED[:1] if quick else TRAINED)]
    results = EngineResults({}, [], [], notes)
    for each in networks:
        results.accuracy[each.preset] = accuracy(each, test.images, test.labels)
        results.races.extend(race_engine(each, test.images, b, n) for n in threads for b in BATCHES)
    if not quick:
        results.sweeps.extend(sweep_rates(each, test.images) for each in networks)
    if large:
        rate = firing_rate(networks[0].folded, test.images[:100])
        results.races.append(race_large(rate=rate, with_graphs=runtime))
    return results
