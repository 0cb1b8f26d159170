"""The whole pipeline: planted Gabor functions are found, noise and blobs are not taken for them."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from snnmlp_edu import InputError
from snnmlp_edu.receptive_fields import (
    PLANTED_LAYER,
    Examined,
    Fields,
    examine,
    fit_gabors,
    input_gradients,
    judge,
    paired_difference,
    plant,
    plants,
    proportion,
    spike_triggered_average,
    try_plants,
    verdict,
    white_noise,
)
from snnmlp_edu.receptive_fields.planting import Plant


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNNMLP_LIF_BACKEND", "eager")  # many networks that run a few times each


# --- the pipeline from end to end --------------------------------------------------------------------


def test_planted_gabor_functions_are_supported() -> None:
    found, examined = try_plants("gabors")
    assert found.word == "supported", found
    assert found.networks == 5
    assert found.agreement > 0.85
    assert found.too_small < 0.02
    assert sum(each.well_fitted.count for each in examined) >= 0.95 * 120
    for difference in found.differences.values():
        assert difference.low > 0.8
    # What was found is what was planted, and not only something as smooth.
    kernels = torch.stack([plants("gabors", 24, 12, seed) for seed in range(5)])
    maps = torch.stack([each.fits.predicted() - each.fits.offset.view(-1, 1, 1) for each in examined])
    assert torch.cosine_similarity(maps.flatten(2), kernels.flatten(2), dim=2).quantile(0.05) > 0.95


@pytest.mark.parametrize(("kind", "reason"), [("blobs", "blob"), ("noise", "unexplained")])
def test_planted_blobs_and_noise_are_not_supported(kind: Plant, reason: str) -> None:
    found, examined = try_plants(kind)
    assert found.word == "not supported", found
    assert found.agreement > 0.85
    reasons = [each for network in examined for each in network.reasons]
    assert reasons.count(reason) >= 0.95 * len(reasons)
    assert sum(each.well_fitted.count for each in examined) == 0


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"width": 0.06, "units": 12}, "of the fields are too small to tell"),
        ({"images": 512, "units": 12}, "two halves agree to 0.4"),
        ({"networks": 2, "units": 6}, "2 networks where 5 are needed"),
    ],
)
def test_what_could_not_have_been_seen_is_inconclusive(changes: dict[str, int], why: str) -> None:
    found, _ = try_plants("gabors", **changes)
    assert found.word == "inconclusive"
    assert why in str(found)


def test_gradients_find_planted_functions_too() -> None:
    kernels = plants("gabors", 8, 12, seed=3)
    halves = [torch.cat(list(white_noise((1, 12, 12), 8, seed=seed))) for seed in (1, 2)]
    examined = examine(*(input_gradients(plant(kernels), PLANTED_LAYER, half) for half in halves))
    assert examined.well_fitted.count == 8
    assert examined.agreement.min() > 0.999, "the membrane of a first neuron is linear in the image"
    assert torch.cosine_similarity(examined.maps.flatten(1), kernels.flatten(1)).min() > 0.999


def test_the_same_seed_gives_the_same_verdict() -> None:
    one, other = (try_plants("gabors", networks=2, units=4, images=512) for _ in range(2))
    assert one[0] == other[0]
    assert torch.equal(one[1][0].maps, other[1][0].maps)


# --- planting ----------------------------------------------------------------------------------------


def test_planted_weights_are_those_of_the_stem() -> None:
    kernels = plants("blobs", 5, 8)
    model = plant(kernels)
    torch.testing.assert_close(
        model.get_parameter("stages.0.embedding.embed.conv.weight")[:, 0], kernels.float()
    )
    assert not model.training
    assert kernels.square().sum((1, 2)).tolist() == pytest.approx([1] * 5)
    with pytest.raises(InputError, match=r"kernels have shape \(5, 8, 9\)"):
        plant(torch.zeros(5, 8, 9))
    with pytest.raises(InputError, match="kind is 'gabor'"):
        plants("gabor", 1, 8)  # type: ignore[arg-type]


# --- two halves --------------------------------------------------------------------------------------


def fields_from(maps: torch.Tensor, spikes: list[int]) -> Fields:
    units = torch.tensor([[0, 0, channel] for channel in range(len(maps))])
    return Fields("layer", units, maps, torch.zeros_like(maps), torch.tensor(spikes))


def test_agreement_by_hand() -> None:
    one, other = torch.zeros(3, 2, 8, 8).double(), torch.zeros(3, 2, 8, 8).double()
    one[:, :, 0, 0], other[:, 0, 0, 0], other[:, 0, 0, 1] = 1, 3, 4
    found = examine(fields_from(one, [5, 5, 0]), fields_from(other, [5, 5, 5]))
    assert found.agreement.tolist() == pytest.approx([0.6, 0.6, 0]), "silent in one half: no agreement"
    assert found.reasons[2] == "silent"
    assert found.maps[0, 0, :2].tolist() == [1.25, 1.0], "mean of the halves, and of the image's channels"
    assert found.with_random_phases().reasons[2] == "silent"


def test_halves_of_different_units_are_refused() -> None:
    maps = torch.zeros(2, 1, 8, 8).double()
    with pytest.raises(InputError, match="measure the same units twice"):
        examine(fields_from(maps, [1, 1]), fields_from(maps[:1], [1]))


def test_agreement_tells_the_noise_of_the_mean() -> None:
    """With agreement a, the share of noise in the mean of both halves is (1 - a) / (1 + a)."""
    model, stimuli = plant(plants("gabors", 24, 12)), [torch.randn(3000, 1, 12, 12) for _ in range(2)]
    halves = [spike_triggered_average(model, PLANTED_LAYER, [each]) for each in stimuli]
    agreement = examine(*halves).agreement.median().item()
    whole = spike_triggered_average(model, PLANTED_LAYER, stimuli)
    assert (1 - agreement) / (1 + agreement) == pytest.approx(whole.noise.median().item(), abs=0.02)


# --- the rule ----------------------------------------------------------------------------------------


def examined(good: int, total: int = 50, small: int = 0, agreement: float = 0.9) -> Examined:
    maps = torch.zeros(1, 8, 8)
    reasons = ["well fitted"] * good + ["resolution"] * small + ["unexplained"] * (total - good - small)
    return Examined(maps, torch.full((total,), agreement), fit_gabors(maps), reasons)


def test_interval_is_students_over_networks() -> None:
    pairs = [(proportion(count, 100), proportion(10, 100)) for count in (20, 60, 90, 50, 75)]
    gaps = [one.value - other.value for one, other in pairs]
    low, high = stats.t.interval(0.95, 4, sum(gaps) / 5, stats.sem(gaps))
    found = paired_difference(pairs)
    assert (found.value, found.low, found.high) == pytest.approx((sum(gaps) / 5, low, high))
    with pytest.raises(InputError, match="1 networks; an interval over networks needs two or more"):
        paired_difference(pairs[:1])


def test_networks_that_all_agree_have_an_interval() -> None:
    found = paired_difference([(proportion(0, 50), proportion(0, 50))] * 5)
    p = 1 / 52
    error = math.sqrt(2 * p * (1 - p) / 50 / 5)
    assert found.high == pytest.approx(stats.t.ppf(0.975, 4) * error)
    assert found.low == -found.high


@pytest.mark.parametrize(
    ("trained", "control", "networks", "expected"),
    [
        (examined(45), examined(5), 5, "supported: above untrained"),
        (examined(5), examined(5), 5, "not supported: not above untrained by 0.1 or more"),
        (examined(5), examined(30), 5, "not supported: not above untrained by 0.1 or more"),
        (examined(28), examined(25), 5, "inconclusive: not told apart from untrained"),
        (examined(45), examined(5), 4, "inconclusive: 4 networks where 5 are needed"),
        (examined(45), examined(5), 1, "inconclusive: 1 network where 5 are needed"),
        (examined(45, agreement=0.5), examined(5), 5, "inconclusive: two halves agree to 0.50 only"),
        (examined(5, small=30), examined(5), 5, "inconclusive: 60% of the fields are too small to tell"),
    ],
)
def test_the_rule(trained: Examined, control: Examined, networks: int, expected: str) -> None:
    found = verdict([(trained, {"untrained": control})] * networks)
    assert str(found) == expected
    assert len(found.differences) == (networks > 1)


def test_every_control_counts() -> None:
    case = (examined(45), {"untrained": examined(5), "shuffled": examined(45)})
    assert str(verdict([case] * 5)) == "not supported: not above shuffled by 0.1 or more"


def test_all_doubts_are_told() -> None:
    found = verdict([(examined(0, small=50, agreement=0.2), {"untrained": examined(0)})])
    assert found.why.count(";") == 2


@pytest.mark.parametrize(
    ("networks", "message"),
    [
        ([], "no networks to judge"),
        ([(examined(1), {})], "at least one; without it nothing is supported"),
        ([(examined(1), {"a": examined(1)}), (examined(1), {"b": examined(1)})], "needs the same controls"),
    ],
)
def test_no_verdict_without_networks_and_controls(
    networks: list[tuple[Examined, dict[str, Examined]]], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        verdict(networks)


def test_small_blobs_are_called_small() -> None:
    """Whatever is smaller than the parameters are many is fitted, so its form cannot be told."""
    assert set(judge(fit_gabors(plants("blobs", 10, 12, width=0.06)))) == {"resolution"}
