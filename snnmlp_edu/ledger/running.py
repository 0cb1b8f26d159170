"""Running a plan: train the missing runs, measure each, and add its record, one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from ..checkpoints import CHECKPOINT, hash_tensors, load_checkpoint
from ..data.datasets import dataset_sha256, train_validation_split
from ..data.sources import open_source
from ..errors import InputError
from ..fields import marked
from ..registry import create_model
from ..training import describe_accuracy, fit
from ..training.recipe import NOT_THE_RESULT, Recipe, decisive, load_recipe
from ..training.resume import RECIPE, SavedRun
from . import measurement
from .plans import Plan, load_plan, recipe_fields, recipe_sha256
from .record import Record
from .store import OUTPUT, append, latest, locked, results_folder


def run_plan(
    plan: Plan | str | Path,
    *,
    variant: str | None = None,
    seed: int | None = None,
    results: Path | None = None,
    output: Path = OUTPUT,
    announce: Callable[[str], None] = print,
    progress: bool = False,
    **overrides: Any,
) -> Iterator[Record]:
    """Train the missing runs of a plan, and yield each new record once it is written.

    A run that another plan shares is not trained again. An interrupted run is resumed where it stopped.

    Args:
        plan: the plan, its name, or the path of a YAML file.
        variant: run this one alone.
        seed: run this one alone.
        results: folder of the records.
        output: folder in which each run has a folder, `<plan>/<variant>-<seed>`.
        announce: called with one line per run.
        progress: show a progress bar, and a line for each epoch.
        overrides: where the data are: `data_dir`, `data_md5`; or how they are loaded and saved.

    Raises:
        InputError: another process runs this plan; or as `load_plan` and `fit`.
        Preempted: the process received SIGTERM or SIGINT; the state is saved.
    """
    plan = load_plan(plan)
    runs = chosen_runs(plan, variant, seed)
    check_overrides(overrides)
    _check_networks(plan)
    results = results_folder() if results is None else results
    recorded = latest(results) if results.is_dir() else {}
    missing = [plan.recipe_of(*run).replace(**overrides) for run in runs if plan.key(*run) not in recorded]
    for recipe in {(r.dataset, r.data_dir, r.data_md5): r for r in missing}.values():
        _check_data(recipe)
    results.mkdir(parents=True, exist_ok=True)
    file = results / f"{plan.name}.jsonl"
    with locked(file):
        for number, (variant, seed) in enumerate(runs, start=1):
            name = f"{plan.name} {variant}, seed {seed} ({number} of {len(runs)})"
            known = latest(results).get(plan.key(variant, seed))  # another plan may have added it meanwhile
            if known is not None:
                announce(f"{name}: known from {known.plan} {known.variant}")
                continue
            recipe = plan.recipe_of(variant, seed).replace(**overrides)
            checkpoint = train(recipe, output / plan.name / f"{variant}-{seed}", progress=progress)
            record = measure(plan, variant, recipe, checkpoint)
            append(file, record)
            accuracy = describe_accuracy(record.test_correct, record.test_total)
            announce(f"{name}: {accuracy}, {record.seconds:.0f} s")
            yield record


def chosen_runs(plan: Plan, variant: str | None, seed: int | None) -> list[tuple[str, int]]:
    """The runs of a plan, or those of one variant or seed.

    Raises:
        InputError: the plan has no such variant or seed.
    """
    if variant is not None:
        plan.recipe_of(variant, seed=0)
    if seed is not None and seed not in plan.seeds:
        raise InputError(
            f"the plan {plan.name} has no seed {seed} (seeds: {', '.join(map(str, plan.seeds))})"
        )
    return [run for run in plan.runs if run[0] == (variant or run[0]) and seed in (None, run[1])]


def _check_networks(plan: Plan) -> None:
    """Build every network without its weights: what cannot be built is noticed before anything is trained.

    Raises:
        InputError: names the variant and what is wrong with it.
    """
    for variant in plan.variants:
        recipe = plan.recipe_of(variant, seed=0)
        try:
            with torch.device("meta"):
                create_model(str(recipe.preset), **recipe.model)
        except InputError as error:
            raise InputError(f"plan {plan.name}, variant {variant}: {error}") from error


def _check_data(recipe: Recipe) -> None:
    """Read the data once, before anything is trained: a test set that is missing would be noticed last.

    Raises:
        InputError: they are missing or damaged, or stay in files.
    """
    source = open_source(recipe.dataset, recipe.data_dir, recipe.data_md5)
    if source.files is not None:
        raise InputError(
            f"the images of {recipe.dataset} stay in files and a plan needs all of them in memory; take a"
            " smaller data set, or train with snnmlp train"
        )
    source.load("train"), source.load("test")


def check_overrides(overrides: dict[str, Any]) -> None:
    """Refuse overrides that would change the plan's runs.

    Raises:
        InputError: a field that decides the outcome.
    """
    free = marked(Recipe, NOT_THE_RESULT)
    for name in overrides:
        if name not in free:
            raise InputError(
                f"{name} would make other runs than the plan says; write it into a plan, and give here only"
                f" {', '.join(free)}"
            )


def train(recipe: Recipe, folder: Path, *, progress: bool) -> Path:
    """The checkpoint of a run in this folder: finished, resumed, or new.

    Raises:
        InputError: as `fit`.
        Preempted: the process received SIGTERM or SIGINT; the state is saved.
    """
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = None
    for run in sorted(folder.glob(f"{recipe.name}-{recipe.seed}-*")):
        trained_by = _read(load_recipe, run / RECIPE)
        if trained_by is None or decisive(trained_by.to_dict()) != decisive(recipe.to_dict()):
            continue
        checkpoint = _read(load_checkpoint, run / CHECKPOINT)
        if checkpoint is not None and "test_correct" in checkpoint.metrics:
            return run / CHECKPOINT
        unfinished = run if _read(SavedRun.open, run) else unfinished
    if unfinished is not None:
        return fit(None, recipe, resume=unfinished, progress=progress).checkpoint
    return fit(None, recipe, output=folder, progress=progress).checkpoint


def _read(reader: Callable[[Path], Any], file: Path) -> Any:
    """What a reader makes of a file of a run, or None where an interrupted run has no whole one."""
    try:
        return reader(file)
    except InputError:
        return None


def measure(plan: Plan, variant: str, recipe: Recipe, file: Path) -> Record:
    """The record of a finished run, measured on the CPU: `verify` repeats its counts on any machine.

    A run that was trained on a GPU may differ by a few images there, since sums are rounded in another order.

    Raises:
        InputError: a run of the CPU does not classify as many test images correctly as training reported, or
            the run does not say where and when it was trained.
    """
    checkpoint = load_checkpoint(file)
    if "origin" not in checkpoint.metrics:
        raise InputError(
            f"{file} does not say when and where it was trained: an earlier version of snnmlp-edu wrote it;"
            f" move {file.parent} away to train it again"
        )
    source = open_source(recipe.dataset, recipe.data_dir, recipe.data_md5)
    train, test = source.load("train"), source.load("test")
    parts = train_validation_split(train.labels, recipe.validation_fraction, recipe.seed)
    test_loss, right = measurement.loss_and_hits(checkpoint, test)
    correct = int(right.sum())
    metrics, config = checkpoint.metrics, checkpoint.model.config
    if correct != metrics["test_correct"] and not torch.cuda.is_available():
        raise InputError(
            f"{file} classifies {correct} test images correctly and training reported"
            f" {metrics['test_correct']}; was it trained on another machine? Train it again"
        )
    accuracy = correct / len(test.labels)
    batch = checkpoint.preprocessing(train.images[: measurement.GRADIENT_IMAGES])
    labels = train.labels[: measurement.GRADIENT_IMAGES]
    at_start = measurement.untrained(recipe, source.class_names)
    violations = measurement.multiplications(checkpoint, test)
    at_steps = (
        measurement.accuracy_at_steps(file, test, config.time_steps, accuracy)
        if config.activation == "lif"
        else {}
    )
    return Record(
        plan=plan.name,
        variant=variant,
        preset=str(recipe.preset),
        overrides=dict(recipe.model),
        network=type(checkpoint.model).__name__,
        config=config.to_dict(),
        recipe=recipe.name,
        recipe_fields=recipe_fields(recipe),
        recipe_sha256=recipe_sha256(recipe),
        seed=recipe.seed,
        dataset=recipe.dataset,
        dataset_sha256=dataset_sha256(train, test),
        splits={"train": len(parts[0]), "validation": len(parts[1]), "test": len(test.labels)},
        **metrics["origin"],
        seconds=round(metrics["seconds"], 1),
        best_epoch=metrics["epoch"],
        validation_accuracy=metrics["validation_accuracy"],
        test_accuracy=accuracy,
        test_correct=correct,
        test_total=len(test.labels),
        test_loss=test_loss,
        embedded_correct=measurement.embedded_hits(checkpoint, recipe.dataset, correct),
        accuracy_at_steps=at_steps,
        gradient_norms={
            "start": measurement.gradient_norms(at_start, batch, labels),
            "end": measurement.gradient_norms(checkpoint.model, batch, labels),
        },
        gradient_images=len(labels),
        parameters=measurement.parameters(checkpoint.model),
        multiplication_free=not violations,
        violations=violations,
        tensors_sha256=hash_tensors(checkpoint.model.state_dict()),
        test_right=measurement.packed(right),
        **measurement.cost(checkpoint, test),
    )
