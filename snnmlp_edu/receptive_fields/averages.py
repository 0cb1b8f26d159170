r"""Spike-triggered averages: the mean image at a spike, minus the mean of all images.

With :math:`n_b` the spikes of a unit, over all steps, for image :math:`x_b`:

.. math::
    \mathrm{STA} = \frac{\sum_b n_b\, x_b}{\sum_b n_b} - \frac{1}{B} \sum_b x_b
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..inputs import check_finite
from ..model.recording import record
from .fields import Fields, Position, choose_units, neuron_layer


def spike_triggered_average(
    model: nn.Module, path: str, stimuli: Iterable[Tensor], positions: Sequence[Position] | None = None
) -> Fields:
    r"""Receptive fields of a layer's units from their spikes.

    The standard error is that of the ratio of means above, to first order: with :math:`w_b = n_b / \bar n`,
    r the mean image at a spike and :math:`\bar x` the mean of all,

    .. math::
        \mathrm{SE}^2 = \frac{1}{B^2} \sum_b \bigl( w_b (x_b - r) - (x_b - \bar x) \bigr)^2

    Args:
        model: the network; it runs in evaluation mode and is left as it was.
        path: a layer of neurons, as in `record(model, images)`.
        stimuli: batches of images `[B, C, H, W]`, such as `white_noise(...)` yields them.
        positions: rows and columns whose units are measured, all channels of each; None takes all.

    Returns:
        The fields with their standard errors and spike counts. Units that never fired have `spikes` 0 and
        a field of zeros.

    Raises:
        InputError: the layer does not exist, a position lies outside it, an image is not finite, there are
            fewer than two images, or none of the units fired at all.

    Source: de Boer and Kuyper 1968, doi 10.1109/TBME.1968.4502561.
    """
    neuron_layer(model, path)
    sums: _Sums | None = None
    units = torch.empty(0)
    for images in stimuli:
        check_finite(images)
        counts = record(model, images)[path].sum(0)  # [B, H, W, C]
        if sums is None:
            units = choose_units(counts.shape[1:], positions)
            sums = _Sums(len(units), images.shape[1:])
        rows, columns, channels = units.unbind(1)
        sums.add(counts[:, rows, columns, channels], images)
    if sums is None or sums.images < 2:
        raise InputError("there are fewer than two stimuli; give more images")
    if not sums.n.any():
        raise InputError(
            f"none of the {len(units)} units of {path} fired for {sums.images} images; raise the contrast, or"
            " look at a layer nearer to the image"
        )
    return sums.fields(path, units)


class _Sums:
    """Running sums over images of products of spike counts n `[B, U]` and pixels x `[B, C, H, W]`."""

    def __init__(self, units: int, shape: torch.Size) -> None:
        self.shape, self.images = shape, 0
        pixels = shape.numel()
        vector, matrix = torch.zeros(units).double(), torch.zeros(units, pixels).double()
        self.n, self.nn = vector.clone(), vector.clone()
        self.nx, self.nnx, self.nxx, self.nnxx = (matrix.clone() for _ in range(4))
        self.x, self.xx = torch.zeros(pixels).double(), torch.zeros(pixels).double()

    def add(self, counts: Tensor, images: Tensor) -> None:
        n, x = counts.cpu().double(), images.flatten(1).cpu().double()
        self.images += len(x)
        for name, weights in (("n", n), ("nn", n * n)):
            setattr(self, name, getattr(self, name) + weights.sum(0))
            # Products of single precision, summed over one batch only, lose nothing that matters here.
            light = weights.T.float()
            getattr(self, f"{name}x").add_(light @ x.float())
            getattr(self, f"{name}xx").add_(light @ (x * x).float())
        self.x += x.sum(0)
        self.xx += (x * x).sum(0)

    def fields(self, path: str, units: Tensor) -> Fields:
        fired = (self.n > 0).unsqueeze(1)
        count = self.images
        mean = self.x / count
        total = torch.where(fired, self.n.unsqueeze(1), 1.0)
        triggered = self.nx / total
        scale = count / total  # w = scale * n
        # The sum over images of ((w - 1) x - (w r - mean))^2, with w's powers written out.
        w, ww = scale * self.n.unsqueeze(1), scale**2 * self.nn.unsqueeze(1)
        first = scale**2 * self.nnxx - 2 * scale * self.nxx + self.xx
        wx, wwx = scale * self.nx, scale**2 * self.nnx
        second = triggered * (wwx - wx) - mean * (wx - self.x)
        third = ww * triggered**2 - 2 * w * triggered * mean + count * mean**2
        variance = (first - 2 * second + third).clamp_min(0) / count**2
        return Fields(
            path=path,
            units=units,
            maps=torch.where(fired, triggered - mean, 0.0).unflatten(1, self.shape),
            standard_error=torch.where(fired, variance.sqrt(), 0.0).unflatten(1, self.shape),
            spikes=self.n.ceil().long(),  # activations of a ReLU are no whole numbers
        )
