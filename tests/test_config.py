from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from variants import SKIPS, fitted

from snnmlp_edu import InputError, NetworkConfig, NeuronConfig


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"beta": -0.1}, r"beta is -0\.1;.* 0 to 1"),
        ({"beta": 1.5}, r"beta is 1\.5;.* 0 to 1"),
        ({"beta": float("nan")}, "beta is nan"),
        ({"beta": "half"}, "beta is 'half'"),
        ({"threshold": 10**400}, "threshold is 1000"),
        ({"threshold": 0}, "threshold is 0; .* above 0"),
        ({"input_gain": -1}, "input_gain is -1; .* above 0"),
        ({"slope": 0}, "slope is 0; .* above 0"),
        ({"reset": "sotf"}, "reset is 'sotf'.*hard, soft; did you mean 'soft'"),
        ({"surrogate": "arctan"}, "surrogate is 'arctan'.*did you mean 'atan'"),
        ({"backend": "numpy"}, "backend is 'numpy'.*auto, compiled, eager, snntorch"),
        ({"inclusive": 1}, "inclusive is 1; .*true or false"),
    ],
)
def test_a_wrong_neuron_names_the_field_and_the_fix(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        NeuronConfig(**fields)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"time_steps": 0}, "time_steps is 0; .* 1 to 1,000"),
        ({"time_steps": 2.5}, r"time_steps is 2\.5"),
        ({"dim": 20}, "dim is 20; spiking patch encoding splits the width into 3 .* take 21, or patch_enc"),
        ({"image_size": 30}, r"image_size is 30; it must be divisible by .* = 32, so take 32"),
        ({"image_size": 100}, r"image_size is 100; .* = 32, so take 96"),
        ({"depths": ()}, r"depths is \(\)"),
        ({"depths": 3}, "depths is 3"),
        ({"depths": (2, 0)}, r"depths is \(2, 0\)"),
        ({"neuron": 0.5}, r"neuron is 0\.5; .*NeuronConfig"),
        ({"skip": "stages"}, "skip is 'stages'.*did you mean 'stage'"),
        ({"skip": "inner"}, "expansion is 3; skip='inner' .* take expansion=1"),
        ({"token_norm": "bn_token"}, "token_norm is 'bn_token'.*bn, ln, tdbn, tebn, none"),
        ({"activation": "gelu"}, "activation is 'gelu'.*lif, relu"),
        ({"time_steps": 1_001}, "time_steps is 1001"),
        ({"dim": 300_000}, "dim is 300000"),
        ({"image_size": 32_000}, "image_size is 32000"),
        ({"in_channels": 10**6}, "in_channels is 1000000"),
        ({"num_classes": 10**8}, "num_classes is 100000000"),
        ({"expansion": 10**4}, "expansion is 10000"),
        ({"depths": (10**6,)}, r"depths is \(1000000,\)"),
        ({"depths": (1,) * 10**4}, "depths is .*stages"),
        ({"dim": 30_000}, "dim is 30000, .*weights"),
        ({"num_classes": 10**7, "dim": 12_000, "depths": (1,)}, "num_classes 10000000 .*weights"),
        ({"token_mixing": "full", "image_size": 4096}, "1024 tokens per side .*weights"),
    ],
)
def test_a_wrong_network_names_the_field_and_the_fix(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        NetworkConfig(**fields)
    assert "\n" not in str(error.value)


def test_an_unknown_field_suggests_the_nearest() -> None:
    with pytest.raises(
        InputError, match=r"NetworkConfig has no field 'timesteps'; did you mean 'time_steps'?"
    ):
        NetworkConfig().replace(timesteps=2)
    with pytest.raises(InputError, match="NeuronConfig has no field 'leak'"):
        NetworkConfig().replace(neuron={"leak": 0.5})


def test_a_width_that_3_does_not_divide_is_fine_where_nothing_divides_it() -> None:
    assert NetworkConfig(dim=20, patch_encoding="conv").widths == (20, 40, 80, 160)
    assert NetworkConfig(dim=20, depths=(4,)).widths == (20,)


def test_configurations_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        NetworkConfig().dim = 3  # type: ignore[misc]


@given(
    stages=st.integers(1, 4),
    dim=st.integers(1, 40),
    steps=st.integers(1, 9),
    beta=st.floats(0, 1),
    skip=st.sampled_from(SKIPS),
)
def test_a_configuration_survives_its_own_json(
    stages: int, dim: int, steps: int, beta: float, skip: Any
) -> None:
    sizes = {"dim": 3 * dim, "depths": (1,) * stages, "time_steps": steps}
    config = NetworkConfig(**fitted({"skip": skip}), **sizes, neuron=NeuronConfig(beta=beta))
    assert NetworkConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_the_neuron_of_early_2022() -> None:
    neuron = NeuronConfig.early_2022()
    assert (neuron.beta, neuron.threshold, neuron.surrogate, neuron.slope) == (0.8, 0.5, "dspike", 3.0)
