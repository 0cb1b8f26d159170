"""What a name on the command line becomes: trained weights, or a preset that fires."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from snnmlp_edu import (
    InputError,
    NetworkConfig,
    SpikingMLP,
    checkpoints,
    load_pretrained,
    record,
    save_checkpoint,
)
from snnmlp_edu.data import Preprocessing, load_embedded
from snnmlp_edu.mfi import load_or_calibrate

TOY = {"dim": 6, "image_size": 8, "depths": (1, 1)}


def test_shipped_name_means_the_trained_weights() -> None:
    loaded = load_or_calibrate("mlp_spe_nano", 3, time_steps=6)
    wanted = load_pretrained("mlp_spe_nano").state_dict()
    assert all(torch.equal(wanted[name], tensor) for name, tensor in loaded.model.state_dict().items())
    assert loaded.model.config.time_steps == 6
    assert loaded.images.shape == (3, 1, 32, 32)
    pixels = load_embedded("test").images[:3]  # 28 x 28, in the middle of 32 x 32
    shown = loaded.images[:, :, 2:-2, 2:-2]
    assert torch.equal(
        torch.corrcoef(torch.stack([shown.flatten(), pixels.flatten()])).round(decimals=5), torch.ones(2, 2)
    )
    assert (
        loaded.origin
        == "trained weights mlp_spe_nano (time_steps=6: not trained so), on embedded test images"
    )


def test_overrides_that_change_its_weights_mean_the_preset() -> None:
    loaded = load_or_calibrate("mlp_spe_nano", **TOY)
    assert loaded.model.config.widths == (6, 12)
    assert not loaded.model.training
    assert loaded.origin.startswith("preset mlp_spe_nano, not trained")
    assert loaded.images.shape == (2, 1, 8, 8)
    assert min(record(loaded.model, loaded.images).firing_rates().values()) > 0


@pytest.mark.parametrize("overrides", [{}, TOY])
def test_a_damaged_shipped_network_is_not_replaced_by_its_preset(
    overrides: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(name: str) -> bytes:
        raise InputError(f"{name} was changed")

    monkeypatch.setattr(checkpoints, "read_verified", damaged)
    with pytest.raises(InputError, match=r"mlp_spe_nano\.safetensors was changed"):
        load_or_calibrate("mlp_spe_nano", **overrides)


def test_a_preset_is_the_same_every_time_and_uses_up_no_randomness() -> None:
    state = torch.random.get_rng_state()
    one = load_or_calibrate("mlp_spe_micro", **TOY)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(7)
    other = load_or_calibrate("mlp_spe_micro", **TOY)
    assert torch.equal(one.images, other.images)
    assert torch.equal(one.model(one.images), other.model(other.images))


@pytest.fixture
def checkpoint(tmp_path: Path, tiny: NetworkConfig) -> Path:
    path = tmp_path / "tiny.safetensors"
    preprocessing = Preprocessing(image_size=8, in_channels=2)
    save_checkpoint(path, SpikingMLP(tiny), preprocessing, class_names=("a", "b", "c", "d", "e"))
    return path


def test_path_of_a_checkpoint_of_other_images(checkpoint: Path) -> None:
    loaded = load_or_calibrate(str(checkpoint))
    assert loaded.origin == f"trained weights {checkpoint}, on random images"
    assert loaded.images.shape == (2, 2, 8, 8)
    assert torch.equal(loaded.images, load_or_calibrate(str(checkpoint)).images)
    with pytest.raises(InputError, match=r"leave out overrides that change weights"):
        load_or_calibrate(str(checkpoint), dim=9)


@pytest.mark.parametrize(
    ("source", "overrides", "message"),
    [
        ("mlp_spe_nona", {}, r"^mlp_spe_nona is neither .*did you mean 'mlp_spe_nano'"),
        ("mlp_spe_nano", {"dimm": 6}, r"no field 'dimm'; did you mean 'dim'"),
        ("mlp_spe_nano", {"name": 6}, r"no field 'name'"),
        ("mlp_spe_nano", {"source": 6}, r"no field 'source'"),
        ("mlp_spe_nano", {"batch": 6}, r"no field 'batch'"),
        ("mlp_spe_t", {"self": 6}, r"no field 'self'"),
        ("mlp_spe_t", {"dim": 0}, r"NetworkConfig\.dim is 0"),
        ("tests", {}, r"tests is a folder"),
    ],
)
def test_wrong_names(source: str, overrides: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_or_calibrate(source, **overrides)
