"""The command `snnmlp cost` and what it prints."""

from __future__ import annotations

import json

import pytest
import torch
from test_cli import assert_wrong_usage, call

from snnmlp_edu import NetworkConfig, SpikingMLP
from snnmlp_edu.cost import Cost, count_operations, relu_twin, table
from snnmlp_edu.mfi import calibrate, load_or_calibrate

SMALL = ["dim=6", "depths=[1,1]", "image_size=16", "time_steps=2"]


@pytest.fixture
def costs(tiny: NetworkConfig) -> tuple[Cost, Cost]:
    images = torch.rand(2, 2, 8, 8)
    model = calibrate(SpikingMLP(tiny), images)
    return count_operations(model, images), count_operations(relu_twin(model), images)


def test_parts_add_up_to_all(costs: tuple[Cost, Cost]) -> None:
    for cost in costs:
        parts = cost.by_part().values()
        assert sum(part.macs for part in parts) == cost.macs
        assert sum(part.accumulates for part in parts) == pytest.approx(cost.accumulates, rel=1e-12)
        assert sum(cost.energy_of(part) for part in parts) == pytest.approx(cost.energy_joules, rel=1e-12)


def test_cells_show_the_counts(costs: tuple[Cost, Cost]) -> None:
    cost, _ = costs
    rows = {row[0]: row[1:] for row in table.cells(cost)}
    assert list(rows) == [
        "stem", "axial", "fuse", "channel", "patch encoding", "head", "skip additions", "all",
    ]  # fmt: skip
    assert rows["stem"][:3] == (f"{cost.stem_macs:,}", f"{cost.stem_macs:,}", "0")
    assert rows["all"][2] == f"{cost.accumulates:,.0f}"
    assert rows["all"][3] == table.joules(cost.energy_joules)
    assert all(len(row) == len(table.COLUMNS) - 1 for row in rows.values())


def test_norms_that_stay_have_a_row(tiny: NetworkConfig) -> None:
    images = torch.rand(2, 2, 8, 8)
    cost = count_operations(calibrate(SpikingMLP(tiny.replace(channel_norm="ln")), images), images)
    rows = {row[0]: row for row in table.cells(cost)}
    assert rows["unfoldable norms"][2] == f"{cost.unfoldable_macs:,}"


def test_summary_compares_with_the_twin(costs: tuple[Cost, Cost]) -> None:
    cost, twin = costs
    first, second, *_ = table.summary(cost, twin)
    assert first.startswith(f"energy {table.joules(cost.energy_joules)}; its ReLU twin")
    assert f"{twin.energy_joules / cost.energy_joules:.2f} times as much" in first
    assert second.endswith(table.joules(cost.energy_of(cost.before_folding)))


def test_command_on_the_shipped_checkpoint() -> None:
    code, out, _ = call("cost", "mlp_spe_nano", "--json")
    assert code == 0
    facts = json.loads(out)
    assert facts["origin"] == "trained weights mlp_spe_nano, on embedded test images"
    loaded = load_or_calibrate("mlp_spe_nano")
    expected = count_operations(loaded.model, loaded.images)
    assert facts["images"] == len(loaded.images)
    assert facts["accumulates"] == expected.accumulates
    assert facts["energy_joules"] == expected.energy_joules
    assert facts["relu_twin"]["macs"] == count_operations(relu_twin(loaded.model), loaded.images).macs
    rows = {row["path"]: row for row in facts["layers"]}
    assert rows["head.linear"]["synaptic_operations"] == expected.head_accumulates
    assert rows["stages.0.embedding.embed.conv"]["part"] == "stem"
    assert facts["firing_rates"].keys() == expected.firing_rates.keys()


def test_command_on_a_preset_says_that_it_calibrates_and_prints_the_table() -> None:
    code, out, _ = call("cost", "mlp_spe_micro", *SMALL)
    assert code == 0
    assert "not trained: calibrated to fire" in out
    for word in (*table.COLUMNS, "patch encoding", "skip additions", "ReLU twin", "firing rate"):
        assert word in out


def test_wrong_usage() -> None:
    assert_wrong_usage(call("cost", "mlp_spe_mikro"), "mlp_spe_micro")
    assert_wrong_usage(call("cost", "mlp_spe_micro", "dimension=6"), "no field 'dimension'")
