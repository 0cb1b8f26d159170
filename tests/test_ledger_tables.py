"""The tables of the ledger, from records whose means and intervals are computed by hand."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path

import pytest
import torch
from recorded import write_records
from test_cli import call
from torch import nn

from snnmlp_edu import LIF, NetworkConfig, SpikingMLP, ledger
from snnmlp_edu.baselines.resnet import SpikingResNet
from snnmlp_edu.baselines.vgg import SpikingVGG
from snnmlp_edu.errors import InputError
from snnmlp_edu.ledger import tables


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Of the plan `skip`: `none` is clearly lower, `membrane` is not separated, `spike` is not all in."""
    folder = tmp_path / "results"
    write_records(folder, "skip", {"stage": [800, 810, 820], "none": [500, 510, 521]})
    write_records(folder, "skip", {"membrane": [810, 790, 830]})
    write_records(folder, "skip", {"spike": [900]}, multiplication_free=False, violations=["it multiplies"])
    return folder


def test_a_table_has_means_and_deviations(results: Path) -> None:
    found = tables.table("skip", results)
    columns, rows = found.accuracy()
    assert columns == ("variant", "seeds", "test accuracy")
    assert rows == [
        ("stage", "3", "81.00 ± 1.00 %"),  # 800, 810, 820: deviation 10
        ("membrane", "3", "81.00 ± 2.00 %"),
        ("spike", "1", "90.00 %"),
        ("none", "3", "51.03 ± 1.05 %"),
    ]
    assert str(found.progress) == "10 of the 15 runs of the plan skip are in"


def test_a_table_has_both_intervals_of_each_difference(results: Path) -> None:
    found = tables.table("skip", results)
    columns, rows = found.differences()
    # Squares about the means: 200, 800, 220.67; over 6 degrees of freedom the variance is 203.4, the standard
    # error of a difference 11.65; Dunnett's value for two against one is 2.863 (printed: 2.86).
    # Images of membrane: 2 * 0.81 * 0.19 / 1000 add to it, of none 0.1539 + 0.2499: 21.1, 23.2 in all. These
    # have so many degrees of freedom (65, 95) that the value is 2.262, 2.249.
    assert rows[0][:2] == ("membrane", "stage")
    assert dict(zip(columns[2:], rows[0][2:], strict=True)) == {
        "difference": "+0.00",
        "95 % over seeds": "-3.33 to +3.33",
        "95 % over seeds and images": "-4.77 to +4.77, unpaired",
        "verdict": "not separated",
        "detectable": "6.56",
    }
    assert rows[1] == ("spike", "stage", "+9.00", "", "", "cannot say: 1 of 3 seeds of spike are in", "")
    assert rows[2][2:] == (
        "-29.97",
        "-33.30 to -26.63",
        "-35.19 to -24.75, unpaired",
        "separated",
        "",
    )
    assert "1.43 points, pooled over 3 variants (6 degrees of freedom" in found.method


def test_a_plan_that_is_half_run_has_no_verdicts(tmp_path: Path) -> None:
    """Whoever stops as soon as the interval leaves out zero finds what is not there."""
    write_records(tmp_path, "skip", {"stage": [800, 810], "none": [500, 510, 515]})
    (none,) = tables.table("skip", tmp_path).comparisons or ()
    assert none.high < -0.2
    assert none.verdict == "cannot say: 2 of 3 seeds of stage are in"


def test_a_plan_whose_base_was_not_run_says_so(tmp_path: Path) -> None:
    write_records(tmp_path, "skip", {"none": [500, 510, 515]})
    found = tables.table("skip", tmp_path)
    assert found.comparisons is None
    assert found.differences()[1] == []
    assert found.method == "cannot say more: no run of the base stage is in"
    code, out, err = call("ledger", "table", "skip", "--results", tmp_path)
    assert (code, err) == (0, "")
    assert found.method in out


PAIRS = """
question: Which is better?
recipe: fashion_ablation
preset: mlp_spe_nano
base:
variants:
  stage: {skip: stage}
  none: {skip: none}
  membrane: {skip: membrane}
"""


