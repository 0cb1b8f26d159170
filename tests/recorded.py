"""Records of runs that nobody made: all that a record holds, with numbers of a test's choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from snnmlp_edu.ledger import Plan, Record, load_plan
from snnmlp_edu.ledger.plans import network_class, recipe_fields, recipe_sha256
from snnmlp_edu.ledger.store import append


def record(plan: Plan | str, variant: str, seed: int, correct: int, **changes: Any) -> Record:
    """A record of this run in which so many of 1,000 test images are classified correctly."""
    plan = plan if isinstance(plan, Plan) else load_plan(plan)
    recipe = plan.recipe_of(variant, seed)
    values: dict[str, Any] = {
        "plan": plan.name,
        "variant": variant,
        "preset": str(recipe.preset),
        "overrides": dict(recipe.model),
        "network": network_class(str(recipe.preset)),
        "config": plan.config(variant).to_dict(),
        "recipe": recipe.name,
        "recipe_fields": recipe_fields(recipe),
        "recipe_sha256": recipe_sha256(recipe),
        "seed": seed,
        "dataset": recipe.dataset,
        "dataset_sha256": "0" * 64,
        "splits": {"train": 5400, "validation": 600, "test": 1000},
        "commit": "",
        "versions": {"torch": "2.14.1"},
        "device": "cpu",
        "machine": "x86_64 AVX2",
        "threads": 1,
        "finished": f"2026-11-25T12:00:{seed:02}+00:00",
        "seconds": 60.0,
        "best_epoch": 3,
        "validation_accuracy": correct / 1000,
        "test_accuracy": correct / 1000,
        "test_correct": correct,
        "test_total": 1000,
        "test_loss": 0.5,
        "embedded_correct": correct,
        "accuracy_at_steps": {"2": correct / 2000, "4": correct / 1000},
        "firing_rates": {"stages.0.neuron": 0.1, "stages.1.neuron": 0.3},
        "gradient_norms": {"start": {"head.linear.weight": 1.0}, "end": {"head.linear.weight": 0.5}},
        "counted_images": 100,
        "gradient_images": 64,
        "parameters": 1000,
        "operations": {"stem_macs": 10, "macs": 10, "synaptic_operations": 90.0, "accumulates": 100.0},
        "energy_joules": 1.5e-6,
        "multiplication_free": True,
        "violations": [],
        "tensors_sha256": "0" * 64,
    }
    return Record(**values | changes)


def write_records(
    folder: Path, plan: Plan | str, correct: Mapping[str, Sequence[int]], **changes: Any
) -> None:
    """A file of records: for each variant the hits of seed 0, 1 and so on."""
    folder.mkdir(exist_ok=True)
    name = plan.name if isinstance(plan, Plan) else plan
    for variant, hits in correct.items():
        for seed, count in enumerate(hits):
            append(folder / f"{name}.jsonl", record(plan, variant, seed, count, **changes))
