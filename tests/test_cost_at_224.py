"""The stored table of costs at 224 px: sizes, sums, rates, and the script that makes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_data import load_script

from snnmlp_edu import data, record
from snnmlp_edu.cost import count_operations
from snnmlp_edu.mfi import calibrate
from snnmlp_edu.registry import create_model

script = load_script("make_cost_table")
TABLE: dict[str, dict[str, Any]] = json.loads((data.path() / script.NAME).read_text(encoding="utf-8"))


def test_every_network_has_a_run_for_each_rate_and_seed() -> None:
    assert tuple(TABLE) == script.NETWORKS
    expected = [(rate, seed) for rate in script.RATES for seed in script.SEEDS]
    for row in TABLE.values():
        assert [(run["rate"], run["seed"]) for run in row["runs"]] == expected


def test_sizes_are_the_derived_ones() -> None:
    """Sizes of the networks of arXiv 2306.12465 by formula, and the parameter counts of the baselines."""
    derived = {
        "mlp_spe_t": (4, 25_223_796, 4_944_726_696, 11_741_184, 30_576_000),
        "mlp_spe_s": (4, 37_983_144, 7_452_060_672, 14_450_688, 37_632_000),
    }
    for name, (steps, parameters, dense, stem, head) in derived.items():
        row = TABLE[name]
        assert row["time_steps"] == steps
        assert row["parameters"] == parameters
        assert row["dense_macs"] == steps * dense
        assert row["stem_macs"] == stem
        assert row["head_dense"] == steps * head
    assert TABLE["spiking_resnet34"]["parameters"] == 21_797_672
    assert TABLE["spiking_vgg16"]["parameters"] == 138_357_544


@pytest.mark.parametrize("name", TABLE)
def test_the_twin_multiplies_where_the_network_adds(name: str) -> None:
    row = TABLE[name]
    one_step = row["dense_macs"] // row["time_steps"]
    head = row["twin"]["macs"] - row["stem_macs"] - one_step
    # The twin sums the grid before its head: one product for each channel and class.
    channels = {"mlp_spe_t": 624, "mlp_spe_s": 768, "spiking_resnet34": 512, "spiking_vgg16": 4096}[name]
    assert head == channels * 1000
    assert row["twin_neuron_updates"] * row["time_steps"] == row["neuron_updates"]
    assert row["membrane_bytes"] == 4 * row["twin_neuron_updates"]


@pytest.mark.parametrize("name", TABLE)
def test_runs_fire_at_their_rate_and_their_parts_add_up(name: str) -> None:
    row = TABLE[name]
    for run in row["runs"]:
        assert 0.9 * run["rate"] < run["lowest_layer_rate"] <= run["highest_layer_rate"] < 1.1 * run["rate"]
        between = [rate for part, rate in run["by_part"].items() if part != "head"]
        arrived = run["synaptic_operations"] / row["dense_macs"]
        assert min(between) <= arrived <= max(between)
        assert run["head_accumulates"] / row["head_dense"] == pytest.approx(run["by_part"]["head"])
        assert run["before_folding"]["macs"] > row["stem_macs"] + row["normalisation_macs"]


def test_a_row_of_shapes_is_made_again_to_the_digit() -> None:
    stored = {key: value for key, value in TABLE["spiking_resnet34"].items() if key != "runs"}
    assert script.by_shape("spiking_resnet34") == stored


def test_image_is_the_first_test_image_enlarged() -> None:
    small = data.load_embedded("test").images[0, 0].float() / 255
    image = script.image_at_224()
    assert image.shape == (1, 3, 224, 224)
    for channel, y, x in ((0, 0, 0), (1, 5, 7), (2, 3, 2)):
        assert torch.equal(image[0, channel, y::8, x::8], small)


def test_script_writes_what_the_library_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(script, "image_at_224", lambda: image)
    for name, value in {"NETWORKS": ("mlp_spe_nano",), "RATES": (0.2,), "SEEDS": (3,)}.items():
        monkeypatch.setattr(script, name, value)
    script.make(tmp_path)
    row = json.loads((tmp_path / script.NAME).read_text())["mlp_spe_nano"]
    (run,) = row["runs"]

    torch.manual_seed(3)
    drawn = create_model("mlp_spe_nano", neuron={"backend": "eager"})
    model = calibrate(drawn, image, rate=0.2, seed=3)
    cost = count_operations(model, image)
    assert run["synaptic_operations"] == cost.synaptic_operations
    assert run["head_accumulates"] == cost.head_accumulates
    rates = record(model, image).firing_rates().values()
    assert (run["lowest_layer_rate"], run["highest_layer_rate"]) == pytest.approx((min(rates), max(rates)))
    assert row["stem_macs"] == 12_288
    assert row["skip_additions"] == 56_832