def test_a_plan_without_a_base_compares_all_pairs(tmp_path: Path) -> None:
    (tmp_path / "pairs.yaml").write_text(PAIRS)
    plan = ledger.load_plan(tmp_path / "pairs.yaml")
    assert plan.base is None
    write_records(
        tmp_path, plan, {"stage": [800, 810, 820], "none": [500, 510, 521], "membrane": [811, 821, 831]}
    )
    found = tables.table(plan, tmp_path)
    assert [row[:2] + row[5:6] for row in found.differences()[1]] == [
        ("none", "stage", "separated"),
        ("membrane", "stage", "not separated"),
        ("membrane", "none", "separated"),
    ]
    assert "Holm" in found.method
    code, out, err = call("ledger", "table", tmp_path / "pairs.yaml", "--results", tmp_path)
    assert (code, err) == (0, "")
    assert "Holm" in out


def test_a_table_has_the_cost_of_an_image(results: Path) -> None:
    columns, rows = tables.table("skip", results).cost()
    assert columns == ("variant", "rate", "parameters", "MACs", "additions", "energy", "multiplies")
    assert rows[0] == ("stage", "0.200", "1,000", "10", "100", "1.50 µJ", "no")
    assert rows[2] == ("spike", "0.200", "1,000", "10", "100", "1.50 µJ", "yes")


def test_a_compact_table_has_differences_verdicts_and_the_costs_that_are_wanted(results: Path) -> None:
    columns, rows = tables.table("skip", results).compact("rate", "multiplies")
    assert columns == (
        *("variant", "seeds", "test accuracy (%)", "difference from stage", "95 % interval", "verdict"),
        *("rate", "multiplies"),
    )
    doubt = "cannot say: 1 of 3 seeds of spike are in"
    assert [tuple(cell.replace("\N{NO-BREAK SPACE}", " ") for cell in row) for row in rows] == [
        ("stage", "3", "81.0 ± 1.0", "", "", "", "0.200", "no"),
        ("membrane", "3", "81.0 ± 2.0", "+0.0", "-4.8 to +4.8", "not separated", "0.200", "no"),
        ("spike", "1", "90.0", "+9.0", "", doubt, "0.200", "yes"),
        ("none", "3", "51.0 ± 1.1", "-30.0", "-35.2 to -24.7", "separated", "0.200", "no"),
    ]
    assert " " not in rows[1][2] + rows[1][4], "numbers are not broken into two lines"


def test_a_compact_table_of_one_that_is_alone_has_nothing_to_compare(tmp_path: Path) -> None:
    write_records(tmp_path, "skip", {"none": [500]})
    (row,) = tables.table("skip", tmp_path).compact()[1]
    assert row == ("none", "1", "50.0", "", "", "")


def test_a_plan_in_markdown_says_what_is_missing_and_shows_what_can_be_judged(results: Path) -> None:
    said, empty, columns, _, *rows = tables.plan_markdown("skip", "multiplies", results=results).splitlines()
    assert (said, empty) == ("Not yet run: spike_bn, 2 of 3 seeds of spike (skip).", "")
    assert columns.endswith("| verdict | multiplies |")
    assert rows[-1].startswith("| none | 3 | 51.0")
    assert rows[-1].endswith("| separated | no |")
    nothing = tables.plan_markdown("cifar10_skip_deep", results=results)
    assert nothing == "Not yet run: cifar10_skip_deep."


def test_what_is_missing_is_one_sentence(results: Path) -> None:
    missing = "spike_bn, 2 of 3 seeds of spike (skip)"
    assert tables.unfinished("skip", results=results) == f"Not yet run: {missing}."
    both = tables.unfinished("skip", "cifar10_skip_deep", results=results)
    assert both == f"Not yet run: {missing}; cifar10_skip_deep."
    write_records(results, "skip", {"spike_bn": [500] * 3})
    write_records(results, "skip", {"spike": [900] * 3})
    assert tables.unfinished("skip", results=results) == ""


def test_a_network_without_spikes_has_no_rate(tmp_path: Path) -> None:
    write_records(tmp_path, "baselines", {"spiking": [800], "relu": [810]})
    spiking, relu = tables.table("baselines", tmp_path).cost()[1]
    assert (spiking[1], relu[1]) == ("0.200", "")


def test_other_time_steps_have_a_table_where_training_differs_in_them(tmp_path: Path) -> None:
    write_records(tmp_path, "time_steps", {"4": [800, 820], "2": [600, 600]})
    columns, rows = tables.table("time_steps", tmp_path).at_steps()
    assert columns == ("trained with T", "tested with 2", "tested with 4")
    assert rows == [
        ("2", "30.00 ± 0.00 %", "60.00 ± 0.00 %"),
        ("4", "40.50 ± 0.71 %", "81.00 ± 1.41 %"),
    ]


