"""Spiking MLPs with multiplication-free inference (arXiv 2306.12465): a library and a book.

The public names are imported when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checkpoints import load_checkpoint, load_pretrained, save_checkpoint
    from .config import NetworkConfig, NeuronConfig
    from .engine import compile_network
    from .errors import InputError
    from .model.network import SpikingMLP, count_parameters
    from .model.neurons import LIF, LIFState, lif_step, lif_trace
    from .model.recording import Traces, record
    from .model.surrogates import surrogate_derivative
    from .registry import create_model, get_config, list_models, register

__version__ = "0.1.0"

_HOME = {
    "checkpoints": ("load_checkpoint", "load_pretrained", "save_checkpoint"),
    "config": ("NetworkConfig", "NeuronConfig"),
    "engine": ("compile_network",),
    "errors": ("InputError",),
    "model.network": ("SpikingMLP", "count_parameters"),
    "model.neurons": ("LIF", "LIFState", "lif_step", "lif_trace"),
    "model.recording": ("Traces", "record"),
    "registry": ("create_model", "get_config", "list_models", "register"),
    "model.surrogates": ("surrogate_derivative",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "LIF",
    "InputError",
    "LIFState",
    "NetworkConfig",
    "NeuronConfig",
    "SpikingMLP",
    "Traces",
    "compile_network",
    "count_parameters",
    "create_model",
    "get_config",
    "lif_step",
    "lif_trace",
    "list_models",
    "load_checkpoint",
    "load_pretrained",
    "record",
    "register",
    "save_checkpoint",
    "surrogate_derivative",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
