"""The estimate of a training's time, against numbers worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snnmlp_edu.errors import InputError
from snnmlp_edu.training.scaling import IMAGENET_IMAGES, estimate, ring_seconds


def test_one_device_by_hand() -> None:
    found = estimate(0.2, 64, parameters=25_000_000, epochs=100)
    # 1,281,167 // 64 = 20,018 steps of 0.2 s
    assert found.steps_per_epoch == 20_018
    assert found.epoch_seconds == pytest.approx(4003.6)
    assert found.total_seconds == pytest.approx(400_360)
    assert found.communication_seconds == found.communication_share == 0
    assert found.images_per_second == pytest.approx(320)
    assert found.gpu_hours == pytest.approx(400_360 / 3600)
    assert found.memory_bytes is None


def test_eight_devices_by_hand() -> None:
    # 25 M weights of 4 bytes are 100 MB; 2 * 7/8 * 100 MB at 10 GB/s take 17.5 ms.
    found = estimate(0.2, 64, parameters=25_000_000, gpus=8, bandwidth=10e9)
    assert found.communication_seconds == pytest.approx(0.0175)
    assert found.step_seconds == pytest.approx(0.2175)
    assert found.communication_share == pytest.approx(0.0175 / 0.2175)
    assert found.global_batch == 512
    assert found.steps_per_epoch == 2502  # 1,281,167 // 512
    assert found.epoch_seconds == pytest.approx(2502 * 0.2175)
    assert found.gpu_hours == pytest.approx(8 * 100 * 2502 * 0.2175 / 3600)


def test_memory_by_hand() -> None:
    # SGD: weight, gradient and momentum, 12 bytes a weight; AdamW 16; and 64 images of 3 MB.
    for optimizer, bytes_a_weight in {"sgd": 12, "adamw": 16}.items():
        found = estimate(0.2, 64, parameters=1_000_000, optimizer=optimizer, activation_bytes=3e6)
        assert found.memory_bytes == pytest.approx(bytes_a_weight * 1e6 + 192e6)


@given(st.integers(1, 1024), st.integers(1, 10**9), st.floats(1e6, 1e13))
def test_a_ring_sends_every_byte_at_most_twice(gpus: int, parameters: int, bandwidth: float) -> None:
    once = 4 * parameters / bandwidth
    seconds = ring_seconds(gpus, parameters, bandwidth)
    assert seconds <= 2 * once * (1 + 1e-12)
    assert (seconds == 0) == (gpus == 1)
    if gpus > 1:
        assert seconds >= once * (1 - 1e-12)


@given(st.integers(1, 9), st.floats(0.01, 10))
def test_with_an_endless_bandwidth_n_devices_are_n_times_as_fast(power: int, seconds: float) -> None:
    images = 512 * 8
    one = estimate(seconds, 8, parameters=10, images=images)
    many = estimate(seconds, 8, parameters=10, images=images, gpus=2**power)
    assert many.total_seconds == pytest.approx(one.total_seconds / 2**power)
    assert many.gpu_hours == pytest.approx(one.gpu_hours)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step_seconds": 0}, "step_seconds is 0; it must be above 0"),
        ({"step_seconds": math.nan}, "step_seconds is nan"),
        ({"batch": -1}, "batch is -1"),
        ({"gpus": 0}, "gpus is 0"),
        ({"bandwidth": 0.0}, r"bandwidth is 0\.0"),
        ({"optimizer": "lion"}, "optimizer is 'lion'; choose one of sgd, adamw"),
        ({"gpus": 100_000}, f"takes 6400000 images and there are only {IMAGENET_IMAGES}; take fewer gpus"),
    ],
)
def test_values_out_of_range(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        estimate(**{"step_seconds": 0.2, "batch": 64, "parameters": 10} | changes)
