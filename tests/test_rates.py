"""Learning rates are chosen on validation images: by which runs, and that the plans have what was chosen."""

from __future__ import annotations

from typing import Any

from test_data import load_script

from snnmlp_edu import ledger
from snnmlp_edu.training import load_recipe

choose_rates = load_script("choose_rates")


def line(variant: str, rate: float, accuracy: float) -> dict[str, Any]:
    return {"plan": "skip", "variant": variant, "learning_rate": rate, "validation_accuracy": accuracy}


def test_the_rate_with_the_highest_validation_accuracy_is_taken() -> None:
    lines = [line("stage", 0.004, 0.5), line("stage", 0.008, 0.6), line("stage", 0.016, 0.55)]
    lines += [line("none", 0.004, 0.3), line("none", 0.008, 0.2)]
    assert choose_rates.best_rates(lines) == {("skip", "stage"): 0.008, ("skip", "none"): 0.004}


def test_a_choice_takes_half_the_epochs_and_a_seed_of_its_own() -> None:
    recipe = load_recipe("cifar10_ablation").replace(epochs=10, early_epochs=8)
    half = choose_rates.shorter(recipe)
    assert (half.epochs, half.early_epochs) == (5, 4)
    assert half == recipe.replace(epochs=5, early_epochs=4, seed=half.seed)
    assert all(half.seed not in ledger.load_plan(name).seeds for name in ledger.list_plans())


def test_what_is_recorded_is_not_trained_again() -> None:
    plan = ledger.load_plan("cifar10_skip")
    known = [line("none", 0.004, 0.3) | {"plan": plan.name}, line("none", 0.008, 0.3) | {"plan": "other"}]
    left = list(choose_rates.missing(plan, "none", (0.004, 0.008), known))
    assert [(variant, recipe.learning_rate) for variant, recipe in left] == [("none", 0.008)]
    assert left[0][1].model["skip"] == "none"


def test_the_plans_have_the_rates_that_were_chosen() -> None:
    lines = choose_rates.read()
    assert lines, choose_rates.FILE
    for (name, variant), rate in choose_rates.best_rates(lines).items():
        tried = [each for each in lines if (each["plan"], each["variant"]) == (name, variant)]
        if len(tried) < 3:
            continue  # not chosen yet
        assert len({(each["epochs"], each["early_epochs"], each["seed"]) for each in tried}) == 1
        assert ledger.load_plan(name).recipe_of(variant, 0).learning_rate == rate, (name, variant)
