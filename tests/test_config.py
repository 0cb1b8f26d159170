from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from variants import SKIPS

from snnmlp_edu import InputError, NetworkConfig, NeuronConfig


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"beta": -0.1}, r"beta is -0\.1; the leak factor must lie in \[0, 1\]"),
        ({"beta": 1.5}, r"beta is 1\.5; the leak factor must lie in \[0, 1\]"),
        ({"beta": float("nan")}, "beta is nan; it must be a finite number"),
        ({"beta": "half"}, "beta is 'half'; it must be a finite number"),
        ({"threshold": 10**400}, "it must be a finite number above 0"),
        ({"threshold": 0}, "threshold is 0; it must be a finite number above 0"),
        ({"input_gain": -1}, "input_gain is -1; it must be a finite number above 0"),
        ({"slope": 0}, "slope is 0; it must be a finite number above 0"),
        ({"reset": "sotf"}, "reset is 'sotf'; choose one of hard, soft; did you mean 'soft'?"),
        ({"surrogate": "arctan"}, "surrogate is 'arctan'; choose one of .* did you mean 'atan'?"),
        ({"backend": "numpy"}, "backend is 'numpy'; choose one of auto, compiled, eager, snntorch"),
        ({"inclusive": 1}, "inclusive is 1; it must be true or false"),
    ],
)
def test_a_wrong_neuron_names_the_field_and_the_fix(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        NeuronConfig(**fields)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"time_steps": 0}, "time_steps is 0; it must be a whole number of at least 1"),
        ({"time_steps": 2.5}, r"time_steps is 2\.5; it must be a whole number"),
        ({"dim": 20}, "dim is 20; spiking patch encoding splits the width into 3 .* take 21, or patch_enc"),
        ({"image_size": 30}, r"image_size is 30; it must be divisible by .* = 32, so take 32"),
        ({"image_size": 100}, r"image_size is 100; .* = 32, so take 96"),
        ({"depths": ()}, r"depths is \(\); give one number of blocks for each stage"),
        ({"depths": 3}, "depths is 3; give one number of blocks for each stage"),
        ({"depths": (2, 0)}, "depths is 0; it must be a whole number of at least 1"),
        ({"neuron": 0.5}, r"neuron is 0\.5; it must be a NeuronConfig"),
        ({"skip": "stages"}, "skip is 'stages'; choose one of .* did you mean 'stage'?"),
        ({"token_norm": "bn_token"}, "token_norm is 'bn_token'; choose one of bn, ln, tdbn, tebn, none"),
        ({"activation": "gelu"}, "activation is 'gelu'; choose one of lif, relu"),
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
    config = NetworkConfig(
        dim=3 * dim, depths=(1,) * stages, time_steps=steps, skip=skip, neuron=NeuronConfig(beta=beta)
    )
    assert NetworkConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_the_neuron_of_early_2022() -> None:
    neuron = NeuronConfig.early_2022()
    assert (neuron.beta, neuron.threshold, neuron.surrogate, neuron.slope) == (0.8, 0.5, "dspike", 3.0)
