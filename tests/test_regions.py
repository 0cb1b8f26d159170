from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from variants import SKIPS, fitted

from snnmlp_edu import NetworkConfig, SpikingMLP
from snnmlp_edu.model.regions import checkpoint_activations, compile_blocks


def step(model: nn.Module, images: Tensor) -> tuple[Tensor, list[Tensor], int]:
    """Logits, all gradients, and how many numbers were kept for the backward pass."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = model(images)
    size = sum(kept.values())
    logits.square().sum().backward()
    return logits, [p.grad for p in model.parameters() if p.grad is not None], size


@pytest.mark.parametrize("backend", ["compiled", "eager"])
@pytest.mark.parametrize("skip", SKIPS)
def test_recomputed_blocks_give_the_same_step_and_keep_less(
    tiny: NetworkConfig, skip: Any, backend: Any
) -> None:
    config = tiny.replace(**fitted({"depths": (6, 1), "skip": skip, "neuron": {"backend": backend}}))
    plain = SpikingMLP(config).double()
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.uniform_(module.bias, 0.5, 1.5)
    saving = copy.deepcopy(plain)
    checkpoint_activations(saving)
    images = torch.rand(2, 2, 8, 8, dtype=torch.float64)
    (logits, gradients, size), (other, others, smaller) = step(plain, images), step(saving, images)
    torch.testing.assert_close(other, logits)
    torch.testing.assert_close(others, gradients)
    torch.testing.assert_close(saving.state_dict(), plain.state_dict())  # statistics moved once
    assert smaller < size / 2
    checkpoint_activations(saving, enabled=False)
    assert step(saving, images)[2] > size / 2


def test_blocks_are_compiled_one_by_one(tiny: NetworkConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, options: compiled.append(self))
    model = SpikingMLP(tiny)
    compile_blocks(model)
    assert compiled == [block for stage in model.stages for block in stage.blocks]


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own doing
def test_a_block_is_one_graph(tiny: NetworkConfig) -> None:
    """Seen by torch.compile as a whole, without a break, whatever runs its neurons otherwise."""
    block = SpikingMLP(tiny.replace(neuron={"backend": "compiled"})).stages[0].blocks[0].eval()
    spikes = (torch.rand(3, 2, 4, 4, 6) > 0.5).float()
    expected = block(spikes, spikes)
    whole = torch.compile(block, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(whole(spikes, spikes), expected)
