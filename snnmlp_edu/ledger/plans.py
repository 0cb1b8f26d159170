"""Plans: a question, and the runs that answer it: variants of one network, each with several seeds."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch

from ..config import NetworkConfig
from ..data.files import path
from ..errors import InputError
from ..fields import Rule, checked, is_required, marked, nearest, require_known
from ..registry import create_model, get_config
from ..training.recipe import NOT_THE_RESULT, Recipe, Seed, load_recipe
from ..yaml_files import read_named, require_text_keys

SEEDS = (0, 1, 2)
FIELDS = ("question", "preset", "recipe", "base", "seeds", "variants")
# Recipe fields that a plan says in its own way, or that mean nothing to the result.
_APART = ("name", "source", "preset", "model", "seed", *marked(Recipe, NOT_THE_RESULT))
_Seeds = Annotated[
    tuple[Seed, ...],
    Rule(lambda seeds: len(set(seeds)) == len(seeds), "different whole numbers, such as [0, 1, 2]"),
]


@dataclass(frozen=True)
class Plan:
    """Which networks to train, to answer one question.

    Args:
        name: of the plan, and of its file of records.
        question: what the runs answer.
        recipe: how all of them are trained.
        base: name of the variant that the others are compared with; None where all are compared with all.
        seeds: each variant is trained once with each.
        variants: name -> fields of `NetworkConfig` or of the recipe that differ from the plan's.

    Raises:
        InputError: a variant changes an unknown field or gives one a value that is not allowed.
    """

    name: str
    question: str
    recipe: Recipe
    base: str | None
    seeds: tuple[int, ...]
    variants: Mapping[str, Mapping[str, Any]]

    def __post_init__(self) -> None:
        for variant in self.variants:
            try:
                self.config(variant)
            except InputError as error:
                raise InputError(f"plan {self.name}, variant {variant}: {error}") from error

    @property
    def runs(self) -> list[tuple[str, int]]:
        """Variant and seed of every run: all variants with the first seed, then with the next."""
        return [(variant, seed) for seed in self.seeds for variant in self.variants]

    def recipe_of(self, variant: str, seed: int) -> Recipe:
        """The complete recipe of one run.

        Raises:
            InputError: the plan has no such variant.
        """
        if variant not in self.variants:
            raise InputError(
                f"the plan {self.name} has no variant {variant!r}{nearest(variant, self.variants)}"
                f" (variants: {', '.join(self.variants)})"
            )
        return self.recipe.replace(**self.variants[variant], seed=seed)

    def config(self, variant: str) -> NetworkConfig:
        """The configuration of a variant's network."""
        recipe = self.recipe_of(variant, seed=0)
        return get_config(str(recipe.preset), **recipe.model)

    def key(self, variant: str, seed: int) -> str:
        """What decides the outcome of a run, as one word; equal for runs that are the same in two plans."""
        recipe = self.recipe_of(variant, seed)
        network = network_class(str(recipe.preset))
        return run_key(network, self.config(variant), recipe_sha256(recipe), seed)


def run_key(network: str, config: NetworkConfig, recipe: str, seed: int) -> str:
    """SHA-256 over what decides a run: the class of the network, its configuration, recipe and seed."""
    values = config.to_dict()
    values["neuron"] = {name: value for name, value in values["neuron"].items() if name != "backend"}
    return _sha256([network, values, recipe, seed])


def recipe_fields(recipe: Recipe) -> dict[str, Any]:
    """What a recipe says of the training itself, without the fields that are at their default.

    A field that is added later, with a default that changes nothing, leaves this as it is.

    >>> recipe_fields(load_recipe("fashion_smoke").replace(seed=3, epochs=2, data_dir="here"))["epochs"]
    2
    """
    plain = Recipe.plain("plain").to_dict()
    required = [field.name for field in dataclasses.fields(Recipe) if is_required(field)]
    return {
        name: value
        for name, value in recipe.to_dict().items()
        if name not in _APART and (name in required or value != plain[name])
    }


def recipe_sha256(recipe: Recipe) -> str:
    """SHA-256 over `recipe_fields`: equal recipes have it in common, whatever they are called."""
    return _sha256(recipe_fields(recipe))


@functools.cache
def network_class(preset: str) -> str:
    """Name of the class that a preset builds: networks of two classes may have one configuration."""
    with torch.device("meta"):
        return type(create_model(preset)).__name__


def plans_folder() -> Path:
    """Where the shipped plans are."""
    return path() / "plans"


def list_plans() -> list[str]:
    """Names of the shipped plans."""
    return sorted(file.stem for file in plans_folder().glob("*.yaml"))


def load_plan(name: Plan | str | Path) -> Plan:
    """Read a plan by its name, or from a YAML file of your own.

    Args:
        name: one of `list_plans()`, or a path that ends in `.yaml`. A recipe that such a file names by a
            path is looked up next to it. A plan is returned as it is.

    Raises:
        InputError: there is no such plan, or the file does not hold one; the message says what is wrong.
    """
    if isinstance(name, Plan):
        return name
    file, values = read_named("plan", name, plans_folder())
    require_known(f"{file}: a plan", values, FIELDS)
    missing = [field for field in ("question", "recipe", "variants") if not values.get(field)]
    if missing:
        raise InputError(f"{file} lacks {', '.join(missing)}; every plan needs them")
    variants = dict(_variants(file, values["variants"]))
    base = values.get("base", next(iter(variants)))
    base = None if base is None else str(base)
    if base is not None and base not in variants:
        raise InputError(
            f"{file}: base is {base!r}{nearest(base, variants)}; it must be one of the variants,"
            f" {', '.join(variants)}"
        )
    named = Path(str(values["recipe"]))
    recipe = load_recipe(file.parent / named if named.suffix in (".yaml", ".yml") else str(named))
    if "preset" in values:
        recipe = recipe.replace(preset=values["preset"])
    return Plan(
        name=file.stem,
        question=" ".join(str(values["question"]).split()),
        recipe=recipe,
        base=base,
        seeds=checked(f"{file}: seeds", values.get("seeds", SEEDS), _Seeds),
        variants=variants,
    )


def _variants(file: Path, values: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    if not isinstance(values, dict):
        raise InputError(f"{file}: variants is {values!r}; write one 'name: {{field: value}}' per line")
    for key, overrides in values.items():
        name = str(key)  # YAML reads 4 and 0.25 as numbers
        if isinstance(key, bool) or not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
            raise InputError(f"{file}: {key!r} cannot name a variant; use letters, digits, _ . and -")
        if not isinstance(overrides, dict | None):
            raise InputError(f"{file}: variant {name} is {overrides!r}; write {{field: value}}, or {{}}")
        require_text_keys(overrides, f"{file}: variant {name}")
        for field in overrides or {}:
            if field in _APART and field != "preset":
                raise InputError(f"{file}: variant {name} sets {field}, which a variant cannot; leave it out")
        yield name, overrides or {}


def _sha256(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
