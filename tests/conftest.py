from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from snnmlp_edu import NetworkConfig
from snnmlp_edu.mfi import events


@pytest.fixture(autouse=True)
def deterministic(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Each test starts from one seed, with deterministic algorithms, default neuron backend, own cache."""
    monkeypatch.setenv("SNNMLP_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.delenv("SNNMLP_LIF_BACKEND", raising=False)
    torch.manual_seed(0)
    torch.set_num_threads(1)  # the tests' tensors are too small to share
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def tiny() -> NetworkConfig:
    """Two stages, small enough for fp64 on any machine."""
    return NetworkConfig(
        dim=6, depths=(2, 1), patch_size=2, image_size=8, in_channels=2, num_classes=5, time_steps=3
    )


@pytest.fixture(params=[True, False], ids=["compiled", "torch"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Events are found and added by compiled loops, and then by PyTorch's own operations."""
    if request.param and not events.HAS_NUMBA:
        pytest.skip("numba is not installed")
    monkeypatch.setattr(events, "HAS_NUMBA", request.param)
    return request.param
