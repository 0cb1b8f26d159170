"""Currents that users hand over by accident: every backend takes them, or says what is wrong."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from snnmlp_edu import LIF, NetworkConfig, NeuronConfig, SpikingMLP

BACKENDS = ("compiled", "eager", "snntorch")
EAGER = LIF(NeuronConfig(backend="eager"))


def layer(backend: Any) -> LIF:
    return LIF(NeuronConfig(backend=backend))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.transpose(0, 1),
        lambda x: x[::2, :, 1::3],
        lambda x: x[:1].expand(4, -1, -1, -1, -1),
        lambda x: x.permute(0, 1, 4, 2, 3),  # channels first, over channels-last memory
        lambda x: x.permute(0, 1, 4, 2, 3).contiguous().permute(0, 1, 3, 4, 2),  # the other way round
        lambda x: x.flatten(1).t().t(),
    ],
    ids=["transposed", "strided", "expanded", "channels first", "channels-first memory", "flat"],
)
def test_views_of_any_layout(backend: str, view: Any) -> None:
    source = (torch.randn(4, 3, 5, 6, 7) * 2 + 1).requires_grad_()
    current = view(source)
    weight = torch.randn(current.shape)
    spikes = layer(backend)(current)
    expected = EAGER(current.detach().clone(memory_format=torch.contiguous_format).requires_grad_())
    assert torch.equal(spikes, expected)
    (gradient,) = torch.autograd.grad((spikes * weight).sum(), source)
    (reference,) = torch.autograd.grad((EAGER(view(source)) * weight).sum(), source)
    torch.testing.assert_close(gradient, reference)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_number_of_steps_may_change_between_calls(backend: str) -> None:
    neuron, current = layer(backend), torch.randn(8, 50) * 2 + 1
    for steps in (3, 8, 1, 3):
        assert torch.equal(neuron(current[:steps]), EAGER(current)[:steps])


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_empty_batch_has_empty_spikes_and_gradients(backend: str) -> None:
    current = torch.empty(4, 0, 8, 8, 3, requires_grad=True)
    spikes = layer(backend)(current)
    assert spikes.shape == current.shape
    spikes.sum().backward()
    assert current.grad is not None
    assert current.grad.shape == current.shape


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_off_the_gpu(backend: str, dtype: torch.dtype) -> None:
    """What this device cannot do in half precision is done in fp32, and comes back in half."""
    current = (torch.randn(4, 300) * 2 + 1).to(dtype).requires_grad_()
    spikes = layer(backend)(current)
    assert spikes.dtype == dtype
    assert torch.equal(spikes.float(), EAGER(current.float()))
    spikes.float().sum().backward()
    assert current.grad is not None
    assert current.grad.dtype == dtype


@pytest.mark.parametrize("backend", ["compiled", "eager"])
def test_a_network_takes_images_in_any_memory(tiny: NetworkConfig, backend: Any) -> None:
    model = SpikingMLP(tiny.replace(neuron={"backend": backend})).double()
    images: Tensor = torch.rand(5, 2, 8, 8, dtype=torch.float64)
    expected = model(images)
    last = images.contiguous(memory_format=torch.channels_last)
    strided = torch.rand(5, 2, 8, 16, dtype=torch.float64)[..., ::2].copy_(images)
    for same in (last, strided, images.transpose(2, 3).contiguous().transpose(2, 3)):
        torch.testing.assert_close(model(same), expected)
