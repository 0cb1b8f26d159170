"""The tables of the ledger, from records whose means and intervals are computed by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from recorded import write_records
from test_cli import assert_wrong_usage, call
from torch import nn

from snnmlp_edu import LIF, NetworkConfig, SpikingMLP, ledger
from snnmlp_edu.baselines.resnet import SpikingResNet
from snnmlp_edu.baselines.vgg import SpikingVGG
from snnmlp_edu.errors import InputError
from snnmlp_edu.ledger import tables


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Of the plan `skip`: `none` is clearly lower, `membrane` is not separated, `spike` has one seed."""
    folder = tmp_path / "results"
    write_records(folder, "skip", {"stage": [800, 810, 820], "none": [500, 510, 521]})
    write_records(folder, "skip", {"membrane": [810, 790, 830]})
    write_records(folder, "skip", {"spike": [900]}, multiplication_free=False, violations=["it multiplies"])
    return folder


def test_a_table_has_means_deviations_and_paired_intervals(results: Path) -> None:
    found = tables.table("skip", results)
    columns, rows = found.accuracy()
    assert columns == ("variant", "seeds", "test accuracy", "against stage, points")
    # 800, 810, 820: deviation 10. Differences of none: -300, -300, -299; of membrane: 10, -20, 10.
    assert rows == [
        ("stage", "3", "81.00 ± 1.00 %", ""),
        ("membrane", "3", "81.00 ± 2.00 %", "+0.00 (-4.30 to +4.30)"),
        ("spike", "1", "90.00 %", "+10.00 (one seed)"),
        ("none", "3", "51.03 ± 1.05 %", "-29.97 (-30.11 to -29.82) *"),
    ]
    assert str(found.progress) == "10 of the 15 runs of the plan skip are in"


def test_a_table_has_the_cost_of_an_image(results: Path) -> None:
    columns, rows = tables.table("skip", results).cost()
    assert columns == ("variant", "rate", "parameters", "MACs", "additions", "energy", "multiplies")
    assert rows[0] == ("stage", "0.200", "1,000", "10", "100", "1.50 µJ", "no")
    assert rows[2] == ("spike", "0.200", "1,000", "10", "100", "1.50 µJ", "yes")


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
            "`membrane` +0.00, `spike` +10.00 (one seed)",
        )
    ], "a plan of which only the shared base is known is left out"


def test_no_headline_without_runs(tmp_path: Path) -> None:
    assert tables.headline_markdown(tmp_path) == "No run is in yet."


def test_the_command_prints_every_plan(results: Path) -> None:
    code, out, err = call("ledger", "table", "--results", results)
    assert (code, err) == (0, "")
    for name in ledger.list_plans():
        assert f"{name}: " in out
    assert "-29.97 (-30.11 to -29.82) *" in out


def test_the_command_prints_one_plan_as_json(results: Path) -> None:
    code, out, _ = call("ledger", "table", "skip", "--json", "--results", results)
    (plan,) = json.loads(out)
    assert code == 0
    assert plan["runs"] == {"plan": "skip", "done": 10, "total": 15}
    none = plan["rows"][3]
    assert none["variant"] == "none"
    assert none["test_accuracy"]["values"] == [0.5, 0.51, 0.521]
    assert none["against_base"]["differs"]
    assert none["gradient_norms"] == {
        "start": {"head.linear.weight": 1.0},
        "end": {"head.linear.weight": 0.5},
    }
    assert none["firing_rates"]["stages.1.neuron"] == 0.3
    assert plan["rows"][2]["against_base"]["low"] is None, "an infinite interval is none that JSON knows"
    assert plan["rows"][2]["violations"] == ["it multiplies"]


def test_markdown_of_one_plan_and_of_all(results: Path) -> None:
    code, out, _ = call("ledger", "table", "skip", "--markdown", "--results", results)
    assert code == 0
    assert "| none | 3 | 51.03 ± 1.05 % | -29.97 (-30.11 to -29.82) * |" in out
    code, out, _ = call("ledger", "table", "--markdown", "--results", results)
    assert code == 0
    assert out == tables.headline_markdown(results) + "\n"


def test_the_table_is_put_between_its_marks(results: Path, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{tables.START}\nold\n{tables.END}\nafter\n{tables.END}\n")
    code, _, err = call("ledger", "table", "--markdown", "--into", readme, "--results", results)
    assert (code, err) == (0, "")
    table = tables.headline_markdown(results)
    expected = f"before\n{tables.START}\n\n{table}\n\n{tables.END}\nafter\n{tables.END}\n"
    assert readme.read_text() == expected
    call("ledger", "table", "--markdown", "--into", readme, "--results", results)
    assert readme.read_text() == expected


def test_a_file_without_marks_is_left_alone(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("nothing here")
    answer = call("ledger", "table", "--markdown", "--into", readme, "--results", tmp_path)
    assert_wrong_usage(answer, "has no place for the table")
    assert readme.read_text() == "nothing here"


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


@pytest.mark.parametrize("name", ledger.list_plans())
def test_the_rates_of_a_shipped_record_are_those_of_layers_that_exist(name: str) -> None:
    """Whatever the layers were called when it was recorded."""
    classes = {kind.__name__: kind for kind in (SpikingMLP, SpikingResNet, SpikingVGG)}
    for record in ledger.read_records(name):
        with torch.device("meta"):
            network = classes[record.network](NetworkConfig.from_dict(record.config))
        layers = [path for path, m in network.named_modules() if isinstance(m, LIF | nn.ReLU)]
        assert record.firing_rates.keys() == set(layers)


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
