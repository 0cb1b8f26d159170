r"""Normalisation of currents `[T, B, H, W, C]`, each kind with the axis that keeps its own statistics.

Batch norm (BN) keeps one mean :math:`\mu` and one variance :math:`\sigma^2` for each feature along one
axis and learns a scale and a shift for it:

.. math::
    z = \gamma \frac{y - \mu}{\sqrt{\sigma^2 + \epsilon}} + \delta

It folds into the linear map before it exactly when that axis is the map's output axis. The kinds:

| kind | what it computes | source |
|---|---|---|
| `bn` | BN along the map's output axis (the default; folds) | arXiv 1502.03167 |
| `bn_token` | BN along the token axis, in the channel block (does not fold) | the paper's released code |
| `ln` | layer norm: each token, or line position, by its own statistics (does not fold) | arXiv 1607.06450 |
| `tdbn` | BN whose scale is multiplied by alpha * threshold | arXiv 2011.05280 |
| `tebn` | BN times one learned scalar for each time step | Duan et al., NeurIPS 2022 |
| `none` | nothing; the linear map has a bias instead | |
"""

from __future__ import annotations

from typing import assert_never

import torch
from torch import Tensor, nn

from ..config import ChannelNorm
from ..errors import InputError
from .layout import Axis, features_along, spread_along, view_along


class BatchNorm(nn.Module):
    """Batch norm whose statistics belong to one named axis of `[T, B, H, W, C]`.

    Training statistics run over T, B and every axis but the named one. The `nn.BatchNorm1d` is a
    child, so that `SyncBatchNorm.convert_sync_batchnorm` finds it.

    Args:
        axis: the axis that keeps its own statistics, scale and shift.
        features: number of entries along that axis.

    >>> BatchNorm("channel", 6)(torch.randn(4, 2, 8, 8, 6)).shape
    torch.Size([4, 2, 8, 8, 6])
    """

    def __init__(self, axis: Axis, features: int) -> None:
        super().__init__()
        self.axis: Axis = axis
        self.batch_norm = nn.BatchNorm1d(features)

    def forward(self, current: Tensor) -> Tensor:
        """Normalised current, in the shape that came in."""
        return self.batch_norm(self.flat(current)).view(current.shape)

    def flat(self, current: Tensor) -> Tensor:
        """The current as its `BatchNorm1d` sees it: `[N, features, L]`, or `[N, features]` along channels."""
        flat = view_along(current, self.axis)
        return flat.squeeze(2) if self.axis == "channel" else flat  # without L, along contiguous memory

    def extra_repr(self) -> str:
        """What `repr` shows of this layer."""
        return f"axis={self.axis}"


class ThresholdBatchNorm(BatchNorm):
    r"""tdBN: batch norm whose scale has a constant factor, :math:`z = \alpha\theta\gamma\hat y + \delta`.

    Args:
        axis: the axis that keeps its own statistics.
        features: number of entries along that axis.
        threshold: the neuron's threshold theta.
        currents_summed: how many such currents add up at the neuron; alpha is `1 / sqrt` of it.

    Source: arXiv 2011.05280, section 4.
    """

    def __init__(self, axis: Axis, features: int, threshold: float, currents_summed: int) -> None:
        super().__init__(axis, features)
        self.scale = threshold / currents_summed**0.5

    def forward(self, current: Tensor) -> Tensor:
        """Normalised current, in the shape that came in."""
        normalised = super().forward(current)
        if self.scale == 1:
            return normalised
        # s (gamma y_hat + delta) + (1 - s) delta: the shift stays unscaled, the BatchNorm1d stays whole.
        shift = spread_along(self.batch_norm.bias, self.axis, current)
        return torch.lerp(shift.to(normalised.dtype), normalised, self.scale)

    def extra_repr(self) -> str:
        """What `repr` shows of this layer."""
        return f"{super().extra_repr()}, scale={self.scale:.4g}"


class TemporalBatchNorm(BatchNorm):
    r"""TEBN: batch norm over all steps, times one learned scalar :math:`p[t]` for each step.

    Args:
        axis: the axis that keeps its own statistics.
        features: number of entries along that axis.
        time_steps: T; the layer is tied to it.

    Raises:
        InputError: the current has another number of steps than the layer was made for.

    Source: Duan et al., "Temporal Effective Batch Normalization in Spiking Neural Networks", NeurIPS 2022.
    """

    def __init__(self, axis: Axis, features: int, time_steps: int) -> None:
        super().__init__(axis, features)
        self.step_scale = nn.Parameter(torch.ones(time_steps))

    def forward(self, current: Tensor) -> Tensor:
        """Normalised current, in the shape that came in."""
        steps, trained = current.shape[0], self.step_scale.numel()
        if steps != trained:
            raise InputError(
                f"tebn has one scale for each of {trained} time steps and got {steps};"
                f" use time_steps={trained}, or train with time_steps={steps}"
            )
        return super().forward(current) * self.step_scale.view(-1, 1, 1, 1, 1)


class LayerNorm(nn.Module):
    r"""Layer norm that keeps one place apart and normalises over all that is seen from there.

    | `axis` | statistics of each | taken over |
    |---|---|---|
    | `width` | position in a row | H and C |
    | `height` | position in a column | W and C |
    | `token` | token | C |

    Scale and shift have the shape of what is normalised over, as in PyTorch. The statistics depend on
    every input, so that no constant weight can replace them: it never folds.

    Args:
        axis: the place that keeps its own statistics.
        shape: `(H, W, C)` of the current.

    Source: arXiv 1607.06450; for its place in the block, the paper's released layer-norm variant.
    """

    def __init__(self, axis: Axis, shape: tuple[int, int, int]) -> None:
        super().__init__()
        height, width, channels = shape
        shapes = {"width": (height, channels), "height": (width, channels), "token": (channels,)}
        self.axis: Axis = axis
        self.layer_norm = nn.LayerNorm(shapes[axis])

    def forward(self, current: Tensor) -> Tensor:
        """Normalised current, in the shape that came in."""
        if self.axis == "width":
            # The rows' positions are between H and C in memory; only this variant has to move data.
            return self.layer_norm(current.transpose(2, 3)).transpose(2, 3)
        return self.layer_norm(current)

    def extra_repr(self) -> str:
        """What `repr` shows of this layer."""
        return f"axis={self.axis}"


def make_norm(
    kind: ChannelNorm,
    output_axis: Axis,
    shape: tuple[int, int, int],
    *,
    time_steps: int,
    threshold: float,
    currents_summed: int = 1,
) -> nn.Module:
    """The normalisation that follows a linear map, by its name in `NetworkConfig`.

    Args:
        kind: `bn`, `bn_token`, `ln`, `tdbn`, `tebn` or `none`.
        output_axis: the axis that the map before it writes.
        shape: `(H, W, C)` of the current.
        time_steps: T, for `tebn`.
        threshold: the neuron's threshold, for `tdbn`.
        currents_summed: currents that add up at the neuron behind it, for `tdbn`.

    >>> make_norm("bn", "width", (8, 8, 6), time_steps=4, threshold=1.0).axis
    'width'
    """
    features = features_along(output_axis, shape)
    match kind:
        case "bn":
            return BatchNorm(output_axis, features)
        case "bn_token":
            return BatchNorm("token", features_along("token", shape))
        case "ln":
            return LayerNorm("token" if output_axis == "channel" else output_axis, shape)
        case "tdbn":
            return ThresholdBatchNorm(output_axis, features, threshold, currents_summed)
        case "tebn":
            return TemporalBatchNorm(output_axis, features, time_steps)
        case "none":
            return nn.Identity()
        case _:
            assert_never(kind)
