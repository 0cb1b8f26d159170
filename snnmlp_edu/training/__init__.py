"""Training: recipes, the training loop, `fit`, and the evaluation that all share.

Evaluation needs the core alone; everything else needs the extra `[train]`, and is imported when it is
first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .evaluation import describe_accuracy, evaluate, evaluate_embedded, evaluate_source, own_source

if TYPE_CHECKING:
    from .fitting import TrainingResult, fit
    from .recipe import Recipe, list_recipes, load_recipe

__all__ = [
    "Recipe",
    "TrainingResult",
    "describe_accuracy",
    "evaluate",
    "evaluate_embedded",
    "evaluate_source",
    "fit",
    "list_recipes",
    "load_recipe",
    "own_source",
]

_MODULES = {
    "Recipe": "recipe",
    "TrainingResult": "fitting",
    "fit": "fitting",
    "list_recipes": "recipe",
    "load_recipe": "recipe",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(f".{_MODULES[name]}", __name__)
    except ModuleNotFoundError as error:
        raise InputError(
            f"training needs {error.name}, which is not installed; run, in a clone: pip install -e '.[train]'"
        ) from error
    return getattr(module, name)
