"""The engine's logits are those of the network in whole numbers, whatever the network."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args

import numpy as np
import pytest
import torch
from compilers import needs_compiler
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from variants import HEADS, RESETS, SPIKING_SKIPS, fitted

from snnmlp_edu import NetworkConfig, NeuronConfig
from snnmlp_edu.checkpoints import list_pretrained, load_checkpoint
from snnmlp_edu.config import ChannelNorm, PatchEncoding, TokenMixingName, TokenNorm
from snnmlp_edu.data import load_embedded
from snnmlp_edu.engine import compile_network
from snnmlp_edu.engine.constants import rows
from snnmlp_edu.engine.exporting import write_network
from snnmlp_edu.engine.file import NetworkFile
from snnmlp_edu.errors import InputError
from snnmlp_edu.mfi import calibrate, event_driven, fold_batch_norm
from snnmlp_edu.model.network import SpikingMLP
from snnmlp_edu.registry import get_config, list_models

pytestmark = needs_compiler

SMALL = NetworkConfig(
    dim=6, depths=(1, 1), patch_size=2, image_size=16, in_channels=1, num_classes=4, expansion=2
)


@st.composite
def networks(draw: Any) -> NetworkConfig:
    """Configurations with every kind of part, small."""

    def one_of(values: Any) -> Any:
        return draw(st.sampled_from(list(values)))

    stages = draw(st.integers(1, 3))
    patch = draw(st.integers(1, 3))
    side = draw(st.integers(1, 6 if stages == 1 else 3))
    neuron = NeuronConfig(
        beta=one_of((0.5, 0.0, 0.25, 1.0)),
        threshold=one_of((1.0, 0.6)),
        input_gain=one_of((0.5, 1.0)),
        reset=one_of(RESETS),
        inclusive=draw(st.booleans()),
        backend="eager",
    )
    skip = one_of(SPIKING_SKIPS)
    channel_norms = [n for n in get_args(ChannelNorm) if n != "ln" and (n != "bn_token" or skip == "none")]
    return NetworkConfig(
        dim=3 * draw(st.integers(1, 8)),
        depths=(1,) * (stages - 1) + (draw(st.integers(1, 2)),),
        patch_size=patch,
        image_size=patch * side * 2 ** (stages - 1),
        in_channels=draw(st.integers(1, 3)),
        num_classes=one_of((2, 17)),
        time_steps=one_of((4, 1, 3, 5, 32) if side < 3 else (4, 1, 3)),
        expansion=1 if skip == "inner" else draw(st.integers(1, 3)),
        neuron=neuron,
        channel_norm=one_of(channel_norms),
        token_norm=one_of([n for n in get_args(TokenNorm) if n != "ln"]),
        skip=skip,
        patch_encoding=one_of(get_args(PatchEncoding)),
        token_mixing=one_of(get_args(TokenMixingName)),
        head=one_of(HEADS),
    )


def folded(config: NetworkConfig, seed: int) -> SpikingMLP:
    """A network with random weights that fires, and so with statistics worth folding."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    network = SpikingMLP(config)
    shape = (4, config.in_channels, config.image_size, config.image_size)
    network = calibrate(network, torch.rand(shape, generator=generator), rate=0.2, seed=seed)
    return fold_batch_norm(network.eval())


