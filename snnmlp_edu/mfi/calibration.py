r"""Make every neuron layer of a network fire, at a rate of choice where one is wanted.

An untrained network is silent beyond its first layers, so that nothing could be counted, timed or checked
in it. Calibration sets what training would set: the statistics, scales and shifts of the normalisation, and
where that is not enough one shift :math:`\delta` of a layer's current, so that

.. math::
    \frac{1}{TN} \sum_{t,n} \mathrm{LIF}(x + \delta)[t, n] \approx r
"""

from __future__ import annotations

import copy
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import InputError
from ..inputs import check_network_input
from ..model.network import Head
from ..model.neurons import LIF
from ..model.normalisation import BatchNorm, LayerNorm, TemporalBatchNorm
from ..model.patches import SpikingPatchEncoding
from .known import CONTAINERS, MAPS, NEURONS, NORMALISATIONS, STATISTICS, WIRINGS

LOWEST_RATE, HIGHEST_RATE = 0.05, 0.5  # what counts as firing where no rate is asked for
HALVINGS = 16  # of the interval in which a shift is sought: no finer, so that rounding decides no spike
SAMPLE = 2**15  # neurons of a layer that are looked at for it
TOLERANCE = 0.1  # of a rate, for the few spikes that rounding moves
ALIKE = 0.001  # of a layer's spikes, at one shift

_KNOWN = (
    CONTAINERS
    | WIRINGS
    | MAPS
    | NORMALISATIONS
    | STATISTICS
    | NEURONS
    | {SpikingPatchEncoding, Head, nn.Linear, nn.ReLU}
)


def calibrate(model: nn.Module, images: Tensor, rate: float | None = None, seed: int = 0) -> nn.Module:
    """A copy of a network, in evaluation mode, in which every layer of neurons fires on these images.

    Every batch norm gets the mean and the variance of the current that reaches it, a random scale of
    magnitude 0.5 to 1.5 and either sign, and a random shift. Then, layer after layer in the order in which
    they run, one number is added to the shift (or bias) of the layer before the neurons: with a `rate`,
    the number that brings them nearest to it; without, the smallest step that brings them between 5 % and
    50 %, and nothing where they are there already. What the network has learned is lost by this.

    With a rate, layers end within some 5 % of it. Where few different currents occur, as after a map over
    one or two positions, rates come in steps, and the nearest step that is not silence is taken.

    Args:
        model: the network, not folded; it stays as it is.
        images: what to run it on, `[B, channels, H, W]` or `[T, B, channels, H, W]`.
        rate: spikes per neuron and step wanted in every layer, between 0 and 1.
        seed: of the random scales and shifts.

    Returns:
        The calibrated copy. Its firing rates are `record(calibrated, images).firing_rates()`.

    Raises:
        InputError: no images, images that are not finite, a rate outside (0, 1), a rate for a network
            without spiking neurons, neurons without a layer before them whose current could be shifted, or
            neurons that do not fire as calibrated because a layer before them does not pass a shift on.

    >>> from snnmlp_edu import create_model, record
    >>> images = torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    >>> rates = record(calibrate(create_model("mlp_spe_nano"), images, rate=0.2), images).firing_rates()
    >>> round(rates["stages.0.neuron"], 2), min(rates.values()) > 0
    (0.2, True)
    """
    check_network_input(images, model)
    if rate is not None and not 0 < rate < 1:
        raise InputError(f"rate is {rate}; it must be between 0 and 1, such as 0.05")
    calibrated = copy.deepcopy(model).eval()
    modules = dict(calibrated.named_modules())
    if rate is not None and not any(isinstance(module, LIF) for module in modules.values()):
        raise InputError("this network has no LIF neurons whose rate could be set; leave out rate")
    generator = torch.Generator().manual_seed(seed)
    shifter = _Shifter((LOWEST_RATE, HIGHEST_RATE) if rate is None else (rate, rate), generator)
    with torch.no_grad(), ExitStack() as hooks:
        for path, module in modules.items():
            if isinstance(module, LIF) and type(module) not in NEURONS:
                raise InputError(
                    f"{path} is a {type(module).__name__}, and calibrate does not know how its rate follows"
                    " its current; extend snnmlp_edu/mfi/calibration.py"
                )
            if isinstance(module, _BatchNorm):
                _draw_scale_and_shift(module, generator)
                hooks.callback(module.register_forward_pre_hook(_take_statistics).remove)
            if _shift_of(module) is not None:
                hooks.callback(module.register_forward_hook(shifter.remember).remove)
            if isinstance(module, LIF):

                def shift(layer: LIF, inputs: tuple[Tensor], path: str = path) -> None:
                    shifter.shift(layer, inputs[0], path)

                hooks.callback(module.register_forward_pre_hook(shift).remove)
        reached = _rates(calibrated, images)
    with torch.no_grad():
        _compare(calibrated, reached, _rates(calibrated, images))
    return calibrated


class _Rate(NamedTuple):
    """How often a layer of neurons fired in one of its runs, and the least that this can differ by."""

    path: str
    spikes: float
    step: float


def _rates(network: nn.Module, images: Tensor) -> list[_Rate]:
    """The rates of every layer of neurons in one run, in the order in which they ran."""
    rates: list[_Rate] = []
    with ExitStack() as hooks:
        for path, module in network.named_modules():
            if isinstance(module, LIF):

                def note(_: nn.Module, inputs: tuple[Tensor], spikes: Tensor, path: str = path) -> None:
                    rates.append(_Rate(path, spikes.mean().item(), 1 / spikes.numel()))

                hooks.callback(module.register_forward_hook(note).remove)
        network(images)
    return rates


