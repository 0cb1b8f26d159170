"""Gabor functions, their fits, the rules that reject one, and the intervals of what is left."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares
from torch import Tensor

from snnmlp_edu import InputError
from snnmlp_edu.receptive_fields import (
    GOOD,
    GaborFits,
    fit_gabor_lines,
    fit_gabors,
    gabor,
    judge,
    proportion,
    well_fitted,
)
from snnmlp_edu.receptive_fields.functions import FREE_1D, FREE_2D, evaluate

NAMES = (
    "x",
    "y",
    "orientation",
    "sigma_x",
    "sigma_y",
    "frequency",
    "phase",
    "amplitude",
    "offset",
)


def random_gabors(count: int, side: int = 24, seed: int = 0) -> dict[str, Tensor]:
    """Parameters of functions that lie within the field and that the grid resolves."""
    generator = torch.Generator().manual_seed(seed)
    limits = {
        "x": (0.3 * side, 0.7 * side),
        "y": (0.3 * side, 0.7 * side),
        "orientation": (0, math.pi),
        "sigma_x": (1.5, 4),
        "sigma_y": (1.5, 4),
        "frequency": (0.1, 0.3),
        "phase": (-math.pi, math.pi),
        "amplitude": (0.5, 2),
        "offset": (-0.2, 0.2),
    }
    drawn = torch.rand(len(limits), count, generator=generator, dtype=torch.float64)
    return {
        name: low + (high - low) * u for u, (name, (low, high)) in zip(drawn, limits.items(), strict=True)
    }


def fits_of(shape: tuple[int, int] = (16, 16), **changes: float) -> GaborFits:
    """One fit whose parameters are given."""
    values = {"x": 8, "y": 8, "orientation": 0, "sigma_x": 2, "sigma_y": 3, "frequency": 0.2, "phase": 0}
    values |= {"amplitude": 1, "offset": 0, "unexplained": 0.1}
    return GaborFits(
        **{name: torch.tensor([float(value)]) for name, value in (values | changes).items()}, shape=shape
    )


# --- the function ------------------------------------------------------------------------------------


def test_function_by_hand() -> None:
    """x' = x - 1 and y' = y - 2 at orientation 0: at (row 2, column 3) the wave has turned by pi."""
    one = torch.tensor([1.0], dtype=torch.float64)
    field = gabor(one, 2 * one, 0 * one, 2 * one, 3 * one, one / 4, 0 * one, 5 * one, one, shape=(4, 5))[0]
    assert field[2, 1].item() == pytest.approx(6)
    assert field[2, 3].item() == pytest.approx(1 - 5 * math.exp(-0.5))
    assert field[3, 2].item() == pytest.approx(1, abs=1e-12)
    assert field[0, 1].item() == pytest.approx(1 + 5 * math.exp(-4 / 18))


def test_orientation_is_that_of_the_wave() -> None:
    p = random_gabors(1) | {"orientation": torch.tensor([math.pi / 2]).double()}
    p |= {"x": torch.tensor([12.0]).double(), "y": torch.tensor([12.0]).double()}
    field = gabor(**p, shape=(24, 24))[0] - p["offset"]
    assert (field[12] * field[12, 12] > 0).all(), "no change of sign along the columns"


@pytest.mark.parametrize("free", [FREE_2D, FREE_1D], ids=["2-D", "1-D"])
def test_derivatives_are_those_of_autograd(free: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(3)
    parameters = torch.rand(1, 9, generator=generator, dtype=torch.float64) + 0.3
    shape = (6, 7) if len(free) == 9 else (1, 16)
    _, found = evaluate(parameters, shape, free)
    whole = torch.autograd.functional.jacobian(lambda p: evaluate(p, shape, ())[0], parameters)
    expected = whole[0, :, 0].T  # [9, H W]
    torch.testing.assert_close(found[0], expected[list(free)], rtol=1e-10, atol=1e-12)


# --- fits --------------------------------------------------------------------------------------------


def test_known_functions_are_found_again() -> None:
    p = random_gabors(150)
    fits = fit_gabors(gabor(**p, shape=(24, 24)))
    found = fits.unexplained < 1e-6
    assert found.double().mean() >= 0.98
    # Where the carrier turns little within the envelope, other parameters give nearly the same field.
    sharp = found & (p["sigma_x"] * p["frequency"] > 0.35)
    assert sharp.sum() > 40
    for name in ("x", "y", "sigma_x", "sigma_y", "frequency", "amplitude", "offset"):
        torch.testing.assert_close(getattr(fits, name)[sharp], p[name][sharp], rtol=1e-3, atol=1e-3)
    for name, period in (("orientation", math.pi), ("phase", 2 * math.pi)):
        turned = (getattr(fits, name) - p[name])[sharp]
        if name == "orientation":  # 0 and pi are one direction, with opposite phases
            assert (turned.remainder(period).minimum(-turned.remainder(period) + period) < 1e-3).all()
    torch.testing.assert_close(fits[found].predicted(), gabor(**p, shape=(24, 24))[found], rtol=0, atol=5e-3)


def test_noise_is_what_is_left_over() -> None:
    p = random_gabors(60, seed=1)
    clean = gabor(**p, shape=(24, 24))
    generator = torch.Generator().manual_seed(0)
    spread = clean.flatten(1).std(1).view(-1, 1, 1)
    noise = 0.5 * spread * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    noisy = clean + noise
    fits = fit_gabors(noisy)
    variance = (noisy - noisy.mean((1, 2), keepdim=True)).square().sum((1, 2))
    left_by_truth = noise.square().sum((1, 2)) / variance
    assert (fits.unexplained <= left_by_truth + 1e-3).double().mean() >= 0.98, "a fit beats the truth"
    assert (fits.frequency - p["frequency"]).abs().median() < 0.01
    assert torch.hypot(fits.x - p["x"], fits.y - p["y"]).median() < 0.3


def test_fit_is_as_good_as_that_of_scipy_from_the_truth() -> None:
    p = random_gabors(4, seed=5)
    generator = torch.Generator().manual_seed(1)
    noisy = gabor(**p, shape=(16, 16)) + 0.3 * torch.randn(4, 16, 16, generator=generator).double()
    rows, columns = np.mgrid[:16, :16].reshape(2, -1)
    fits = fit_gabors(noisy)
    for index, field in enumerate(noisy.flatten(1).numpy()):

        def residual(q: np.ndarray, field: np.ndarray = field) -> np.ndarray:
            dx, dy = columns - q[0], rows - q[1]
            u, v = dx * np.cos(q[2]) + dy * np.sin(q[2]), dy * np.cos(q[2]) - dx * np.sin(q[2])
            envelope = np.exp(-(u**2) / 2 / q[3] ** 2 - v**2 / 2 / q[4] ** 2)
            return q[7] * envelope * np.cos(2 * np.pi * q[5] * u + q[6]) + q[8] - field

        best = least_squares(residual, [p[name][index].item() for name in NAMES], method="lm")
        expected = 2 * best.cost / ((field - field.mean()) ** 2).sum()
        assert fits.unexplained[index].item() <= expected + 1e-4


def test_known_lines_are_found_again() -> None:
    p = random_gabors(60, side=16, seed=2)
    zero, one = torch.zeros(60).double(), torch.ones(60).double()
    lines = gabor(**(p | {"y": zero, "orientation": zero, "sigma_y": one}), shape=(1, 16))[:, 0]
    fits = fit_gabor_lines(lines)
    assert (fits.unexplained < 1e-5).double().mean() >= 0.95
    assert fits.sigma_y.isnan().all()
    assert fits.ny.isnan().all()
    assert (fits.y == 0).all()
    good = fits.unexplained < 1e-6
    torch.testing.assert_close(fits[good].predicted()[:, 0], lines[good], rtol=0, atol=5e-3)


def test_half_of_the_noise_on_a_short_line_is_explained() -> None:
    """Six parameters and sixteen numbers: the reason for which a fraction without a control says nothing."""
    lines = torch.randn(200, 16, generator=torch.Generator().manual_seed(0))
    fits = fit_gabor_lines(lines)
    assert 0.35 < fits.unexplained.mean() < 0.55
    assert well_fitted(judge(fits)).value < 0.1, "the rules throw most of them out"


@settings(max_examples=10, deadline=None)
@given(st.floats(1e-6, 1e6), st.floats(-100, 100), st.integers(0, 50))
def test_scale_and_offset_change_nothing_else(scale: float, offset: float, seed: int) -> None:
    field = gabor(**random_gabors(1, side=16, seed=seed), shape=(16, 16))
    one, other = fit_gabors(field), fit_gabors(scale * (field + offset))
    assert other.amplitude.item() == pytest.approx(scale * one.amplitude.item(), rel=1e-2)
    assert other.unexplained.item() == pytest.approx(one.unexplained.item(), abs=1e-4)
    assert 0 <= other.orientation.item() < math.pi + 1e-9
    assert -math.pi <= other.phase.item() <= math.pi


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31))
def test_any_field_leaves_between_nothing_and_all_of_its_variance(seed: int) -> None:
    fields = torch.randn(3, 9, 11, generator=torch.Generator().manual_seed(seed))
    fits = fit_gabors(fields)
    assert (fits.unexplained >= 0).all()
    assert (fits.unexplained <= 1 + 1e-9).all(), "a constant explains nothing, and a fit does no worse"
    assert (fits.sigma_x > 0).all()
    assert (fits.frequency >= 0).all()
    assert (fits.amplitude >= 0).all()


def test_order_and_company_of_fields_do_not_matter() -> None:
    fields = gabor(**random_gabors(5, side=16), shape=(16, 16))
    together, apart = fit_gabors(fields), fit_gabors(fields[[3]])
    torch.testing.assert_close(together.predicted()[3], apart.predicted()[0], rtol=0, atol=1e-5)


def test_no_fields_give_no_fits() -> None:
    assert len(fit_gabors(torch.zeros(0, 8, 8))) == 0


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (torch.zeros(4, 7, 9), "fields are 7 x 9; a fit of nine parameters needs at least 8 x 8 pixels"),
        (torch.zeros(4, 1, 9, 9), r"give \[N, H, W\], one channel at a time"),
        (torch.full((2, 8, 8), math.nan), "2 of 2 fields have NaN or infinite values, the first is field 0"),
    ],
)
def test_bad_fields_are_named(maps: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_gabors(maps)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (torch.zeros(4, 14), "lines have 14 positions; a fit of six parameters needs at least 16"),
        (torch.zeros(16), r"lines have shape \(16,\); give \[N, length\]"),
        (torch.tensor([[math.inf] * 16]), "1 of 1 fields have NaN or infinite values"),
    ],
)
def test_bad_lines_are_named(lines: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_gabor_lines(lines)


# --- which fits count --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, GOOD),
        ({"x": -0.6}, "centre"),
        ({"y": 15.6}, "centre"),
        ({"x": -0.4}, GOOD),
        ({"sigma_x": 16}, "envelope"),
        ({"sigma_y": 16.1}, "envelope"),
        ({"sigma_x": 1.19, "sigma_y": 1.19}, "resolution"),  # 2 pi 1.19^2 = 8.9 pixels, nine parameters
        ({"sigma_x": 1.2, "sigma_y": 1.2, "frequency": 0.4}, GOOD),
        ({"frequency": 0.51}, "frequency"),
        ({"unexplained": 0.31}, "unexplained"),
        ({"unexplained": math.nan}, "flat"),
        ({"x": 99, "unexplained": 0.9}, "unexplained"),
        ({"frequency": 0}, "blob"),
        ({"frequency": 0.12}, "blob"),  # at the trough, 4.2 pixels away, the envelope is down to 0.11
        ({"frequency": 0.12, "phase": -math.pi / 2}, GOOD),  # odd: one trough and one peak of the same height
        ({"frequency": 0.12, "offset": -5}, "blob"),
        ({"frequency": 0.12, "sigma_x": 1.1, "sigma_y": 1.1}, "resolution"),
    ],
)
def test_rules(changes: dict[str, float], reason: str) -> None:
    assert judge(fits_of(**changes)) == [reason]


def test_silent_units_are_said_to_be_silent() -> None:
    assert judge(fits_of(unexplained=math.nan), torch.tensor([True])) == ["silent"]


def test_rules_of_lines_ask_for_no_second_width() -> None:
    assert judge(fits_of((1, 16), y=0, sigma_y=math.nan, sigma_x=2.5)) == [GOOD]
    assert judge(fits_of((1, 16), y=0, sigma_y=math.nan, sigma_x=16)) == ["envelope"]
    assert judge(fits_of((1, 16), y=0, sigma_y=math.nan, sigma_x=2.3)) == ["resolution"]


def test_wrong_use_of_the_rules() -> None:
    with pytest.raises(InputError, match="1 fits and 2 units"):
        judge(fits_of(), torch.tensor([True, False]))
    with pytest.raises(InputError, match=r"max_unexplained is 0; it must be above 0"):
        judge(fits_of(), max_unexplained=0)


# --- fractions ---------------------------------------------------------------------------------------


def test_wilson_interval_solves_its_own_equation() -> None:
    """Its ends are the probabilities p at which the fraction lies 1.96 standard deviations away."""
    for count, total in ((0, 7), (3, 10), (50, 60), (9, 9)):
        found = proportion(count, total)
        for end in (found.low, found.high):
            if 0 < end < 1:
                z = (found.value - end) / math.sqrt(end * (1 - end) / total)
                assert abs(z) == pytest.approx(1.959964, abs=1e-5)
    assert (proportion(0, 7).low, proportion(9, 9).high) == (0, 1)


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_interval_holds_its_fraction(pair: tuple[int, int]) -> None:
    found = proportion(*pair)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.high - found.low > 0


def test_a_fraction_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="3 of 2 is not a fraction"):
        proportion(3, 2)