def images_of(config: NetworkConfig, seed: int) -> torch.Tensor:
    """Random images, one that is black and one that is white."""
    generator = torch.Generator().manual_seed(seed)
    shape = (4, config.in_channels, config.image_size, config.image_size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    images[2], images[3] = 0, 255
    return images


# The sums of one map, shifted to the left, exceed 16 bits: its neurons have 32.
LARGE_SUMS = NetworkConfig(
    dim=12,
    depths=(1, 1),
    patch_size=1,
    image_size=2,
    in_channels=1,
    num_classes=2,
    expansion=1,
    neuron=NeuronConfig(beta=0.0, threshold=0.6, input_gain=1.0, inclusive=False, backend="eager"),
)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(config=networks(), seed=st.integers(0, 10**6))
@example(config=dataclasses.replace(SMALL, image_size=2 * 2 * 20, token_mixing="axial"), seed=0)  # long lines
@example(config=dataclasses.replace(SMALL, dim=78, depths=(1,), patch_size=4, in_channels=3), seed=1)
@example(config=LARGE_SUMS, seed=0)
@torch.inference_mode()
def test_logits_equal_those_of_the_network_in_whole_numbers(config: NetworkConfig, seed: int) -> None:
    network = folded(config, seed)
    images = images_of(config, seed)
    expected = event_driven(network, weights="int8")(images)
    assert torch.equal(compile_network(network)(images), expected)


SHIPPED = [name for name in list_pretrained() if name.startswith("mlp_spe") and "bn_token" not in name]


@pytest.mark.parametrize("name", SHIPPED)
@torch.inference_mode()
def test_shipped_networks_give_the_same_logits_on_embedded_images(name: str) -> None:
    checkpoint = load_checkpoint(name)
    network = fold_batch_norm(checkpoint.model)
    images = load_embedded("test").images[:: 1000 // 24]
    around = (checkpoint.preprocessing.side - images.shape[-1]) // 2
    images = torch.nn.functional.pad(images, (around,) * 4)
    expected = event_driven(network, weights="int8")(images)
    assert torch.equal(compile_network(network)(images), expected)


@pytest.mark.parametrize("name", [n for n in list_models() if n.startswith("mlp_spe")])
@torch.inference_mode()
def test_every_preset_runs_at_a_small_size(name: str) -> None:
    small = {"image_size": 64, "depths": (1, 1, 1, 1), "num_classes": 10, "neuron": {"backend": "eager"}}
    config = get_config(name) if name.endswith(("nano", "micro")) else get_config(name, **small)
    network = folded(config, 0)
    images = images_of(config, 0)[1:3]
    expected = event_driven(network, weights="int8")(images)
    assert torch.equal(compile_network(network)(images), expected)


@pytest.mark.parametrize("skip", SPIKING_SKIPS)
@torch.inference_mode()
def test_additions_and_spikes_are_those_that_the_readable_form_counts(skip: str) -> None:
    config = SMALL.replace(**fitted({"skip": skip}), neuron={"backend": "eager"})
    network = folded(config, 3)
    program, readable = compile_network(network), event_driven(network, weights="int8")
    image = images_of(config, 3)[:1]
    seen: dict[str, torch.Tensor] = {}
    for path, module in readable.named_modules():
        if hasattr(module, "word"):
            module.register_forward_hook(lambda _, __, out, path=path: seen.__setitem__(path, out))
    readable(image)
    assert program.additions(image) == readable.synaptic_operations
    spikes = program.spikes(image)
    assert set(spikes) == set(seen)
    for path, fired in spikes.items():
        assert torch.equal(fired, seen[path].flatten(2, 3)[:, 0].to(torch.uint8)), path


def test_what_does_not_fit_the_engine_is_refused_in_one_line() -> None:
    config = dataclasses.replace(SMALL, time_steps=33, neuron=NeuronConfig(backend="eager"))
    readable = event_driven(folded(config, 0), weights="int8")
    with pytest.raises(InputError, match="time_steps is 33"):
        write_network(readable)


def test_a_constant_that_does_not_fit_its_type_is_refused_and_not_wrapped() -> None:
    file = NetworkFile(steps=4)
    assert file.constant(np.array([-(2**15), 2**15 - 1]), "i2") == 0
    with pytest.raises(InputError, match="int16"):
        file.constant(np.array([2**15]), "i2")


def test_thresholds_of_other_places_are_refused() -> None:
    config = dataclasses.replace(
        SMALL, skip="none", channel_norm="bn_token", neuron=NeuronConfig(backend="eager")
    )
    readable = event_driven(folded(config, 0), weights="int8")
    up = readable.stages[0].blocks[0].channel.up.neuron
    write_network(readable)
    lines = readable.stages[0].blocks[0].token.positions.rows  # which have fewer places than the grid
    lines.synapse.neuron = up
    with pytest.raises(InputError, match="64 thresholds along token"):
        write_network(readable)


def test_tables_are_sums_of_all_patterns_and_rows_of_two_fit_a_byte() -> None:
    """The format by hand: a map of two inputs and one output, as the file holds it."""
    file = NetworkFile(steps=4)
    weights = np.zeros((1, 8, 32), int)
    weights[0, :2, 0], weights[0, 1, 16] = (-63, 5), 7
    fields = rows(file, weights)
    content = file.constants[fields["rows"] :][: 9 * 32]
    stored = np.frombuffer(bytes(content), np.uint8).reshape(9, 16, 2)
    assert stored[0, 0].tolist() == [64 - 63, 0]
    assert stored[1, 0].tolist() == [64 + 5, 7]
    assert (stored[2:] == (64, 0)).all()  # no weights, and the row for odd numbers
