"""The spiking ResNet-34 and VGG-16: sizes, structure, and what passes between their layers."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from snnmlp_edu import InputError, create_model, get_config, record
from snnmlp_edu.baselines import RESNET34, VGG16, SpikingResNet, SpikingVGG
from snnmlp_edu.baselines.convolution import SpikePool
from snnmlp_edu.baselines.resnet import ResidualBlock
from snnmlp_edu.mfi import audit, fold_batch_norm
from snnmlp_edu.model.network import SpikingNetwork
from snnmlp_edu.model.neurons import LIF
from snnmlp_edu.model.normalisation import ThresholdBatchNorm
from snnmlp_edu.model.patches import ConvNorm

TINY = {"image_size": 16, "in_channels": 2, "num_classes": 5, "time_steps": 3}
NETWORKS: dict[str, Any] = {
    "resnet": lambda **more: SpikingResNet(RESNET34.replace(dim=4, depths=(2, 2), **TINY | more)),
    "vgg": lambda **more: SpikingVGG(VGG16.replace(dim=4, depths=(2, 1), **TINY | more)),
}


def lively(model: SpikingNetwork) -> SpikingNetwork:
    """In fp64 and evaluation mode, with weights and statistics that make every layer fire."""
    for module in model.double().eval().modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.2, 0.8)
            module.num_batches_tracked.fill_(1)
            nn.init.uniform_(module.weight, 0.8, 2.0)
            nn.init.uniform_(module.bias, 0.5, 1.5)
        elif isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.uniform_(module.bias, 0.5, 3.0)
    return model


# --- sizes -------------------------------------------------------------------------------------------


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_resnet34_has_the_published_size() -> None:
    """arXiv 1512.03385, table 1, by formula: 22 M in arXiv 2011.05280."""
    widths, depths = (64, 128, 256, 512), (3, 4, 6, 3)
    expected = 7 * 7 * 3 * 64 + 2 * 64  # stem, and scale and shift of its norm
    before = 64
    for width, depth in zip(widths, depths, strict=True):
        first = 9 * before * width + 9 * width * width + 4 * width
        projection = 0 if before == width else before * width + 2 * width
        expected += first + projection + (depth - 1) * (18 * width * width + 4 * width)
        before = width
    expected += 512 * 1000 + 1000
    with torch.device("meta"):
        assert count(create_model("spiking_resnet34")) == expected == 21_797_672


def test_vgg16_has_the_published_size() -> None:
    """arXiv 1409.1556, table 1, column D, by formula: 138 M in arXiv 2008.03658."""
    channels = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    maps = [(9 * i, o) for i, o in itertools.pairwise(channels)]
    maps += [(7 * 7 * 512, 4096), (4096, 4096), (4096, 1000)]
    biases = sum(out for _, out in maps)
    assert biases == 13_416
    with torch.device("meta"):
        model = create_model("spiking_vgg16")
    assert count(model) == sum(i * o for i, o in maps) + biases == 138_357_544


def test_time_steps_are_the_published_ones() -> None:
    assert get_config("spiking_resnet34").time_steps == 6
    assert get_config("spiking_vgg16").time_steps == 5


# --- what they compute -------------------------------------------------------------------------------


def convolve(layer: ConvNorm, spikes: Tensor, stride: int | None = None) -> Tensor:
    """One step, from the weights alone: `[B, C, H, W]` in and out."""
    current = functional.conv2d(
        spikes, layer.conv.weight, layer.conv.bias, stride or layer.conv.stride, layer.conv.padding
    )
    if isinstance(layer.norm, nn.Identity):
        return current
    bn = layer.norm.batch_norm
    factor = layer.norm.scale if isinstance(layer.norm, ThresholdBatchNorm) else 1.0
    scale = factor * bn.weight / torch.sqrt(bn.running_var + bn.eps)
    shift = bn.bias - scale * bn.running_mean
    return current * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)


class Neurons:
    """Released neuron, one step after the other: membrane halves, fires at 1, resets to 0."""

    def __init__(self) -> None:
        self.membrane: dict[int, Tensor] = {}

    def __call__(self, layer: nn.Module, current: Tensor) -> Tensor:
        assert isinstance(layer, LIF)
        u = 0.5 * current + 0.5 * self.membrane.get(id(layer), torch.zeros_like(current))
        spikes = (u >= 1).double()
        self.membrane[id(layer)] = torch.where(spikes == 1, 0.0, u)
        return spikes


def resnet_by_hand(model: Any, images: Tensor) -> Tensor:
    neurons, logits = Neurons(), []
    for _ in range(model.config.time_steps):
        stem = model.stages[0].embedding
        x = neurons(stem.neuron, convolve(stem.stem.embed, images))
        x = functional.max_pool2d(x, 3, 2, 1)
        for stage in model.stages:
            for block in stage.blocks:
                current = convolve(block.second, neurons(block.first_neuron, convolve(block.first, x)))
                halved = x.shape[-1] // current.shape[-1]
                around = convolve(block.shortcut, x, halved) if isinstance(block.shortcut, ConvNorm) else x
                x = neurons(block.neuron, current + around)
        logits.append(model.head.linear(x.mean(dim=(2, 3))))
    return torch.stack(logits)


def vgg_by_hand(model: Any, images: Tensor) -> Tensor:
    neurons, logits = Neurons(), []
    *stages, wide = model.stages
    for _ in range(model.config.time_steps):
        x = images
        for stage in stages:
            for layer, neuron in zip(stage.convolutions, stage.neurons, strict=True):
                x = neurons(neuron, convolve(getattr(layer, "embed", layer), x))
            x = functional.max_pool2d(x, 2)
        x = x.permute(0, 2, 3, 1).flatten(1)
        for synapse in wide.synapses:
            x = neurons(synapse.neuron, x @ synapse.linear.weight.T + synapse.linear.bias)
        logits.append(model.head.linear(x))
    return torch.stack(logits)


@pytest.mark.parametrize(("name", "by_hand"), [("resnet", resnet_by_hand), ("vgg", vgg_by_hand)])
def test_forward_is_the_published_network_step_by_step(name: str, by_hand: Any) -> None:
    model = lively(NETWORKS[name]())
    images = torch.rand(2, 2, 16, 16).double()
    with torch.no_grad():
        steps = model.forward_steps(images)
        torch.testing.assert_close(steps, by_hand(model, images), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(model(images), steps.mean(0))


@pytest.mark.parametrize(("channels", "side", "batch"), [(1, 56, 12), (3, 8, 2), (8, 8, 2)])
def test_gradients_of_a_strided_map_of_single_places(channels: int, side: int, batch: int) -> None:
    """PyTorch's own backward of it ends the process by a segmentation fault for the first of these shapes."""
    layer = ConvNorm(channels, 2 * channels, kernel_size=1, stride=2, norm=nn.Identity())
    spikes = torch.rand(1, batch, side, side, channels).round().requires_grad_()
    current = layer(spikes)
    weights = layer.conv.weight.double()[:, :, 0, 0]
    assert layer.conv.bias is not None
    wanted = spikes.detach().double()[:, :, ::2, ::2] @ weights.T + layer.conv.bias.double()
    torch.testing.assert_close(current.double(), wanted, rtol=1e-5, atol=1e-6)
    arriving = torch.randn_like(current)
    current.backward(arriving)
    to_spikes = torch.zeros(spikes.shape, dtype=torch.float64)
    to_spikes[:, :, ::2, ::2] = arriving.double() @ weights.detach()
    to_weights = torch.einsum("tbhwo,tbhwi->oi", arriving.double(), spikes.detach().double()[:, :, ::2, ::2])
    assert spikes.grad is not None
    assert layer.conv.weight.grad is not None
    torch.testing.assert_close(spikes.grad.double(), to_spikes, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(layer.conv.weight.grad[:, :, 0, 0].double(), to_weights, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_but_the_stem_gets_spikes(name: str) -> None:
    model = lively(NETWORKS[name]())
    arriving = {}
    for path, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and not path.endswith("embed.conv"):
            module.register_forward_pre_hook(
                lambda layer, inputs, path=path: arriving.update({path: inputs[0]})
            )
    traces = record(model, torch.rand(2, 2, 16, 16).double())
    assert all(0 < rate < 1 for rate in traces.firing_rates().values())
    arriving.pop("head.linear")  # gets the mean over the grid, which folds into its weights
    assert arriving
    for path, spikes in arriving.items():
        assert ((spikes == 0) | (spikes == 1)).all(), path


def test_grids_are_those_of_the_configuration() -> None:
    for name in ("spiking_resnet34", "spiking_vgg16"):
        config = get_config(name)
        assert [side for side, _ in config.grids] == (
            [56, 28, 14, 7] if "resnet" in name else [112, 56, 28, 14, 7]
        )
        model = create_model(name, image_size=64, dim=4, time_steps=1, num_classes=3).eval()
        sides: list[Any] = []
        for stage in model.stages[: len(config.depths)]:
            stage.register_forward_hook(lambda *seen, sides=sides: sides.append(seen[2].shape[2:4]))
        model(torch.rand(1, 3, 64, 64))
        assert sides == list(model.config.grids)


def test_tdbn_scales_by_the_currents_that_add_up() -> None:
    block = ResidualBlock(RESNET34.replace(neuron={"threshold": 0.5}), 4, 8, side=2, stride=2)
    scales = [block.first.norm.scale, block.second.norm.scale, block.shortcut.norm.scale]
    assert scales == pytest.approx([0.5, 0.5 / 2**0.5, 0.5 / 2**0.5])


def test_pooling_is_a_logical_or() -> None:
    spikes = (torch.rand(3, 2, 8, 8, 4) < 0.2).float()
    blocks = spikes.bool().unflatten(2, (4, 2)).unflatten(4, (4, 2))  # [T, B, 4, 2, 4, 2, C]
    assert torch.equal(SpikePool(2)(spikes).bool(), blocks.any(dim=5).any(dim=3))
    wide = SpikePool(3, padding=1)(spikes)
    assert wide.shape == (3, 2, 4, 4, 4)
    assert torch.equal(wide[:, :, 0, 0].bool(), spikes[:, :, :2, :2].bool().any(dim=2).any(dim=2))
    assert torch.equal(wide[:, :, 1, 2].bool(), spikes[:, :, 1:4, 3:6].bool().any(dim=2).any(dim=2))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("norm", ["bn", "tdbn", "none"])
def test_norms_can_be_exchanged(name: str, norm: str) -> None:
    model = NETWORKS[name](channel_norm=norm)
    model(torch.rand(2, 2, 16, 16)).square().sum().backward()
    for path, parameter in model.named_parameters():
        assert parameter.grad is not None, path
    assert any(p.endswith("conv.bias") for p, _ in model.named_parameters()) == (norm == "none")


@pytest.mark.parametrize("name", NETWORKS)
def test_relu_twin_and_images_with_a_time_axis(name: str) -> None:
    twin = NETWORKS[name](activation="relu", time_steps=1)
    assert not any(isinstance(module, LIF) for module in twin.modules())
    assert twin(torch.rand(2, 2, 16, 16)).shape == (2, 5)
    model = lively(NETWORKS[name]())
    images = torch.rand(2, 2, 16, 16).double()
    repeated = images.expand(3, *images.shape)
    torch.testing.assert_close(model(repeated), model(images))


# --- multiplication-free inference -------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("norm", ["bn", "tdbn", "none"])
def test_baselines_fold_and_pass_the_audit(name: str, norm: str) -> None:
    model, images = lively(NETWORKS[name](channel_norm=norm)), torch.rand(2, 2, 16, 16).double()
    folded = fold_batch_norm(model)
    with torch.no_grad():
        torch.testing.assert_close(folded(images), model(images), rtol=1e-10, atol=1e-10)
    before, after = record(model, images), record(folded, images)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[path], after[path]) for path in before)
    report = audit(folded, images)
    assert report.multiplication_free, report.violations
    assert not audit(model, images).multiplication_free


# --- bad input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["spiking_resnet34", "spiking_vgg16"])
@pytest.mark.parametrize(
    "field",
    [
        {"patch_size": 8},
        {"expansion": 4},
        {"token_norm": "ln"},
        {"skip": "none"},
        {"patch_encoding": "spiking", "dim": 63},
        {"token_mixing": "axial"},
        {"head": "figure"},
    ],
    ids=lambda field: next(iter(field)),
)
def test_fields_of_a_mixer_are_refused(name: str, field: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{name} has nothing that {next(iter(field))}=.* leave it at"):
        create_model(name, image_size=32 * 4, **field)


@pytest.mark.parametrize("name", ["spiking_resnet34", "spiking_vgg16"])
@pytest.mark.parametrize("norm", ["bn_token", "ln", "tebn"])
def test_norms_that_convolutions_cannot_have_are_refused(name: str, norm: str) -> None:
    with pytest.raises(InputError, match=f"{name} cannot have channel_norm='{norm}'; take bn, tdbn, none"):
        create_model(name, channel_norm=norm)


@pytest.mark.parametrize("name", NETWORKS)
def test_images_of_another_size_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="images have shape"):
        NETWORKS[name]()(torch.rand(2, 2, 8, 8))
