"""Two digits in far corners: what the pictures show, and how far a network gets that mixes no tokens."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snnmlp_edu import InputError, SpikingMLP, get_config
from snnmlp_edu.data.digit_pairs import DIGIT_SIDE, DIGITS, PAIR_NAMES, draw_pairs, load_digit_pairs
from snnmlp_edu.data.digits import enlarged_digits
from snnmlp_edu.ledger import load_plan
from snnmlp_edu.mfi import calibrate


def test_corners_hold_digits_and_the_label_says_whether_they_are_equal() -> None:
    for split in ("train", "test"):
        pictures, digits = load_digit_pairs(split), enlarged_digits(split, DIGIT_SIDE)
        shown = {image.numpy().tobytes(): int(digit) for image, digit in zip(*digits, strict=True)}
        first = pictures.images[:, 0, :DIGIT_SIDE, :DIGIT_SIDE].contiguous()
        second = pictures.images[:, 0, -DIGIT_SIDE:, -DIGIT_SIDE:].contiguous()
        pairs = [
            (shown[a.numpy().tobytes()], shown[b.numpy().tobytes()])
            for a, b in zip(first, second, strict=True)
        ]
        assert [int(a == b) for a, b in pairs] == pictures.labels.tolist()
        assert {a for a, _ in pairs} == set(range(DIGITS)) == {b for _, b in pairs}
        assert (first != second).flatten(1).any(1).all()  # equal digits are two pictures
        outside = pictures.images.clone()
        outside[..., :DIGIT_SIDE, :DIGIT_SIDE] = outside[..., -DIGIT_SIDE:, -DIGIT_SIDE:] = 0
        assert not outside.any()
        assert torch.equal(load_digit_pairs(split).images, pictures.images)
    with pytest.raises(InputError, match=r"the split is 'val'"):
        load_digit_pairs("val")  # type: ignore[arg-type]


def test_nine_kinds_of_pairs_are_as_frequent_as_said() -> None:
    digits = torch.arange(10).repeat_interleave(5)
    labels = torch.arange(60_000) % 2
    pairs = draw_pairs(digits, labels, seed=3)
    found = torch.stack((labels, digits[pairs.first], digits[pairs.second]), 1).unique(
        dim=0, return_counts=True
    )
    wanted = {(1, a, a): 10_000 for a in range(3)} | {
        (0, a, b): 5_000 for a, b in itertools.permutations(range(3), 2)
    }
    counts = {tuple(kind): count for kind, count in zip(found[0].tolist(), found[1].tolist(), strict=True)}
    assert counts.keys() == wanted.keys()
    assert all(abs(counts[kind] - wanted[kind]) < 5 * wanted[kind] ** 0.5 for kind in wanted)
    assert (pairs.first != pairs.second).all()
    assert set(pairs.first.tolist()) == set(range(15))  # every picture of the three digits


scores = st.lists(st.integers(-50, 50), min_size=2, max_size=6)


@given(scores, st.data())
def test_a_sum_over_the_corners_is_right_about_three_in_four_at_most(
    f: list[int], data: st.DataObject
) -> None:
    g = data.draw(st.lists(st.integers(-50, 50), min_size=len(f), max_size=len(f)))
    m = len(f)
    equal = sum(f[a] + g[a] > 0 for a in range(m)) / m
    different = sum(f[a] + g[b] <= 0 for a, b in itertools.permutations(range(m), 2)) / (m * (m - 1))
    assert (equal + different) / 2 <= 0.75


def test_three_in_four_can_be_reached() -> None:
    f, g = [1, 2, 3], [0, -1, -2]
    assert all(f[a] + g[a] > 0 for a in range(3))
    assert sum(f[a] + g[b] <= 0 for a, b in itertools.permutations(range(3), 2)) == 3  # of 6


@pytest.mark.parametrize("variant", ["none_conv", "axial_conv", "none_spiking", "axial_spiking"])
def test_logits_of_the_plan_are_sums_over_the_corners_only_without_any_mixing(
    step_by_step: None, variant: str
) -> None:
    """Four pictures, (a, b) + (c, d) - (a, d) - (c, b): for a sum over the corners that is zero."""
    plan = load_plan("far_corners")
    images = load_digit_pairs("train").images[:64].double() / 255
    network = calibrate(SpikingMLP(plan.config(variant)).double(), images).eval()  # so that neurons fire
    with torch.no_grad():
        first, second = images.clone(), images.clone()
        first[:, :, 32:, 32:] = second[:, :, :32, :32] = 0
        (a, c), (b, d) = first.chunk(2), second.chunk(2)
        logits = [network(each) for each in (a + b, c + d, a + d, c + b)]
    rest = (logits[0] + logits[1] - logits[2] - logits[3]).abs().max()
    assert (rest < 1e-12) == (variant == "none_conv")


def test_the_plan_is_about_pictures_of_this_size() -> None:
    plan = load_plan("far_corners")
    config = plan.config("none_conv")
    assert (config.image_size, config.in_channels, config.num_classes) == (64, 1, len(PAIR_NAMES))
    # The grid of the last stage has at least two tokens a side, so that no token sees two corners.
    assert config.grids[-1] == (2, 2)
    assert get_config("mlp_spe_nano").token_mixing == "axial"
