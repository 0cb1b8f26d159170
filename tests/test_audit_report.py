"""What the audit reports, what it leaves as it was, and what it refuses to judge."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict

import pytest
import torch
from audited import IMAGES, Applies, Fires, folded, small
from torch import Tensor, nn

from snnmlp_edu import InputError, NetworkConfig, SpikingMLP
from snnmlp_edu.mfi import audit
from snnmlp_edu.mfi.auditing.operations import KINDS, RANDOM


def test_equal_layers_are_grouped() -> None:
    blocks = (nn.Sequential(OrderedDict(map=nn.Linear(8, 8), neurons=Fires())) for _ in range(3))
    parts = OrderedDict(stem=nn.Linear(4, 8), neurons=Fires(), blocks=nn.Sequential(*blocks))
    model = nn.Sequential(parts)
    report = audit(model.eval(), IMAGES)
    sections = report.sections()
    assert list(sections) == ["stem", "neurons", "blocks.*.map (3 layers)", "blocks.*.neurons (3 layers)"]
    (stem,), (maps,) = sections["stem"], sections["blocks.*.map (3 layers)"]
    assert (stem.row.name, stem.operations, stem.count) == ("aten.addmm", 1, 96)
    assert (maps.row.name, maps.operations, maps.count) == ("aten.addmm", 3, 3 * 3 * 64)
    lines = str(report).splitlines()
    assert lines[0].split() == ["operation", "kind", "input", "values", "count", "holds", "for"]
    assert lines[5] == "blocks.*.map (3 layers)"
    assert lines[6].split() == ["addmm", "synaptic", "accumulate", "{0,", "1}", "576", "all", "inputs"]
    assert lines[-1].startswith("multiplication-free: ")
    assert lines[-1].endswith("for all inputs")


def test_table_fits_where_it_has_to() -> None:
    report = audit(small(Applies(lambda s: (torch.where(s > 0, s - 1, 0.5) > -0.5).float())), IMAGES)
    free, tight = report.widths(), report.widths(60)
    assert sum(free) > 60 >= sum(tight)
    assert [a == b for a, b in zip(free, tight, strict=True)] == [True, True, False, True, True]


def test_report_as_plain_values() -> None:
    plain = audit(small(nn.Sigmoid()), IMAGES).to_dict()
    assert plain["multiplication_free"] is False
    assert plain["layers"][-1]["shape"] == [3, 2]
    assert [row["violation"] is None for row in plain["layers"] if row["kind"] == "comparison"] == [True]
    assert len(plain["violations"]) == 2
    assert "2 aten.sigmoid" in plain["violations"][0]


def test_a_layer_is_named_by_its_weights_where_it_is_not_called() -> None:
    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.inner = nn.Linear(4, 8), nn.Sequential(nn.Linear(8, 2))

        def forward(self, x: Tensor) -> Tensor:
            spikes = (x @ self.stem.weight.t() >= 0).float()
            return spikes @ (0.3 * self.inner[0].weight).t() + self.inner[0].bias

    report = audit(Joined().eval(), IMAGES, stem="stem")
    assert report.multiplication_free, report
    assert [row.path for row in report.layers if row.name == "aten.mm"] == ["stem", "inner.0"]


def test_known_operations_exist() -> None:
    """A name that PyTorch does not have would be a rule that never applies."""
    absent = [
        name
        for name in KINDS.keys() | RANDOM
        if not (hasattr(torch.ops.aten, name) or hasattr(torch.ops.aten, f"{name}_"))
    ]
    assert absent == []


# --- the model stays as it is, and wrong calls -------------------------------------------------------


def test_model_stays_as_it_was(tiny: NetworkConfig) -> None:
    model, images = folded(tiny)
    before, call = copy.deepcopy(model.state_dict()), nn.Module.__call__
    logits = model(images)
    audit(model, images)
    assert nn.Module.__call__ is call
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.equal(model(images), logits)


def test_audit_that_fails_leaves_nothing_behind() -> None:
    def fail(x: Tensor) -> Tensor:
        raise ValueError("second thoughts")

    with pytest.raises(InputError, match="second thoughts"):
        audit(small(Applies(fail)), IMAGES)
    assert torch._C._len_torch_function_stack() == 0
    assert torch._C._len_torch_dispatch_stack() == 0


def test_training_mode_is_an_error() -> None:
    with pytest.raises(InputError, match="the model is in training mode; call"):
        audit(small().train(), IMAGES)
    model = small()
    model[2].train()
    with pytest.raises(InputError, match="2 is in training mode"):
        audit(model, IMAGES)


def test_bad_weights_and_images(tiny: NetworkConfig) -> None:
    model = small()
    with pytest.raises(InputError, match=r"images are \(0, 4\); the audit needs"):
        audit(model, IMAGES[:0])
    with pytest.raises(InputError, match="images are list"):
        audit(model, [1.0])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="images hold NaN"):
        audit(model, IMAGES * math.nan)
    with pytest.raises(InputError, match=r"fails on images of shape \(3, 3\) \(mat1 and mat2"):
        audit(model, IMAGES[:, :3])
    with pytest.raises(InputError, match="image_size"):
        audit(SpikingMLP(tiny).eval(), torch.rand(1, 2, 6, 6))
    with torch.no_grad():
        model[2].weight[0, 0] = math.nan
    with pytest.raises(InputError, match=r"2\.weight holds NaN"):
        audit(model, IMAGES)


def test_stem_by_name() -> None:
    model = small()
    assert audit(model, IMAGES, stem="0").multiplication_free
    assert not audit(model, IMAGES, stem=["2"]).multiplication_free
    for wrong in ("3", ""):
        with pytest.raises(InputError, match=f"no module '{wrong}' to be the stem"):
            audit(model, IMAGES, stem=wrong)
