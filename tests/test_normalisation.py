from __future__ import annotations

import pytest
import torch
from torch import nn

from snnmlp_edu import InputError
from snnmlp_edu.model.layout import Axis, features_along, spread_along, view_along
from snnmlp_edu.model.normalisation import (
    BatchNorm,
    LayerNorm,
    TemporalBatchNorm,
    ThresholdBatchNorm,
    make_norm,
)

SHAPE = (3, 2, 4, 5, 6)  # T, B, H, W, C: all different, so that no axis can stand in for another
AXES: dict[Axis, tuple[int, ...]] = {"channel": (4,), "width": (3,), "height": (2,), "token": (2, 3)}


@pytest.mark.parametrize("axis", AXES)
def test_views_hold_one_feature_in_each_row(axis: Axis) -> None:
    current = torch.arange(torch.Size(SHAPE).numel()).view(SHAPE)
    features = features_along(axis, SHAPE[2:])
    view = view_along(current, axis)
    assert view.shape[1] == features
    assert view.data_ptr() == current.data_ptr()
    index = spread_along(torch.arange(features), axis, current).expand(SHAPE)
    for feature in range(features):
        assert set(view[:, feature].flatten().tolist()) == set(current[index == feature].tolist())


@pytest.mark.parametrize("axis", AXES)
def test_batch_norm_keeps_statistics_of_its_axis_only(axis: Axis) -> None:
    norm = BatchNorm(axis, features_along(axis, SHAPE[2:]))
    current = torch.randn(SHAPE) * 3 + 1
    others = [d for d in range(5) if d not in AXES[axis]]
    out = norm(current)
    torch.testing.assert_close(out.mean(others), torch.zeros_like(out.mean(others)), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        out.var(others, unbiased=False), torch.ones_like(out.mean(others)), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(norm.batch_norm.running_mean, 0.1 * current.mean(others).flatten())


def test_threshold_batch_norm_scales_the_scale_and_not_the_shift() -> None:
    plain, threshold = BatchNorm("channel", 6), ThresholdBatchNorm("channel", 6, 0.5, currents_summed=4)
    for norm in (plain, threshold):
        nn.init.constant_(norm.batch_norm.weight, 2.0)
        nn.init.constant_(norm.batch_norm.bias, 3.0)
    current = torch.randn(SHAPE)
    # alpha * theta = 1/2 * 1/2
    torch.testing.assert_close(threshold(current) - 3, (plain(current) - 3) / 4)


def test_temporal_batch_norm_scales_each_step_and_refuses_another_number_of_them() -> None:
    plain, temporal = BatchNorm("width", 5), TemporalBatchNorm("width", 5, time_steps=3)
    current = torch.randn(SHAPE)
    torch.testing.assert_close(temporal(current), plain(current))
    with torch.no_grad():
        temporal.step_scale.copy_(torch.tensor([1.0, 2.0, -3.0]))
    torch.testing.assert_close(temporal(current)[2], -3 * plain(current)[2])
    with pytest.raises(InputError, match="one scale for each of 3 time steps and got 2; use time_steps=3"):
        temporal(current[:2])


@pytest.mark.parametrize(("axis", "over"), [("width", (2, 4)), ("height", (3, 4)), ("token", (4,))])
def test_layer_norm_normalises_all_that_one_place_sees(axis: Axis, over: tuple[int, ...]) -> None:
    norm = LayerNorm(axis, SHAPE[2:])
    current = torch.randn(SHAPE)
    out = norm(current)
    torch.testing.assert_close(out.mean(over), torch.zeros_like(out.mean(over)), atol=1e-5, rtol=0)
    assert norm.layer_norm.weight.shape == tuple(SHAPE[d] for d in over)
    # One image's statistics are its own.
    torch.testing.assert_close(norm(current[:, :1]), out[:, :1])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("bn", "channel"),
        ("bn_token", "token"),
        ("tdbn", "channel"),
        ("tebn", "channel"),
        ("ln", "token"),
    ],
)
def test_each_kind_has_its_axis(kind: str, expected: str) -> None:
    norm = make_norm(kind, "channel", SHAPE[2:], time_steps=3, threshold=1.0)
    assert norm.axis == expected


def test_none_is_nothing() -> None:
    assert isinstance(make_norm("none", "channel", SHAPE[2:], time_steps=3, threshold=1.0), nn.Identity)


def test_threshold_batch_norm_trains_in_mixed_precision() -> None:
    norm = ThresholdBatchNorm("channel", 6, 0.5, currents_summed=4)
    current = torch.randn(2, 3, 2, 2, 6, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = norm(current.bfloat16())
    mixed.float().sum().backward()
    torch.testing.assert_close(mixed.float(), norm(current), rtol=0.02, atol=0.02)
    assert norm.batch_norm.bias.grad is not None
