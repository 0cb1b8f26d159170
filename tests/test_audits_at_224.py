"""The stored audits at 224 px: what they say, and the script that makes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_data import load_script

from snnmlp_edu import data

script = load_script("make_audits")
STORED: dict[str, Any] = json.loads((data.path() / script.NAME).read_text(encoding="utf-8"))
TABLE: dict[str, dict[str, Any]] = STORED["networks"]


def test_every_network_is_there_with_its_verdict() -> None:
    assert tuple(TABLE) == script.NETWORKS
    assert STORED["made_by"]["script"] == "make_audits.py"
    assert STORED["made_by"]["image_side"] == script.SIDE == 224
    assert (data.path() / STORED["made_by"]["script"]).is_file()
    free = [name for name, row in TABLE.items() if row["multiplication_free"]]
    assert free == ["mlp_spe_t", "mlp_spe_s", "mlp_spe_b", "mlp_s"]


@pytest.mark.parametrize("name", TABLE)
def test_a_row_agrees_with_itself(name: str) -> None:
    row = TABLE[name]
    assert row["multiplication_free"] == (not row["violations"])
    assert row["multiplication_free"] == ("multiplication" not in row["scalar_operations"])
    assert row["hold_for_these_inputs_only"] == row["not_exercised"] == 0
    assert "unknown" not in row["scalar_operations"]


def test_stem_multiplies_as_often_as_its_formula_says() -> None:
    """56 x 56 patches of 4 x 4 pixels in three colours, to `dim` channels."""
    for name, width in {"mlp_spe_t": 78, "mlp_spe_s": 96, "mlp_spe_b": 108, "mlp_s": 96}.items():
        assert TABLE[name]["scalar_operations"]["stem multiply"] == 56 * 56 * 4 * 4 * 3 * width


def test_released_network_fails_once_a_block() -> None:
    (violation,) = TABLE["released_mlp_spe_t"]["violations"]
    assert violation["rows"] == 2 + 8 + 14 + 2
    assert violation["operation"] == "native_batch_norm"


@pytest.mark.parametrize("name", ["mlp_spe_t", "released_mlp_spe_t"])
def test_smaller_images_give_the_same_verdict_for_the_same_reasons(name: str) -> None:
    small, stored = script.audited(name, 32), TABLE[name]
    for field in ("multiplication_free", "violations", "hold_for_these_inputs_only", "not_exercised"):
        assert small[field] == stored[field]
    assert small["scalar_operations"].keys() == stored["scalar_operations"].keys()
    # A grid of 8 x 8 and not of 56 x 56: neurons and all that is done one by one go with the places.
    for kind in ("comparison", "shift", "stem multiply"):
        assert small["scalar_operations"][kind] * 49 == stored["scalar_operations"][kind]


def test_script_writes_what_the_audit_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "NETWORKS", ("released_mlp_spe_nano",))
    monkeypatch.setattr(script, "SIDE", 32)
    script.make(tmp_path)
    (row,) = json.loads((tmp_path / script.NAME).read_text())["networks"].values()
    assert row == script.audited("released_mlp_spe_nano", 32)
    assert not row["multiplication_free"]
    assert [violation["rows"] for violation in row["violations"]] == [4]