def test_variants_that_are_tied_to_their_time_steps_are_left_out_of_it(tmp_path: Path) -> None:
    write_records(tmp_path, "time_steps", {"4": [800], "2": [600]})
    write_records(tmp_path, "time_steps", {"1": [500]}, accuracy_at_steps={})
    assert [row[0] for row in tables.table("time_steps", tmp_path).at_steps()[1]] == ["2", "4"]


def test_variants_with_one_number_of_time_steps_have_no_such_table(results: Path) -> None:
    assert tables.table("skip", results).at_steps() == ((), [])


def test_a_plan_of_which_nothing_was_run_has_an_empty_table(tmp_path: Path) -> None:
    found = tables.table("skip", tmp_path)
    assert found.accuracy()[1] == found.cost()[1] == []
    code, out, err = call("ledger", "table", "skip", "--results", tmp_path)
    assert (code, err) == (0, "")
    assert "0 of the 15 runs of the plan skip are in" in out


def test_the_headline_says_which_variants_the_seeds_separate(results: Path) -> None:
    assert tables.headline(results) == [
        (
            "Where may a shortcut enter and leave a block, and what does it change?",
            "10 of 15",
            "`stage`",
            "81.00 ± 1.00 %",
            "",
            "`none` -29.97",
            "`membrane` +0.00 (6.6)",
            "`spike` +9.00",
        )
    ], "a plan of which only the shared base is known is left out"


def test_a_plan_says_something_once_one_comparison_has_all_its_runs(results: Path, tmp_path: Path) -> None:
    assert tables.table("skip", results).judged, "`none` is in with all its seeds"
    assert tables.headline(results, judged=True) == tables.headline(results)
    short = tmp_path / "short"
    short.mkdir()
    assert not tables.table("skip", short).judged
    write_records(short, "skip", {"stage": [800, 810, 820], "none": [500, 510]})
    assert not tables.table("skip", short).judged
    assert not tables.headline(short, judged=True)


def test_no_headline_without_runs(tmp_path: Path) -> None:
    assert tables.headline_markdown(tmp_path) == "No run is in yet."


def test_the_command_prints_every_plan(results: Path) -> None:
    code, out, err = call("ledger", "table", "--results", results)
    assert (code, err) == (0, "")
    for name in ledger.list_plans():
        assert f"{name}: " in out
    assert "-29.97" in out
    assert "separated" in out


def test_the_command_prints_one_plan_as_json(results: Path) -> None:
    code, out, _ = call("ledger", "table", "skip", "--json", "--results", results)
    (plan,) = json.loads(out)
    assert code == 0
    assert plan["runs"] == {"plan": "skip", "done": 10, "total": 15}
    none = plan["rows"][3]
    assert none["variant"] == "none"
    assert none["test_accuracy"]["values"] == [0.5, 0.51, 0.521]
    assert [each["variant"] for each in plan["comparisons"]] == ["membrane", "spike", "none"]
    _, spike, last = plan["comparisons"]
    assert last["separated"]
    assert last["over_images"]["high"] == pytest.approx(-0.2475, abs=1e-4)
    assert spike["doubt"] == "1 of 3 seeds of spike are in"
    assert (spike["over_seeds"], spike["detectable"]) == (None, None), "JSON knows no NaN"
    assert none["gradient_norms"] == {
        "start": {"head.linear.weight": 1.0},
        "end": {"head.linear.weight": 0.5},
    }
    assert none["firing_rates"]["stages.1.neuron"] == 0.3
    assert plan["rows"][2]["violations"] == ["it multiplies"]


def test_markdown_of_one_plan_and_of_all(results: Path) -> None:
    code, out, _ = call("ledger", "table", "skip", "--markdown", "--results", results)
    assert code == 0
    assert "| none | 3 | 51.03 ± 1.05 % |" in out
    assert "| none | stage | -29.97 | -33.30 to -26.63 | -35.19 to -24.75, unpaired | separated |  |" in out
    code, out, _ = call("ledger", "table", "--markdown", "--results", results)
    assert code == 0
    assert out == tables.headline_markdown(results) + "\n"


# --- power -----------------------------------------------------------------------------------------------


