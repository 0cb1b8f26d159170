"""Networks in fp64 with real statistics, awkward scales and no silent layer; and what folding must keep."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from snnmlp_edu import LIF, NetworkConfig, record
from snnmlp_edu.model.network import SpikingNetwork
from snnmlp_edu.model.normalisation import BatchNorm, LayerNorm, TemporalBatchNorm
from snnmlp_edu.model.patches import ConvNorm
from snnmlp_edu.model.synapses import Synapse

NORMS = (BatchNorm, LayerNorm, nn.modules.batchnorm._BatchNorm, nn.LayerNorm)


def images_for(config: NetworkConfig, batch: int = 3, timed: bool = False) -> Tensor:
    steps = (config.time_steps,) if timed else ()
    shape = (*steps, batch, config.in_channels, config.image_size, config.image_size)
    return torch.rand(shape, dtype=torch.float64)


def trained(network: SpikingNetwork, images: Tensor) -> SpikingNetwork:
    """In fp64: real statistics, scales of both signs and zero, a variance of zero, and every layer fires."""
    network, config = network.double(), network.config
    level = config.neuron.threshold / config.neuron.input_gain  # the current that fires a neuron at once

    def drive(features: int) -> Tensor:
        """Shifts: every second one fires its neuron even alone, the others may be negative."""
        shifts = torch.empty(features, dtype=torch.float64).uniform_(-1, 1)
        shifts[::2] = shifts[::2].abs() + 1.2
        return level * shifts

    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, BatchNorm):
                bn = module.batch_norm
                bn.momentum = None  # the statistics of the one batch to come
                bn.weight.uniform_(-1, 1).mul_(level)
                bn.weight[::3] = 0
                bn.weight[1:2] *= bn.eps**0.5  # whose variance becomes 0 below
                bn.bias.copy_(drive(bn.num_features))
            if isinstance(module, TemporalBatchNorm):
                module.step_scale.uniform_(0.9, 1.6)
                module.step_scale[1:].mul_(-1 if config.time_steps > 2 else 1)
            if isinstance(module, Synapse | ConvNorm) and isinstance(module.norm, nn.Identity):
                linear = module.conv if isinstance(module, ConvNorm) else module.linear
                linear.bias.copy_(drive(len(linear.bias)))
                linear.weight[0].abs_()  # spikes do not hold the first feature back
        network.train()(images)
        for module in network.modules():
            if isinstance(module, BatchNorm):
                module.batch_norm.running_var[1:2] = 0
    return network.eval()


def assert_same(network: nn.Module, folded: nn.Module, images: Tensor) -> None:
    before, after = record(network, images), record(folded, images)
    assert list(before) == list(after)
    for path, spikes in before.items():
        assert spikes.sum() > 0, f"{path} never fires"
        if isinstance(network.get_submodule(path), LIF):
            assert torch.equal(spikes, after[path]), path
    with torch.no_grad():
        expected, obtained = network(images), folded(images)
        torch.testing.assert_close(folded.forward_steps(images).sum(dim=0), obtained)
    torch.testing.assert_close(obtained, expected, rtol=0, atol=1e-10 * max(1, expected.abs().max().item()))


def assert_folded(folded: nn.Module) -> None:
    assert not any(isinstance(module, NORMS) for module in folded.modules())
    assert all(module.config.input_gain == 1 for module in folded.modules() if isinstance(module, LIF))
    assert folded.not_folded == []
    assert not any(module.training for module in folded.modules())
    assert not any(parameter.requires_grad for parameter in folded.parameters())
