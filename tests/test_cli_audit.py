"""The command `snnmlp audit`: verdict, exit code, what it says and what it prints as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from test_cli import assert_wrong_usage, call

from snnmlp_edu import NetworkConfig, SpikingMLP
from snnmlp_edu.checkpoints import save_checkpoint
from snnmlp_edu.data import Preprocessing
from snnmlp_edu.mfi import audit, calibrate, fold_batch_norm

TOY = ("dim=6", "image_size=8", "depths=[2,1]", "patch_size=2")


def test_preset_that_passes() -> None:
    code, out, _ = call("audit", "mlp_spe_t", *TOY)
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("preset mlp_spe_t, not trained: calibrated to fire")
    assert lines[-1].startswith("multiplication-free: ")
    assert lines[-1].endswith("for all inputs")
    (fuse,) = (i for i, line in enumerate(lines) if "token.fuse.linear (3 layers)" in line)
    assert lines[fuse + 1].split() == ["operation", "kind", "input", "values", "count", "holds", "for"]
    assert lines[fuse + 2].split()[:5] == ["mm", "synaptic", "accumulate", "{0,", "1}"]


def test_preset_that_fails_names_the_channel_block() -> None:
    code, out, _ = call("audit", "released_mlp_spe_t", *TOY)
    assert code == 1
    lines = out.splitlines()
    assert lines[-1] == "not multiplication-free: 3 violations in 3 modules"
    (reason,) = (line for line in lines if "aten.native_batch_norm:" in line)
    assert reason.startswith("stages.*.blocks.*.channel.down.norm.batch_norm (3 layers)")
    assert any(line.startswith("stages.*.blocks.*.channel.down does not fold: ") for line in lines)


def test_json_has_every_operation() -> None:
    code, out, _ = call("audit", "released_mlp_spe_t", *TOY, "--json")
    facts = json.loads(out)
    assert code == 1
    assert facts["multiplication_free"] is False
    assert facts["origin"].startswith("preset released_mlp_spe_t")
    assert [text.split()[0] for text in facts["not_folded"]] == [
        text.split()[0].removesuffix(".norm.batch_norm") for text in facts["violations"]
    ]
    kinds = {row["kind"] for row in facts["layers"]}
    assert {"stem multiply", "synaptic accumulate", "shift", "data movement", "multiplication"} <= kinds


def test_checkpoint(tmp_path: Path, tiny: NetworkConfig) -> None:
    model = calibrate(SpikingMLP(tiny), torch.rand(2, 2, 8, 8))
    path = tmp_path / "net.safetensors"
    save_checkpoint(path, model, Preprocessing(image_size=8), class_names=[*"abcde"])
    code, out, _ = call("audit", path, "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["origin"] == f"trained weights {path}, on random images"
    assert len(facts["layers"]) == len(audit(fold_batch_norm(model), torch.rand(2, 2, 8, 8)).layers)
    code, _, _ = call("audit", path, "neuron.beta=0.8")
    assert code == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["audit"], "(?i)missing argument .source"),
        (["audit", "mlp_spe_nan"], r"did you mean 'mlp_spe_nano'\?"),
        (["audit", "mlp_spe_t", "image_size=33"], "image_size is 33; it must be divisible"),
        (["audit", "mlp_spe_t", "image_size"], "'image_size' is not of the form key=value"),
    ],
)
def test_mistakes_get_one_line(words: list[str], message: str) -> None:
    assert_wrong_usage(call(*words), message)


def test_help_has_an_example() -> None:
    code, out, _ = call("audit", "--help")
    assert code == 0
    assert "Example: snnmlp audit mlp_spe_t image_size=32" in out
