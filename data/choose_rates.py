"""Choose learning rates by validation images: train variants of a plan briefly with several, and record each.

    python data/choose_rates.py cifar10_skip --data-dir PATH                        # all variants
    python data/choose_rates.py cifar10_skip --data-dir PATH --variant spike        # one

Each is trained once with each rate, for half as long as in the plan and with a seed that no plan has, and
adds a line to `data/rates.jsonl`. What is there already is not trained again. The rate with the highest
validation accuracy is the variant's: write it into the plan. Test images have no part in this. The same
command goes on where it was stopped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from snnmlp_edu.checkpoints import load_checkpoint
from snnmlp_edu.data import path
from snnmlp_edu.data.scripts import run_script
from snnmlp_edu.ledger import Plan, load_plan
from snnmlp_edu.ledger.running import chosen_runs, train
from snnmlp_edu.training import Recipe

FILE = path() / "rates.jsonl"
RATES = (0.008, 0.016, 0.032)
SEED = 100


def shorter(recipe: Recipe) -> Recipe:
    """The recipe with half of its epochs, at all and at the own number of time steps."""
    own = max(1, (recipe.epochs - recipe.early_epochs) // 2)
    early = recipe.early_epochs // 2
    return recipe.replace(epochs=early + own, early_epochs=early, seed=SEED)


def read(file: Path = FILE) -> list[dict[str, Any]]:
    """All lines that are there."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def best_rates(lines: list[dict[str, Any]]) -> dict[tuple[str, str], float]:
    """Plan and variant -> the rate with the highest validation accuracy."""
    ascending = sorted(lines, key=lambda line: line["validation_accuracy"])
    return {(line["plan"], line["variant"]): line["learning_rate"] for line in ascending}


def missing(
    plan: Plan, variant: str | None, rates: tuple[float, ...], known: list[dict[str, Any]]
) -> Iterator[tuple[str, Recipe]]:
    """Variants, and the recipes of the runs that are not recorded."""
    done = {(line["plan"], line["variant"], line["learning_rate"]) for line in known}
    for name, _ in chosen_runs(plan, variant, plan.seeds[0]):
        for rate in rates:
            if (plan.name, name, rate) not in done:
                yield name, shorter(plan.recipe_of(name, SEED)).replace(learning_rate=rate)


def choose(
    plan: str, data_dir: str, variant: str | None, rates: Sequence[float], file: Path, output: Path
) -> None:
    """Train what is missing, and add a line for each run."""
    asked = load_plan(plan)
    for name, recipe in missing(asked, variant, tuple(rates), read(file)):
        folder = output / asked.name / f"{name}-{recipe.learning_rate:g}"
        found = load_checkpoint(train(recipe.replace(data_dir=data_dir), folder, progress=False)).metrics
        line = {
            "plan": asked.name,
            "variant": name,
            "learning_rate": recipe.learning_rate,
            "epochs": recipe.epochs,
            "early_epochs": recipe.early_epochs,
            "seed": recipe.seed,
            "validation_accuracy": found["validation_accuracy"],
            "commit": found["origin"]["commit"],
            "finished": found["origin"]["finished"],
        }
        with file.open("a", encoding="utf-8") as lines:  # one short write: others may add meanwhile
            lines.write(json.dumps(line) + "\n")
        print(f"{name}, {recipe.learning_rate:g}: {100 * found['validation_accuracy']:.2f} %", flush=True)


if __name__ == "__main__":
    run_script(
        choose,
        __doc__,
        {
            "plan": {"help": "its name, or the path of a .yaml file"},
            "--data-dir": {"required": True, "help": "where the images are"},
            "--variant": {"help": "this one alone; by default all"},
            "--rates": {"type": float, "nargs": "+", "default": RATES, "help": "which ones"},
            "--file": {"type": Path, "default": FILE, "help": "where lines are read and added"},
            "--output": {"type": Path, "default": Path("runs") / "rates", "help": "folder of the runs"},
        },
    )