def _compare(network: nn.Module, reached: list[_Rate], again: list[_Rate]) -> None:
    """Raise where a layer does not fire as it did while its current was shifted, but for rounding."""
    for before, after in zip(reached, again, strict=True):
        if abs(before.spikes - after.spikes) > TOLERANCE * before.spikes + 5 * before.step:
            others = {type(m).__name__ for m in network.modules() if type(m) not in _KNOWN}
            raise InputError(
                f"the neurons of {after.path or 'the network'} were calibrated to {before.spikes:.3g} and"
                f" fire at {after.spikes:.3g}: a layer before them does not pass a shift on as it is"
                f" (not known here: {', '.join(sorted(others)) or 'none'}); extend"
                " snnmlp_edu/mfi/calibration.py"
            )


def _draw_scale_and_shift(batch_norm: _BatchNorm, generator: torch.Generator) -> None:
    with torch.no_grad():
        if batch_norm.affine:
            scale = torch.empty(batch_norm.num_features).uniform_(0.5, 1.5, generator=generator)
            flipped = torch.rand(batch_norm.num_features, generator=generator) < 0.5
            batch_norm.weight.copy_(torch.where(flipped, -scale, scale))
            batch_norm.bias.copy_(torch.empty(batch_norm.num_features).normal_(0, 0.5, generator=generator))


def _take_statistics(batch_norm: _BatchNorm, inputs: tuple[Tensor]) -> None:
    current = inputs[0].transpose(0, 1).flatten(1)
    variance, mean = torch.var_mean(current, dim=1, correction=0)
    # A feature that did not vary here may vary elsewhere: it must not be divided by nothing.
    variance = torch.where(variance > 1e-6, variance, 1.0)
    for name, value in (("running_mean", mean), ("running_var", variance), ("num_batches_tracked", 1)):
        buffer = getattr(batch_norm, name)
        if buffer is not None:
            buffer.copy_(torch.as_tensor(value))


def _shift_of(module: nn.Module) -> Tensor | None:
    """What is added to all of a layer's output: the shift of a normalisation, the bias of a linear map."""
    match module:
        case BatchNorm():
            return module.batch_norm.bias
        case LayerNorm():
            return module.layer_norm.bias
        case nn.Linear() | nn.Conv2d():
            return module.bias
    return None


@dataclass
class _Shifter:
    """Shifts currents on their way to the neurons, and with them the parameter that they come from."""

    rates: tuple[float, float]
    generator: torch.Generator
    source: nn.Module | None = None
    output: Tensor | None = None

    def remember(self, source: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Keep the layer that ran last, and what it wrote."""
        self.source, self.output = source, output

    def shift(self, layer: LIF, current: Tensor, path: str) -> None:
        """Bring the rate of one layer of neurons into the bounds, for this run and for those to come."""
        source, output = self.source, self.output
        # A sum of currents carries the source's shift in its last channels, a view of its output in all.
        view = output is not None and _share_memory(current, output)
        seen = current if view or output is None else current[..., -output.shape[-1] :]
        sample = self._sample(seen)
        measured = layer.forward(sample).mean().item()
        target = min(max(measured, self.rates[0]), self.rates[1])
        if measured == target:
            return
        if source is None or output is None:
            raise InputError(
                f"the neurons of {path or 'the network'} fire at {measured:.3g}, and no layer with a shift or"
                " bias comes before them; put a normalisation or a linear map with bias there"
            )
        factor = source.step_scale if isinstance(source, TemporalBatchNorm) else torch.ones(1)
        delta = _find_shift(layer, sample, factor.to(sample).unsqueeze(1), target)
        shift = _shift_of(source)
        assert shift is not None
        shift.add_(delta)
        changed = output if view else seen
        changed.add_(delta * factor.to(changed).view(-1, *(1 for _ in changed.shape[1:])))

    def _sample(self, current: Tensor) -> Tensor:
        """The currents of at most `SAMPLE` neurons, `[T, neurons]`."""
        flat = current.flatten(1)
        if flat.shape[1] <= SAMPLE:
            return flat
        drawn = torch.randint(flat.shape[1], (SAMPLE,), generator=self.generator)
        return flat[:, drawn.to(flat.device)]


def _share_memory(one: Tensor, other: Tensor) -> bool:
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


def _find_shift(layer: LIF, current: Tensor, factor: Tensor, target: float) -> float:
    """The number whose addition to the current brings the layer's rate nearest to the target."""

    def rate(shift: float) -> float:
        return layer.forward(current + shift * factor).mean().item()

    # At the lower end no membrane rises above 0, at the upper end every input alone reaches the threshold.
    low = -current.max().item()
    high = layer.config.threshold / layer.config.input_gain - current.min().item()
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if rate(middle) < target else (low, middle)
    # Equal currents reach the threshold at one shift: there rounding would decide who fires.
    if rate(high) - rate(low) > ALIKE:
        low, high = low - (high - low), high + (high - low)
    # Rates come in steps: the nearest that is not silence.
    rates = {shift: rate(shift) for shift in (low, high)}
    return min(rates, key=lambda shift: (rates[shift] == 0, abs(rates[shift] - target)))
