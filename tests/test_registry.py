from __future__ import annotations

from typing import Any

import pytest
import torch

from snnmlp_edu import (
    InputError,
    NetworkConfig,
    SpikingMLP,
    count_parameters,
    create_model,
    get_config,
    list_models,
    load_pretrained,
    register,
)
from snnmlp_edu.presets import PRESETS

# Of each preset, by default and as released. Those of arXiv 2306.12465: by formula, and by counting the
# authors' network.
PARAMETERS = {
    "mlp_spe_t": (25_223_796, 25_229_180),
    "mlp_spe_s": (37_983_144, 37_975_568),
    "mlp_s": (34_497_704, 34_490_128),
    "mlp_spe_b": (65_647_304, 65_607_184),
    "mlp_spe_nano": (193_958, 193_878),
    "mlp_spe_micro": (870_542, 868_190),
}


BASELINES = ("spiking_resnet34", "spiking_vgg16")


@pytest.mark.parametrize("name", PRESETS)
def test_parameter_counts_are_the_papers_or_those_that_were_written_down(name: str) -> None:
    with torch.device("meta"):
        default, released = create_model(name), create_model(f"released_{name}")
    counts = [sum(p.numel() for p in model.parameters()) for model in (default, released)]
    assert counts == list(PARAMETERS[name])
    for model, count in zip((default, released), counts, strict=True):
        assert sum(count_parameters(model).values()) == count


def test_the_parts_of_mlp_spe_t() -> None:
    with torch.device("meta"):
        model = create_model("mlp_spe_t")
    assert count_parameters(model) == {
        "stem": 3_900,
        "axial": 34_048,
        "fuse": 7_059_312,
        "channel": 14_174_784,
        "patch encoding": 3_325_504,
        "skip": 0,
        "head": 626_248,
    }


@pytest.mark.parametrize("name", sorted(set(list_models())))
@pytest.mark.usefixtures("step_by_step")
def test_every_preset_forward_and_backward(name: str) -> None:
    config = get_config(name)
    coarsest = config.patch_size * 2 ** (len(config.depths) - 1)
    model = create_model(name, image_size=coarsest, num_classes=7, time_steps=2)
    images = torch.rand(3, config.in_channels, coarsest, coarsest)
    logits = model(images)
    assert logits.shape == (3, 7)
    logits.square().sum().backward()
    for path, parameter in model.named_parameters():
        assert parameter.grad is not None, path
        assert torch.isfinite(parameter.grad).all(), path


def test_every_preset_comes_three_times() -> None:
    mixers = [name for name in list_models() if name not in BASELINES]
    assert mixers == [f"{form}{name}" for name in PRESETS for form in ("", "released_", "relu_")]
    for name, config in PRESETS.items():
        assert get_config(f"released_{name}") == config.replace(channel_norm="bn_token")
        assert get_config(f"relu_{name}") == config.replace(activation="relu", time_steps=1)


def test_the_small_presets_keep_their_limits() -> None:
    with torch.device("meta"):
        nano, micro = create_model("mlp_spe_nano"), create_model("mlp_spe_micro")
    assert sum(p.numel() for p in nano.parameters()) <= 400_000
    assert sum(p.numel() for p in micro.parameters()) <= 2_000_000
    assert micro.config.grids[0] == (16, 16)
    assert micro.config.grids[-1] >= (2, 2)


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(InputError, match=r"no model named 'mlp_spe_nona'; did you mean 'mlp_spe_nano'?"):
        create_model("mlp_spe_nona")


def test_a_name_can_be_taken_once() -> None:
    list_models()
    with pytest.raises(InputError, match="'mlp_spe_t' is registered already"):
        register("mlp_spe_t", NetworkConfig(), SpikingMLP)


@pytest.mark.parametrize("name", [None, 3, ["mlp_spe_nano"]])
def test_a_name_is_a_word(name: Any) -> None:
    with pytest.raises(InputError, match="no model named"):
        create_model(name)
    with pytest.raises(InputError, match="no pretrained"):
        load_pretrained(name)
