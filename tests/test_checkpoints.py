"""A checkpoint gives back what was saved, and every damaged or foreign file is refused by name."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from snnmlp_edu import data
from snnmlp_edu.checkpoints import (
    METADATA_KEY,
    hash_tensors,
    list_pretrained,
    load_checkpoint,
    load_pretrained,
    save_checkpoint,
)
from snnmlp_edu.config import NetworkConfig
from snnmlp_edu.data import Preprocessing, files, load_embedded
from snnmlp_edu.errors import InputError
from snnmlp_edu.mfi import fold_batch_norm
from snnmlp_edu.model.network import SpikingMLP

PREPROCESSING = Preprocessing(image_size=8, in_channels=2, mean=(0.25, 0.5), std=(0.3, 0.4))


@pytest.fixture
def model(tiny: NetworkConfig) -> SpikingMLP:
    network = SpikingMLP(tiny)
    network(torch.rand(4, 2, 8, 8))  # running statistics that are not the initial ones
    return network.eval()


@pytest.fixture
def saved(model: SpikingMLP, tmp_path: Path) -> Path:
    path = tmp_path / "net.safetensors"
    save_checkpoint(
        path,
        model,
        PREPROCESSING,
        class_names=("a", "b", "c", "d", "e"),
        preset="tiny",
        metrics={"validation_accuracy": 0.5},
        recipe={"epochs": 3, "model": {"neuron": {"beta": 0.5}}},
    )
    return path


def rewrite(path: Path, document: dict | None = None, tensors: dict | None = None) -> None:
    """Write a well-formed safetensors file with another document or other tensors."""
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    old = json.loads(header["__metadata__"]["snnmlp_edu"])
    new_tensors = tensors or safetensors.torch.load(content)
    metadata = {"snnmlp_edu": json.dumps(old | (document or {}))}
    path.write_bytes(safetensors.torch.save(new_tensors, metadata))


# --- what was saved comes back -----------------------------------------------------------------------


def test_round_trip(model: SpikingMLP, saved: Path) -> None:
    images = torch.rand(3, 2, 8, 8)
    checkpoint = load_checkpoint(saved)
    assert torch.equal(checkpoint.model(images), model(images))
    assert not checkpoint.model.training
    assert checkpoint.model.config == model.config
    assert checkpoint.preprocessing == PREPROCESSING
    assert checkpoint.class_names == ("a", "b", "c", "d", "e")
    assert checkpoint.preset == "tiny"
    assert checkpoint.metrics == {"validation_accuracy": 0.5}
    assert checkpoint.recipe == {"epochs": 3, "model": {"neuron": {"beta": 0.5}}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda net: net.double(), r"is torch\.float64 \(.*builds torch\.float32"),
        (lambda net: net.bfloat16(), r"is torch\.bfloat16 .*keep it in single precision"),
        (fold_batch_norm, r"batch_norm\.weight is absent and .*before it is folded"),
        (lambda net: Variant(net.config), r"is a Variant, .*no preset builds a SpikingMLP; register"),
        (lambda net: sharing(net), r"stages\.0\.blocks\.0\.channel\..* and stages\.0\.blocks\.1\.channel\."),
    ],
)
def test_what_could_not_be_loaded_again_is_not_written(
    change: Callable[[SpikingMLP], Any], message: str, model: SpikingMLP, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        save_checkpoint(tmp_path / "net.safetensors", change(model), PREPROCESSING)
    assert not list(tmp_path.iterdir())


class Variant(SpikingMLP):
    """A network that no preset builds."""


def sharing(network: SpikingMLP) -> SpikingMLP:
    """A network in which two blocks have one channel mixing."""
    blocks = network.stages[0].blocks
    blocks[1].channel = blocks[0].channel
    return network


def test_loaded_weights_can_be_trained_and_are_not_shared(saved: Path) -> None:
    first, second = load_checkpoint(saved).model, load_checkpoint(saved).model
    first.train()(torch.rand(2, 2, 8, 8)).sum().backward()
    with torch.no_grad():
        for parameter in first.parameters():
            assert parameter.grad is not None
            parameter.add_(1.0)
    assert hash_tensors(first.state_dict()) != hash_tensors(second.state_dict())


def test_loading_leaves_the_random_state_alone(saved: Path) -> None:
    before = torch.get_rng_state()
    load_checkpoint(saved)
    assert torch.equal(torch.get_rng_state(), before)


def test_same_network_same_bytes(model: SpikingMLP, tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_checkpoint(tmp_path / name, model, PREPROCESSING)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_overrides_that_keep_the_weights(saved: Path) -> None:
    changed = load_checkpoint(saved, time_steps=7, neuron={"beta": 0.25}).model
    assert changed.config.time_steps == 7
    assert changed.config.neuron.beta == 0.25
    assert changed.forward_steps(torch.rand(1, 2, 8, 8)).shape == (7, 1, 5)


def test_hash_sees_name_type_shape_and_value() -> None:
    plain = {"a": torch.tensor([1.0, 2.0])}
    others = [
        {"b": torch.tensor([1.0, 2.0])},
        {"a": torch.tensor([1.0, 2.0], dtype=torch.float64)},
        {"a": torch.tensor([[1.0, 2.0]])},
        {"a": torch.tensor([1.0, 2.0000002])},
    ]
    assert len({hash_tensors(tensors) for tensors in [plain, *others]}) == 5
    transposed = {"a": torch.tensor([[1.0, 3.0], [2.0, 4.0]]).T}
    assert hash_tensors(transposed) == hash_tensors({"a": torch.tensor([[1.0, 2.0], [3.0, 4.0]])})


# --- nothing half-written ----------------------------------------------------------------------------


def test_failed_write_leaves_the_old_file(
    model: SpikingMLP, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(saved, model, PREPROCESSING)
    assert saved.read_bytes() == before
    assert [file.name for file in saved.parent.iterdir()] == [saved.name]


def test_saving_into_a_missing_folder(model: SpikingMLP, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        save_checkpoint(tmp_path / "absent" / "net.safetensors", model, PREPROCESSING)


# --- bad files ---------------------------------------------------------------------------------------


def test_missing_file_suggests_a_shipped_name() -> None:
    with pytest.raises(
        InputError, match=r"there is no checkpoint mlp_spe_nanoo; give .*; did you mean 'mlp_spe_nano'\?"
    ):
        load_checkpoint("mlp_spe_nanoo")


def test_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is a folder without checkpoint\.safetensors"):
        load_checkpoint(tmp_path)


def test_the_folder_of_a_run_stands_for_its_checkpoint(saved: Path) -> None:
    saved.rename(saved.with_name("checkpoint.safetensors"))
    by_folder, by_file = (
        load_checkpoint(saved.parent),
        load_checkpoint(saved.parent / "checkpoint.safetensors"),
    )
    assert hash_tensors(by_folder.model.state_dict()) == hash_tensors(by_file.model.state_dict())


def test_the_default_type_of_tensors_plays_no_part(saved: Path) -> None:
    expected = load_checkpoint(saved)
    stored = torch.randint(0, 256, (2, 2, 8, 8), dtype=torch.uint8)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        found = load_checkpoint(saved)
        save_checkpoint(saved, found.model, PREPROCESSING)
        images = PREPROCESSING(stored)
    finally:
        torch.set_default_dtype(before)
    assert images.dtype == torch.float32
    assert torch.equal(images, PREPROCESSING(stored))
    for again in (found, load_checkpoint(saved)):
        assert hash_tensors(again.model.state_dict()) == hash_tensors(expected.model.state_dict())


@pytest.mark.parametrize("kept", [9, 100, -1], ids=["header", "mid-header", "last byte"])
def test_truncated_file(saved: Path, kept: int) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[:kept])
    with pytest.raises(InputError, match=r"net\.safetensors is truncated .* [\d,]+ bytes"):
        load_checkpoint(saved)


@pytest.mark.parametrize("content", [b"", b"{}", bytes(64), b'{"config": 1}', b"PK\x03\x04 an archive"])
def test_wrong_bytes_are_no_checkpoint(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"net\.safetensors is no checkpoint of snnmlp-edu"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "metadata",
    [None, {"format": "pt"}, {METADATA_KEY: "no JSON"}, {METADATA_KEY: "[]"}, {METADATA_KEY: "{}"}],
)
def test_safetensors_of_another_program(metadata: dict[str, str] | None, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    path.write_bytes(safetensors.torch.save({"weight": torch.zeros(3)}, metadata))
    with pytest.raises(InputError, match="is no checkpoint of snnmlp-edu"):
        load_checkpoint(path)


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["torch", "pickle"])
def test_a_pickle_is_refused_and_never_opened(kind: str, tmp_path: Path) -> None:
    path, sprung = tmp_path / "net.pt", tmp_path / "sprung"
    if kind == "torch":
        torch.save({"weights": Trap(sprung)}, path)
    else:
        path.write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(InputError, match=r"net\.pt is no checkpoint"):
        load_checkpoint(path)
    assert not sprung.exists()


def test_changed_weight_is_noticed(saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    content[-3] ^= 1
    saved.write_bytes(content)
    with pytest.raises(InputError, match="do not match their SHA-256"):
        load_checkpoint(saved)


def test_damaged_header_is_named(saved: Path) -> None:
    content = saved.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length].replace(b'"dtype":"F32"', b'"dtype":"F99"')
    saved.write_bytes(content[:8] + header + content[8 + length :])
    with pytest.raises(InputError, match="damaged"):
        load_checkpoint(saved)


def test_another_configuration_names_the_first_tensor_and_both_shapes(
    saved: Path, tiny: NetworkConfig
) -> None:
    rewrite(saved, {"config": dataclasses.replace(tiny, dim=12).to_dict()})
    message = (
        r"does not fit the configuration: stages\.0\.embedding\.embed\.conv\.weight is"
        r" torch\.float32 \(6, 2, 2, 2\) in the file and torch\.float32 \(12, 2, 2, 2\) in the network"
    )
    with pytest.raises(InputError, match=message):
        load_checkpoint(saved)


def test_override_that_changes_weights(saved: Path) -> None:
    message = r"head\.linear\.weight is torch\.float32 \(5, 12\) in the file and torch\.float32 \(7, 12\)"
    with pytest.raises(InputError, match=message):
        load_checkpoint(saved, num_classes=7)


def test_absent_and_surplus_tensors_are_named(saved: Path) -> None:
    tensors = safetensors.torch.load_file(saved)
    fewer = {name: tensor for name, tensor in tensors.items() if name != "head.linear.bias"}
    rewrite(saved, {"tensors_sha256": hash_tensors(fewer)}, fewer)
    with pytest.raises(InputError, match=r"head\.linear\.bias is absent in the file"):
        load_checkpoint(saved)
    more = tensors | {"stray": torch.zeros(1)}
    rewrite(saved, {"tensors_sha256": hash_tensors(more)}, more)
    with pytest.raises(
        InputError, match=r"stray is torch\.float32 \(1,\) in the file and absent in the network"
    ):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"format": 2}, "has format 2 and this version of snnmlp-edu reads 1"),
        ({"config": {"dimension": 6}}, "has no field 'dimension'; did you mean"),
        ({"preprocessing": {}}, "Preprocessing lacks image_size"),
        ({"config": [6]}, r"NetworkConfig is \[6\]"),
    ],
)
def test_document_that_is_not_understood(saved: Path, document: dict, message: str) -> None:
    rewrite(saved, document)
    with pytest.raises(InputError, match=message):
        load_checkpoint(saved)


# --- shipped checkpoints -----------------------------------------------------------------------------


def test_shipped_network_classifies_garments() -> None:
    assert "mlp_spe_nano" in list_pretrained()
    checkpoint = load_checkpoint("mlp_spe_nano")
    images, labels = load_embedded("test")
    predicted = checkpoint.model(checkpoint.preprocessing(images[::5])).argmax(1)
    # Rounding differs between processors, and a spike more or less may turn a decision.
    assert (predicted == labels[::5]).float().mean() > 0.8


def test_pretrained_takes_overrides_and_suggests_names() -> None:
    assert load_pretrained("mlp_spe_nano", time_steps=2).config.time_steps == 2
    with pytest.raises(
        InputError, match=r"there is no pretrained 'mlp_spe_nona'; did you mean 'mlp_spe_nano'\?"
    ):
        load_pretrained("mlp_spe_nona")


def test_changed_shipped_checkpoint_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(shutil.copytree(data.path(), tmp_path / "data"))
    monkeypatch.setattr(files, "path", lambda: folder)
    file = folder / "checkpoints" / "mlp_spe_nano.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"mlp_spe_nano\.safetensors has SHA-256 .* restore it"):
        load_pretrained("mlp_spe_nano")
