"""Calibration: every layer fires, at the rate asked for, and the network that came in is untouched."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from snnmlp_edu import InputError, NetworkConfig, NeuronConfig, SpikingMLP, create_model, record
from snnmlp_edu.mfi.calibration import HIGHEST_RATE, LOWEST_RATE, calibrate
from snnmlp_edu.model.neurons import LIF
from snnmlp_edu.model.normalisation import BatchNorm


def images_for(config: NetworkConfig, batch: int = 2) -> Tensor:
    shape = (batch, config.in_channels, config.image_size, config.image_size)
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def wide(**overrides: object) -> NetworkConfig:
    """Lines of 16 and 8 positions: enough different currents for any rate."""
    config = NetworkConfig(dim=12, depths=(1, 1), patch_size=2, image_size=32, in_channels=2, num_classes=5)
    return config.replace(**overrides)


VARIANTS: list[dict[str, object]] = [
    {},
    {"channel_norm": "bn_token", "head": "figure"},
    {"channel_norm": "none", "token_norm": "none"},
    {"channel_norm": "ln", "token_norm": "ln", "skip": "spike_bn"},
    {"channel_norm": "tdbn", "token_norm": "tdbn", "skip": "membrane", "patch_encoding": "conv"},
    {"channel_norm": "tebn", "token_norm": "tebn", "skip": "none", "token_mixing": "full"},
    {"skip": "spike", "token_mixing": "none", "neuron": {"reset": "soft", "beta": 0.8}},
    {"skip": "inner", "expansion": 1},
    {"skip": "outer", "token_norm": "none"},
]


@pytest.mark.parametrize("overrides", VARIANTS, ids=str)
@pytest.mark.parametrize("rate", [0.05, 0.3])
def test_every_layer_reaches_the_rate(overrides: dict[str, object], rate: float) -> None:
    config = wide(**overrides)
    images = images_for(config)
    rates = record(calibrate(SpikingMLP(config), images, rate), images).firing_rates()
    assert rates
    for path, measured in rates.items():
        assert measured == pytest.approx(rate, rel=0.15), path


@pytest.mark.parametrize("overrides", VARIANTS, ids=str)
def test_without_a_rate_every_layer_fires(overrides: dict[str, object]) -> None:
    config = wide(**overrides)
    images = images_for(config)
    silent = record(SpikingMLP(config), images).firing_rates()
    assert min(silent.values()) == 0  # the reason why there is a calibration
    rates = record(calibrate(SpikingMLP(config), images), images).firing_rates()
    for path, measured in rates.items():
        assert 0.7 * LOWEST_RATE < measured < 1.1 * HIGHEST_RATE, path


def test_images_with_a_time_axis() -> None:
    config = wide()
    images = torch.stack([images_for(config) for _ in range(config.time_steps)])
    rates = record(calibrate(SpikingMLP(config), images, 0.2), images).firing_rates()
    assert list(rates.values()) == pytest.approx([0.2] * len(rates), rel=0.1)


def test_one_position_gives_steps_but_no_silence() -> None:
    """Behind a map over one position a neuron hears one synapse: few rates can be reached at all."""
    model = create_model("mlp_spe_t", image_size=32, dim=12, depths=(1, 1, 1, 1))
    images = images_for(model.config)
    rates = record(calibrate(model, images), images).firing_rates()
    assert min(rates.values()) > 0


@pytest.mark.parametrize(
    ("shape", "beta", "seed"),
    [
        (
            {"dim": 6, "depths": (1, 1), "image_size": 4, "time_steps": 1, "patch_encoding": "conv"},
            0.5,
            10**6,
        ),
        ({"dim": 3, "depths": (1,), "image_size": 1, "time_steps": 3, "expansion": 2}, 1.0, 357),
    ],
)
def test_currents_that_are_alike_fire_alike_in_every_run(
    shape: dict[str, Any], beta: float, seed: int
) -> None:
    """Some of these neurons reach the threshold at one shift, and halving the interval hits it exactly."""
    neuron = NeuronConfig(beta, threshold=0.6, input_gain=1.0, inclusive=beta == 1, backend="eager")
    channels = len(shape["depths"])
    config = NetworkConfig(patch_size=1, in_channels=channels, num_classes=2, neuron=neuron, **shape)
    torch.manual_seed(seed)
    model = SpikingMLP(config)
    side = config.image_size
    images = torch.rand(4, channels, side, side, generator=torch.Generator().manual_seed(seed))
    assert min(record(calibrate(model, images, 0.2, seed), images).firing_rates().values()) > 0


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 100), st.sampled_from([None, 0.1]))
def test_the_seed_decides(seed: int, rate: float | None) -> None:
    config = wide(depths=(1,))
    torch.manual_seed(0)
    model = SpikingMLP(config)
    images = images_for(config)
    first = calibrate(model, images, rate, seed).state_dict()
    second = calibrate(model, images, rate, seed).state_dict()
    other = calibrate(model, images, rate, seed + 1).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["head.norm.batch_norm.weight"], other["head.norm.batch_norm.weight"])


def test_model_and_global_random_state_stay_as_they_were() -> None:
    model = SpikingMLP(wide())
    before, randomness = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    calibrated = calibrate(model, images_for(model.config))
    assert torch.equal(torch.get_rng_state(), randomness)
    assert model.training
    assert not calibrated.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    for module in (*model.modules(), *calibrated.modules()):
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_statistics_are_those_of_the_currents() -> None:
    """A hand-made layer: the normalised current has the drawn shift as mean, the drawn scale as deviation."""
    layer = nn.Sequential(nn.Linear(3, 4), BatchNorm("channel", 4))
    x = torch.randn(2, 5, 1, 1, 3)
    calibrated = calibrate(layer, x)
    norm = calibrated[1].batch_norm
    scale, shift = norm.weight, norm.bias
    assert (scale.abs() >= 0.5).all()
    assert (scale.abs() <= 1.5).all()
    assert norm.num_batches_tracked == 1
    with torch.no_grad():
        out = calibrated(x).flatten(0, 3)
        current = layer[0](x).flatten(0, 3)
    torch.testing.assert_close(norm.running_mean, current.mean(0))
    torch.testing.assert_close(norm.running_var, current.var(0, correction=0))
    torch.testing.assert_close(out.mean(0), shift.detach())
    torch.testing.assert_close(out.std(0, correction=0), scale.abs().detach(), rtol=1e-3, atol=1e-5)


def test_a_feature_that_does_not_vary_is_not_divided_by_nothing() -> None:
    calibrated = calibrate(BatchNorm("channel", 2), torch.full((2, 3, 1, 1, 2), 0.5))
    assert calibrated.batch_norm.running_var.tolist() == [1.0, 1.0]


def test_relu_twin_gets_statistics() -> None:
    model = SpikingMLP(wide(activation="relu", time_steps=1))
    calibrated = calibrate(model, images_for(model.config))
    tracked = [b for name, b in calibrated.named_buffers() if name.endswith("num_batches_tracked")]
    assert tracked
    assert all(count == 1 for count in tracked)
    with pytest.raises(InputError, match="no LIF neurons"):
        calibrate(model, images_for(model.config), 0.1)


@pytest.mark.parametrize("rate", [0, 1, -0.1, float("nan")])
def test_rates_out_of_range(rate: float) -> None:
    model = SpikingMLP(wide())
    with pytest.raises(InputError, match=r"rate is .*0 and 1"):
        calibrate(model, images_for(model.config), rate)


def test_bad_images() -> None:
    model = SpikingMLP(wide())
    with pytest.raises(InputError, match=r"holds none|NaN or infinite"):
        calibrate(model, images_for(model.config, batch=0))
    with pytest.raises(InputError, match=r"holds none|NaN or infinite"):
        calibrate(model, images_for(model.config) * float("nan"))
    with pytest.raises(InputError, match="image_size"):
        calibrate(model, torch.rand(1, 2, 8, 8))


def test_neurons_without_anything_to_shift() -> None:
    with pytest.raises(InputError, match="neurons of 0 fire at 0, and no layer with a shift or bias"):
        calibrate(nn.Sequential(LIF()), torch.rand(4, 2, 1, 1, 3), 0.1)
