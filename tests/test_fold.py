"""Folding a network: the same spikes, the same logits, no batch norm, no gain."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import WIRINGS
from torch import Tensor, nn
from trained import assert_folded, assert_same, images_for, trained
from variants import (
    FOLDING_NORMS,
    FOLDING_SKIPS,
    HEADS,
    PATCH_ENCODINGS,
    RESETS,
    SPIKING_SKIPS,
    TOKEN_MIXINGS,
    fitted,
)

from snnmlp_edu import NetworkConfig, NeuronConfig, SpikingMLP, create_model, load_pretrained, record
from snnmlp_edu.checkpoints import load_checkpoint
from snnmlp_edu.data import load_embedded
from snnmlp_edu.mfi import fold_batch_norm
from snnmlp_edu.mfi.folding.layers import ChannelAffine, SelectedAffine


@st.composite
def configurations(draw: st.DrawFn) -> NetworkConfig:
    depths = draw(st.sampled_from([(1,), (1, 1), (2, 1)]))
    patch = draw(st.integers(1, 2))
    activation = draw(st.sampled_from(["lif", "lif", "lif", "relu"]))
    skip = draw(st.sampled_from(FOLDING_SKIPS))
    channel_norms = [*FOLDING_NORMS]
    if activation == "lif" and WIRINGS[skip][1] == 1:
        channel_norms += ["bn_token"]  # here its neuron takes the second one too
    neuron = NeuronConfig(
        beta=draw(st.sampled_from([0.0, 0.5, 0.8, 1.0])),
        threshold=draw(st.floats(0.3, 2)),
        input_gain=draw(st.floats(0.3, 2)),
        reset=draw(st.sampled_from(RESETS)),
        inclusive=draw(st.booleans()),
    )
    return NetworkConfig(
        dim=draw(st.sampled_from([3, 6])),
        depths=depths,
        patch_size=patch,
        image_size=patch * 2 ** (len(depths) - 1) * draw(st.integers(1, 3)),
        in_channels=draw(st.integers(1, 2)),
        num_classes=4,
        time_steps=draw(st.integers(1, 4)),
        expansion=1 if skip == "inner" else draw(st.integers(1, 3)),
        neuron=neuron,
        activation=activation,
        channel_norm=draw(st.sampled_from(channel_norms)),
        token_norm=draw(st.sampled_from(FOLDING_NORMS)),
        skip=skip,
        patch_encoding=draw(st.sampled_from(PATCH_ENCODINGS)),
        token_mixing=draw(st.sampled_from(TOKEN_MIXINGS)),
        head=draw(st.sampled_from(HEADS)),
    )


@given(config=configurations(), seed=st.integers(0, 2**16), timed=st.booleans())
@settings(deadline=None, max_examples=60, derandomize=True)
def test_any_network_that_folds_is_the_same_network(config: NetworkConfig, seed: int, timed: bool) -> None:
    torch.manual_seed(seed)
    images = images_for(config, timed=timed)
    network = trained(SpikingMLP(config), images)
    folded = fold_batch_norm(network)
    assert_folded(folded)
    assert_same(network, folded, images)
    assert isinstance(folded, SpikingMLP)
    assert folded.config == config


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("skip", SPIKING_SKIPS)
def test_every_map_but_the_stem_reads_only_spikes(tiny: NetworkConfig, head: str, skip: str) -> None:
    config = tiny.replace(**fitted({"head": head, "skip": skip}))
    images = images_for(config)
    folded = fold_batch_norm(trained(SpikingMLP(config), images))
    real, maps = set(), 0
    for path, module in folded.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d | SelectedAffine):
            maps += 1

            def note(layer: nn.Module, inputs: tuple[Tensor, ...], path: str = path) -> None:
                if not all(((x == 0) | (x == 1)).all() for x in inputs):
                    real.add(path)

            module.register_forward_pre_hook(note)
    folded(images)
    assert real == {"stages.0.embedding.embed.conv"}
    assert maps >= 19
    assert not any(isinstance(module, ChannelAffine) for module in folded.modules())


def test_the_network_given_stays_as_it_is(tiny: NetworkConfig) -> None:
    network = trained(SpikingMLP(tiny.replace(channel_norm="bn_token", skip="none")), images_for(tiny))
    before, described = copy.deepcopy(network.state_dict()), repr(network)
    random = torch.get_rng_state()
    folded = fold_batch_norm(network)
    assert torch.equal(torch.get_rng_state(), random)
    assert repr(network) == described
    assert list(before) == list(network.state_dict())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    pointers = {tensor.data_ptr() for tensor in before.values()}
    assert not pointers & {tensor.data_ptr() for tensor in folded.state_dict().values()}


@pytest.mark.parametrize("overrides", [{"head": "figure", "skip": "spike_bn"}, {"channel_norm": "tebn"}])
def test_folding_twice_changes_nothing(tiny: NetworkConfig, overrides: dict[str, str]) -> None:
    folded = fold_batch_norm(trained(SpikingMLP(tiny.replace(**overrides)), images_for(tiny)))
    again = fold_batch_norm(folded)
    assert repr(again) == repr(folded)
    assert list(again.state_dict()) == list(folded.state_dict())
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, folded.state_dict()[name]), name


def test_in_single_precision_logits_agree_where_no_spike_flips(tiny: NetworkConfig) -> None:
    images = images_for(tiny, batch=32)
    network = trained(SpikingMLP(tiny), images).float()
    folded, images = fold_batch_norm(network), images.float()
    assert {tensor.dtype for tensor in folded.state_dict().values()} == {torch.float32}
    before, after = record(network, images), record(folded, images)
    same = torch.stack([(before[path] == after[path]).all(0).flatten(1).all(1) for path in before]).all(0)
    assert same.sum() > 16
    expected, obtained = network(images)[same], folded(images)[same]
    assert ((obtained - expected).abs() <= 1e-4 * expected.abs().amax(1, keepdim=True)).all()


def test_the_shipped_network_gives_the_same_answers() -> None:
    checkpoint = load_checkpoint("mlp_spe_nano", neuron={"backend": "eager"})
    images = checkpoint.preprocessing(load_embedded("test").images[:100]).double()
    network = checkpoint.model.double()
    folded = fold_batch_norm(network)
    assert_folded(folded)
    assert_same(network, folded, images)
    assert torch.equal(network(images).argmax(1), folded(images).argmax(1))


def test_another_number_of_steps_is_folded_for_itself() -> None:
    network = load_pretrained("mlp_spe_nano", time_steps=6, neuron={"backend": "eager"}).double()
    images = torch.rand(2, 1, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(fold_batch_norm(network)(images), network(images), rtol=0, atol=1e-10)


@pytest.mark.parametrize("norm", ["bn", "tdbn", "none"])
@pytest.mark.parametrize("name", ["spiking_resnet34", "spiking_vgg16"])
def test_the_convolutional_baselines_fold_by_the_same_rules(name: str, norm: str) -> None:
    sizes = {"dim": 4, "depths": (1, 2), "image_size": 16, "num_classes": 5, "time_steps": 3}
    network = create_model(name, **sizes, channel_norm=norm)
    images = images_for(network.config)
    network = trained(network, images)
    folded = fold_batch_norm(network)
    assert_folded(folded)
    assert_same(network, folded, images)
