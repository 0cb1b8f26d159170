"""A recording from an event camera, `[T, B, channels, H, W]` of 0 and 1, is spikes: the stem adds too."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from snnmlp_edu import SpikingMLP, create_model
from snnmlp_edu.cost import Operations, count_operations, relu_twin
from snnmlp_edu.mfi import audit, calibrate, fold_batch_norm
from snnmlp_edu.mfi.auditing.operations import Kind

STEPS, IMAGES, DIM, SIDE, PATCH = 3, 2, 6, 8, 2


def recording(events: int = 37) -> Tensor:
    """So many events, each at another place and step."""
    flat = torch.zeros(STEPS * IMAGES * 2 * SIDE * SIDE)
    flat[torch.randperm(len(flat), generator=torch.Generator().manual_seed(0))[:events]] = 1
    return flat.view(STEPS, IMAGES, 2, SIDE, SIDE)


def network(seen: Tensor) -> SpikingMLP:
    fields = {"dim": DIM, "depths": (1, 1), "image_size": SIDE, "patch_size": PATCH, "in_channels": 2}
    model = calibrate(create_model("mlp_spe_nano", time_steps=STEPS, **fields), seen)
    assert isinstance(model, SpikingMLP)
    return model


def test_each_event_adds_the_weights_of_its_patch_once() -> None:
    seen = recording(events=37)
    cost = count_operations(network(seen), seen)
    (stem,) = cost.part("stem")
    assert stem.arithmetic == "accumulate"
    assert (stem.steps, stem.spikes) == (STEPS, 37)
    assert stem.dense_macs_per_step == (SIDE // PATCH) ** 2 * PATCH * PATCH * 2 * DIM
    assert cost.stem_macs == cost.macs == 0
    assert cost.stem_accumulates == stem.synaptic_operations == 37 * DIM / IMAGES  # patches do not overlap
    inside = cost.synaptic_operations + cost.head_accumulates + cost.skip_additions
    assert cost.accumulates == inside + cost.stem_accumulates
    assert cost.energy_joules == pytest.approx(0.9e-12 * cost.accumulates, rel=1e-12)
    assert cost.by_part()["stem"] == Operations(0, cost.stem_accumulates)
    assert cost.to_dict()["stem_accumulates"] == cost.stem_accumulates
    head = cost.head_before_folding
    assert head is not None
    assert cost.before_folding == Operations(
        head.macs + cost.normalisation_macs,
        pytest.approx(head.accumulates + cost.accumulates - cost.head_accumulates),
    )


def test_what_enters_the_stem_decides_and_not_what_it_was_trained_on() -> None:
    seen = recording()
    model = network(seen)
    dense = STEPS * (SIDE // PATCH) ** 2 * PATCH * PATCH * 2 * DIM
    grey = count_operations(model, 0.5 * seen)  # frames with a time axis
    assert (grey.stem_macs, grey.stem_accumulates) == (dense, 0)
    still = count_operations(model, seen[0])  # one image of black and white
    assert (still.stem_macs, still.stem_accumulates) == (dense // STEPS, 0)
    empty = count_operations(model, torch.zeros_like(seen))  # proves nothing
    assert (empty.stem_macs, empty.stem_accumulates) == (dense, 0)


def test_the_twin_adds_in_its_stem_and_nowhere_else() -> None:
    seen = recording()
    twin = relu_twin(network(seen))
    cost = count_operations(twin, seen[:1])
    assert cost.stem_macs == 0
    assert cost.stem_accumulates == seen[0].count_nonzero() * DIM / IMAGES
    rest = [layer for layer in cost.layers if layer.part not in ("stem", "head")]
    assert {layer.arithmetic for layer in rest} == {"multiply-accumulate"}


def test_no_row_of_the_audit_multiplies_in_the_stem() -> None:
    seen = recording()
    folded = fold_batch_norm(network(seen))
    report = audit(folded, seen)
    assert report.multiplication_free
    assert Kind.STEM not in {row.kind for row in report.layers}
    (stem,) = (
        row
        for row in report.layers
        if row.path.startswith("stages.0.embedding") and row.count > 0 and row.kind is Kind.ACCUMULATE
    )
    assert (stem.values, stem.holds) == ("{0, 1}", "these inputs")  # no comparison made the input
    assert report.verdict().endswith("1 of them only for the inputs seen")


@pytest.mark.parametrize("change", [lambda x: 0.5 * x, torch.zeros_like, lambda x: x[0]])
def test_the_audit_takes_all_else_for_pixels(change: object) -> None:
    seen = recording()
    images = change(seen)  # type: ignore[operator]
    report = audit(fold_batch_norm(network(seen)), images)
    assert report.multiplication_free
    assert [row.kind for row in report.layers].count(Kind.STEM) == 1
    assert report.verdict().endswith("for all inputs")


class TwoStems(nn.Module):
    """Adds the events, and multiplies them after they were scaled."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 2), nn.Conv2d(2, 4, 2)

    def forward(self, images: Tensor) -> Tensor:
        events = images.flatten(0, 1)
        return self.first(events) + self.second(events + 0.5)


def test_another_map_of_the_recording_is_judged_by_its_own_values() -> None:
    report = audit(TwoStems().eval(), recording())
    (violation,) = report.violations
    assert violation.path == "second"
    named = audit(TwoStems().eval(), recording(), stem=["first", "second"])
    kinds = {row.path: row.kind for row in named.layers if row.kind in (Kind.STEM, Kind.ACCUMULATE)}
    assert kinds == {"first": Kind.ACCUMULATE, "second": Kind.STEM}
