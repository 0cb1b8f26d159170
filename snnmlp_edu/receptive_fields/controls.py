"""Controls: networks and fields that share everything but the claimed effect of training."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import InputError
from ..inputs import check_finite
from ..model.linear import AxisLinear
from ..model.mixing import PositionMixing
from ..model.network import SpikingMLP
from ..transfer import shuffle
from .gabors import SHORTEST_LINE


def untrained(model: SpikingMLP, images: Tensor, seed: int = 0) -> SpikingMLP:
    """A network of the same configuration with fresh weights.

    Its batch norms get the statistics of these images, since with those of a fresh network (mean 0,
    variance 1) hardly a neuron beyond the first layers would fire.

    Args:
        model: the network whose configuration is taken.
        images: what the statistics come from, `[B, C, H, W]`: those that the network was trained on.
        seed: of the weights; the random state outside stays as it is.

    Raises:
        InputError: there are no images, or one is not finite.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        fresh = type(model)(model.config)
    return renormalised(fresh.to(next(model.parameters())), images)


def shuffled(model: SpikingMLP, images: Tensor, seed: int = 0) -> SpikingMLP:
    """A copy in which every parameter tensor keeps its values in shuffled order.

    Weights are shuffled within a layer, and so are biases, scales and shifts. Whatever comes from the
    distribution of the weights and from the architecture stays. Batch norms get the statistics of these
    images.

    Args:
        model: the network; it stays as it is.
        images: what the statistics come from, `[B, C, H, W]`.
        seed: of the order.

    Raises:
        InputError: there are no images, or one is not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    mixed = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in mixed.parameters():
            parameter.copy_(shuffle(parameter, generator))
    return renormalised(mixed, images)


def renormalised(model: SpikingMLP, images: Tensor) -> SpikingMLP:
    """The network with the statistics of these images in its batch norms, in evaluation mode."""
    if len(images) < 2:
        raise InputError(f"there are {len(images)} images to take statistics from; give at least two")
    check_finite(images)
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches
    model.train()
    with torch.no_grad():
        for batch in images.chunk(max(1, len(images) // 128)):
            model(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model.eval()


def phase_randomised(maps: Tensor, seed: int = 0) -> Tensor:
    """Fields with the same amplitude spectrum and random phases.

    How strong each wave is in a field stays; the phases of the waves, and so whether the field
    is in one place, does not. The mean stays.

    Args:
        maps: `[..., H, W]`; lines as `[..., 1, length]`. Floating point and finite.
        seed: of the phases, which are those of white noise.

    Raises:
        InputError: values that are not finite.
    """
    if not torch.isfinite(maps).all():
        raise InputError("fields have NaN or infinite values; measure them again")
    generator = torch.Generator().manual_seed(seed)
    noise = torch.fft.fft2(torch.randn(maps.shape, generator=generator, dtype=torch.float64))
    spectrum = torch.fft.fft2(maps.double())
    # The spectrum of a real field is the mirror image of itself, and so are the phases of real noise.
    turned = spectrum.abs() * noise / noise.abs().clamp_min(1e-300)
    turned[..., 0, 0] = spectrum[..., 0, 0]
    return torch.fft.ifft2(turned).real


def axial_lines(model: nn.Module) -> dict[str, Tensor]:
    """Weights of the axial maps that are long enough for a fit: path -> `[positions out, positions in]`.

    Row q of a map holds the weights by which all positions of a line reach position q.

    Raises:
        InputError: every line is shorter than 16 positions, or there are none.
    """
    maps = dict(_axial_maps(model))
    long = {path: weight for path, weight in maps.items() if weight.shape[1] >= SHORTEST_LINE}
    if not long:
        longest = max((weight.shape[1] for weight in maps.values()), default=0)
        raise InputError(
            f"the longest axial line of this network has {longest} positions; a fit of one needs at least"
            f" {SHORTEST_LINE}"
        )
    return long


def _axial_maps(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for path, module in model.named_modules():
        if isinstance(module, PositionMixing):
            linear = module.synapse.linear
            if isinstance(linear, AxisLinear) and linear.axis in ("width", "height"):
                yield path, linear.weight.detach().double().cpu()
