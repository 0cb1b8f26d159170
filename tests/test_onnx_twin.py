"""The graphs of the ReLU twin against the PyTorch network that they are written from."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import pytest
import torch
from variants import FOLDING_NORMS, FOLDING_SKIPS, HEADS, PATCH_ENCODINGS, TOKEN_MIXINGS, fitted

from snnmlp_edu import InputError, NetworkConfig, SpikingMLP
from snnmlp_edu.benchmark.onnx_twin import LAYOUTS, Layout, OnnxNetwork, check_installed, quantise, write_twin
from snnmlp_edu.mfi import calibrate, fold_batch_norm

missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
needs_runtime = pytest.mark.skipif(
    bool(missing), reason=f"{' and '.join(missing)} of the extra [bench] not installed"
)


def twin(config: NetworkConfig, **changes: Any) -> Any:
    """A folded twin whose every constant differs from what it was made with."""
    config = config.replace(activation="relu", time_steps=1).replace(**changes)
    images = torch.rand(4, config.in_channels, config.image_size, config.image_size)
    return fold_batch_norm(calibrate(SpikingMLP(config), images))


VARIANTS: list[dict[str, Any]] = [
    *(fitted({"skip": name}) for name in FOLDING_SKIPS),
    *({"patch_encoding": name} for name in PATCH_ENCODINGS),
    *({"token_mixing": name} for name in TOKEN_MIXINGS),
    *({"head": name} for name in HEADS),
    *({"channel_norm": name, "token_norm": name} for name in FOLDING_NORMS),
    {"patch_size": 1, "in_channels": 1, "expansion": 1},
    {"image_size": 24, "depths": (1, 1, 1), "dim": 3, "num_classes": 2},
]


@needs_runtime
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_the_graph_computes_what_the_network_does(
    tiny: NetworkConfig, changes: dict[str, Any], layout: Layout
) -> None:
    folded = twin(tiny, **changes)
    config = folded.config
    images = torch.rand(3, config.in_channels, config.image_size, config.image_size)
    expected = folded(images)
    assert expected.std() > 0.01
    graph = OnnxNetwork(write_twin(folded, layout))
    torch.testing.assert_close(graph(images), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(graph(images[:1]), expected[:1], rtol=1e-4, atol=1e-4)


@needs_runtime
@pytest.mark.parametrize("layout", LAYOUTS)
def test_in_int8_it_computes_nearly_the_same(tiny: NetworkConfig, layout: Layout) -> None:
    folded = twin(tiny)
    images = torch.rand(64, 2, 8, 8)
    graph = write_twin(folded, layout)
    smaller = quantise(graph, images)
    assert b"DequantizeLinear" in smaller
    assert b"DequantizeLinear" not in graph
    expected, found = folded(images), OnnxNetwork(smaller, threads=2)(images)
    assert 0 < (found - expected).abs().mean() < 0.1 * expected.std()


@needs_runtime
def test_a_network_that_is_no_folded_twin_is_refused(tiny: NetworkConfig) -> None:
    with pytest.raises(InputError, match=r"activation is lif and time_steps is 3"):
        write_twin(SpikingMLP(tiny), "channels first")
    unfolded = SpikingMLP(tiny.replace(activation="relu", time_steps=1))
    with pytest.raises(InputError, match=r"ConvNorm holds a BatchNorm.*fold_batch_norm"):
        write_twin(unfolded, "channels first")
    with pytest.raises(InputError, match=r"SpikingMLP.*Linear"):
        write_twin(torch.nn.Linear(2, 2), "channels first")
    with pytest.raises(InputError, match="layout"):
        write_twin(twin(tiny), "columns")  # type: ignore[arg-type]


@needs_runtime
def test_a_layer_of_another_kind_is_named(tiny: NetworkConfig) -> None:
    folded = twin(tiny)
    folded.stages[1].neuron = torch.nn.GELU()
    with pytest.raises(InputError, match=r"GELU.*onnx_twin\.py"):
        write_twin(folded, "channels last")


@pytest.mark.parametrize("name", ["onnx", "onnxruntime"])
def test_without_the_runtime_a_line_says_how_to_get_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", sys)  # whether it is installed or not
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r"pip install -e '\.\[bench\]'"):
        check_installed()
