"""Positive and negative controls: networks whose fields are known, since they were put there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal, assert_never

import torch
from torch import Tensor

from ..config import NetworkConfig
from ..errors import InputError
from ..fields import checked
from ..model.network import SpikingMLP
from .averages import spike_triggered_average
from .controls import renormalised, shuffled, untrained
from .gabors import gabor
from .probes import white_noise
from .verdicts import Examined, Verdict, examine, verdict

Plant = Literal["gabors", "blobs", "noise"]
PLANTED_LAYER = "stages.0.neuron"


def plants(kind: Plant, units: int, side: int, seed: int = 0, width: float = 0.13) -> Tensor:
    """Weights that are Gabor functions, round blobs of the same sizes, or noise, `[units, side, side]`.

    Args:
        kind: `gabors`, `blobs` or `noise`.
        units: how many.
        side: pixels a side.
        seed: of all that is random.
        width: mean width of the envelopes, as a part of the side; each is up to a quarter wider or narrower.
    """
    checked("kind", kind, Plant)
    generator = torch.Generator().manual_seed(seed)

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(units, generator=generator, dtype=torch.float64)

    x, y = draw(0.4, 0.6) * side, draw(0.4, 0.6) * side
    sigma_x, sigma_y = (draw(0.75, 1.25) * width * side for _ in range(2))
    orientation, phase = draw(0, math.pi), draw(-math.pi, math.pi)
    frequency = draw(0.35, 0.6) / sigma_x
    one, zero = torch.ones(units).double(), torch.zeros(units).double()
    match kind:
        case "gabors":
            waves = (orientation, sigma_x, sigma_y, frequency, phase)
            kernels = gabor(x, y, *waves, one, zero, shape=(side, side))
        case "blobs":
            kernels = gabor(x, y, zero, sigma_x, sigma_x, zero, zero, one, zero, shape=(side, side))
        case "noise":
            kernels = torch.randn(units, side, side, generator=generator, dtype=torch.float64)
        case _:
            assert_never(kind)
    return kernels / kernels.flatten(1).norm(dim=1).view(-1, 1, 1)


def plant(kernels: Tensor, seed: int = 0) -> SpikingMLP:
    """A small spiking MLP whose stem has these weights; its image is one patch.

    Its first neurons, `PLANTED_LAYER`, see the image through one kernel each.

    Args:
        kernels: `[units, side, side]`.
        seed: of all other weights, and of the noise that its batch norms take their statistics from.

    Raises:
        InputError: kernels of another shape.
    """
    if kernels.ndim != 3 or kernels.shape[1] != kernels.shape[2]:
        raise InputError(f"kernels have shape {tuple(kernels.shape)}; give [units, side, side]")
    units, side, _ = kernels.shape
    config = NetworkConfig(
        dim=units,
        depths=(1,),
        patch_size=side,
        image_size=side,
        in_channels=1,
        num_classes=2,
        expansion=1,
        token_mixing="none",  # there is one token
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = SpikingMLP(config)
    with torch.no_grad():
        model.get_parameter("stages.0.embedding.embed.conv.weight").copy_(kernels.unsqueeze(1))
    return renormalised(model, _noise(side, 512))


def try_plants(
    kind: Plant,
    *,
    networks: int = 5,
    units: int = 24,
    side: int = 12,
    images: int = 6144,
    width: float = 0.13,
) -> tuple[Verdict, list[Examined]]:
    """Send networks with known fields through the whole pipeline: averages of white noise, fits, rule.

    Args:
        kind: `gabors` have to come out as supported, `blobs` and `noise` as not supported.
        networks: how many, each with weights of its own.
        units: fields of each network.
        side: pixels a side of a field.
        images: of white noise, half of them for each half.
        width: of the envelopes, as in `plants`.

    Returns:
        The verdict, and each planted network as it was examined.
    """
    halves = [list(white_noise((1, side, side), images // 2, seed=seed)) for seed in (1, 2)]
    halves = [[torch.cat(half)] for half in halves]
    statistics = _noise(side, 512)
    cases = []
    for seed in range(networks):
        model = plant(plants(kind, units, side, seed, width), seed)
        planted = _measure(model, halves)
        controls = {
            "untrained": _measure(untrained(model, statistics, seed), halves),
            "shuffled": _measure(shuffled(model, statistics, seed), halves),
            "random phases": planted.with_random_phases(seed),
        }
        cases.append((planted, controls))
    return verdict(cases), [planted for planted, _ in cases]


def _measure(model: SpikingMLP, halves: Sequence[Iterable[Tensor]]) -> Examined:
    one, other = (spike_triggered_average(model, PLANTED_LAYER, half) for half in halves)
    return examine(one, other)


def _noise(side: int, count: int) -> Tensor:
    return torch.cat(list(white_noise((1, side, side), count, seed=0)))
