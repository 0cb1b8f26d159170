from __future__ import annotations

from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import ANTIDERIVATIVES, SLOPES

from snnmlp_edu import InputError
from snnmlp_edu.config import SurrogateName
from snnmlp_edu.model.surrogates import SURROGATES, spike, surrogate_derivative

NAMES = get_args(SurrogateName)
# Where a derivative jumps or has a corner, a finite difference across it says nothing.
CORNERS = {"triangle": (-1.0, 0.0, 1.0), "dspike": (-0.5, 0.5), "fast_sigmoid": (0.0,)}


def test_the_configuration_and_the_surrogates_know_the_same_names_and_slopes() -> None:
    assert set(SURROGATES) == set(NAMES)
    assert {name: s.default_slope for name, s in SURROGATES.items()} == SLOPES


@pytest.mark.parametrize(
    ("name", "at_threshold", "at_half"),
    [
        ("sigmoid", 1.0, 4 * 0.8807970779778823 * 0.11920292202211755),
        ("atan", 1.0, 1 / (1 + (3.141592653589793 / 2) ** 2)),
        ("fast_sigmoid", 1.0, 1 / 36),
        ("triangle", 1.0, 0.5),
        ("dspike", 1.5 / 0.9051482536448664, 1.5 / 0.9051482536448664 * (1 - 0.9051482536448664**2)),
    ],
)
def test_values_computed_by_hand(name: str, at_threshold: float, at_half: float) -> None:
    x = torch.tensor([0.0, 0.5, -0.5], dtype=torch.float64)
    expected = torch.tensor([at_threshold, at_half, at_half], dtype=torch.float64)
    torch.testing.assert_close(surrogate_derivative(x, name), expected)


@pytest.mark.parametrize("name", NAMES)
@given(x=st.floats(-3, 3), slope=st.floats(0.5, 12))
def test_finite_differences_of_the_antiderivative(name: str, x: float, slope: float) -> None:
    corners = {"triangle": (-slope, 0.0, slope)}.get(name, CORNERS.get(name, ()))
    if any(abs(x - corner) < 1e-4 for corner in corners):
        return
    step = 1e-6
    at = torch.tensor([x - step, x + step], dtype=torch.float64)
    low, high = ANTIDERIVATIVES[name](at, slope)
    derivative = surrogate_derivative(torch.tensor([x], dtype=torch.float64), name, slope)
    assert derivative.item() == pytest.approx((high - low).item() / (2 * step), abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_stay_finite_far_from_the_threshold(name: str) -> None:
    # snnTorch 1.0.0's sigmoid gives NaN at -4 with slope 25 in fp32.
    x = torch.tensor([-1e6, -1e3, -4.0, 4.0, 1e3, 1e6], requires_grad=True)
    spike(x, name, 25.0).sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert (x.grad >= 0).all()


def test_the_threshold_itself_fires_only_when_inclusive() -> None:
    x = torch.tensor([-1e-6, 0.0, 1e-6])
    assert spike(x).tolist() == [0, 1, 1]
    assert spike(x, inclusive=False).tolist() == [0, 0, 1]


def test_a_second_derivative_is_a_clear_error() -> None:
    x = torch.tensor([0.3], requires_grad=True)
    (gradient,) = torch.autograd.grad((spike(x) * x).sum(), x, create_graph=True)
    with pytest.raises(InputError, match="second derivative"):
        gradient.sum().backward()