def test_power_says_what_the_seeds_can_show_and_more_would(results: Path) -> None:
    code, out, err = call("ledger", "power", "skip", "--results", results)
    assert (code, err) == (0, "")
    assert "10 of the 15 runs of the plan skip are in" in out
    assert "1.43 points, pooled over 3 variants" in out
    _, parts = tables.power("skip", results)
    columns, rows = parts["over seeds"]
    assert columns == ("variant", "against", *(f"{n} seeds" for n in (3, 5, 8, 12, 20, 50)))
    assert [row[0] for row in rows] == ["membrane", "spike", "none"], (
        "spike has one run, and the others' spread"
    )
    membrane = [float(points) for points in rows[0][2:]]
    assert membrane == sorted(membrane, reverse=True)
    # 50 seeds, next to normal: Dunnett's value for three is 2.37, and 0.84 more for the power.
    assert membrane[-1] == pytest.approx((2.37 + 0.8416) * 1.426 * math.sqrt(2 / 50), abs=0.02)
    for alone, both in zip(rows, parts["over seeds and images"][1], strict=True):
        assert all(float(one) < float(other) for one, other in zip(alone[2:], both[2:], strict=True))


def test_power_of_a_plan_with_seeds_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "pairs.yaml").write_text(PAIRS + "seeds: [0, 1, 2, 3]\n")
    plan = ledger.load_plan(tmp_path / "pairs.yaml")
    write_records(tmp_path, plan, {"stage": [800, 810], "none": [500, 510]})
    columns, rows = tables.power(plan, tmp_path)[1]["over seeds"]
    assert columns[2:5] == ("3 seeds", "4 seeds", "5 seeds")
    assert len(rows) == 1


@pytest.mark.parametrize(
    "correct",
    [{}, {"none": [500, 510]}, {"stage": [500], "none": [510]}],
    ids=["nothing", "no base", "single runs"],
)
def test_power_of_what_is_not_run_cannot_be_said(tmp_path: Path, correct: dict[str, list[int]]) -> None:
    write_records(tmp_path, "skip", correct)
    code, out, err = call("ledger", "power", "skip", "--results", tmp_path)
    assert (code, err) == (0, "")
    assert "Cannot say" in out


def test_power_as_json(results: Path) -> None:
    code, out, _ = call("ledger", "power", "skip", "--json", "--results", results)
    assert code == 0
    found = json.loads(out)
    assert found["plan"] == "skip"
    assert found["over seeds and images"][0]["against"] == "stage"


def test_an_unknown_plan_suggests_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no plan 'skp'; did you mean 'skip'"):
        tables.table("skp", tmp_path)


@pytest.mark.parametrize("name", ledger.list_plans())
def test_every_shipped_plan_is_whole(name: str) -> None:
    plan = ledger.load_plan(name)
    assert len(plan.seeds) >= 3
    assert plan.question.endswith("?")
    assert str(ledger.progress(plan))


@pytest.mark.parametrize("name", ledger.list_plans())
def test_every_network_of_a_shipped_plan_can_be_built(name: str) -> None:
    from snnmlp_edu.ledger.running import _check_networks

    _check_networks(ledger.load_plan(name))


@cache
def layers_that_fire(network: str, config: str) -> set[str]:
    """The paths of a network's activations, by the name of its class and its configuration as JSON."""
    classes = {kind.__name__: kind for kind in (SpikingMLP, SpikingResNet, SpikingVGG)}
    with torch.device("meta"):
        built = classes[network](NetworkConfig.from_dict(json.loads(config)))
    return {path for path, module in built.named_modules() if isinstance(module, LIF | nn.ReLU)}


@pytest.mark.parametrize("name", ledger.list_plans())
def test_the_rates_of_a_shipped_record_are_those_of_layers_that_exist(name: str) -> None:
    """Whatever the layers were called when it was recorded."""
    for record in ledger.read_records(name):
        assert record.firing_rates.keys() == layers_that_fire(record.network, json.dumps(record.config))


def test_the_plans_of_the_first_tier_have_the_variants_that_were_asked_for() -> None:
    variants = {
        "skip": "stage membrane spike_bn spike none",
        "token_norm": "bn ln tdbn tebn none",
        "channel_norm": "bn bn_token ln tdbn tebn none",
        "patch_encoding": "spiking conv",
        "token_mixing": "axial full none",
    }
    for name, words in variants.items():
        plan = ledger.load_plan(name)
        assert list(plan.variants) == words.split()
        assert plan.base == words.split()[0]
        assert [getattr(plan.config(v), name) for v in plan.variants] == words.split()
    bases = {plan.key(plan.base, 0) for plan in map(ledger.load_plan, variants)}
    assert len(bases) == 1, "the base is one network, trained once"
