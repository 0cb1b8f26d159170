"""Networks by name: `register`, `create_model`, `list_models`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

from .config import NetworkConfig
from .errors import InputError
from .fields import nearest
from .model.network import SpikingMLP, SpikingNetwork


class _Entry(NamedTuple):
    config: NetworkConfig
    build: Callable[[NetworkConfig], SpikingNetwork]


_entries: dict[str, _Entry] = {}


def register(name: str, config: NetworkConfig, build: Callable[[NetworkConfig], SpikingNetwork]) -> None:
    """Make a configuration known under a name.

    Args:
        name: what `create_model` is to be called with.
        config: the configuration, which callers may override field by field.
        build: makes the network of a configuration, for instance `SpikingMLP`.

    Raises:
        InputError: the name is taken.
    """
    if name in _entries:
        raise InputError(f"a model named {name!r} is registered already; choose another name")
    _entries[name] = _Entry(config, build)


def _known() -> dict[str, _Entry]:
    # By name, as an entry point would be: the registry must not depend on what registers with it.
    for home in ("presets", "baselines"):
        importlib.import_module(f"snnmlp_edu.{home}")
    return _entries


def _find(name: str) -> _Entry:
    entries = _known()
    if not isinstance(name, str) or name not in entries:
        hint = nearest(str(name), entries)
        raise InputError(f"there is no model named {name!r}{hint} (`snnmlp models` lists all)")
    return entries[name]


def list_models() -> list[str]:
    """Names of all registered models, in the order of registration.

    >>> "mlp_spe_t" in list_models()
    True
    """
    return list(_known())


def get_config(name: str, /, **overrides: Any) -> NetworkConfig:
    """The configuration registered under a name, with some fields changed.

    Raises:
        InputError: the name or a field is unknown (the nearest is suggested), or a value is out of range.

    >>> get_config("mlp_spe_t").widths
    (78, 156, 312, 624)
    """
    return _find(name).config.replace(**overrides)


def create_model(name: str, /, **overrides: Any) -> SpikingNetwork:
    """Build a network by name; any field of `NetworkConfig` may be overridden.

    Args:
        name: a name that `list_models()` gives.
        overrides: fields of `NetworkConfig`; `neuron` may be a mapping of fields of `NeuronConfig`.

    Returns:
        The network, with freshly drawn weights, in training mode.

    Raises:
        InputError: the name or a field is unknown (the nearest is suggested), or a value is out of range.

    >>> model = create_model("mlp_spe_nano", time_steps=2, neuron={"beta": 0.25})
    >>> model.config.time_steps
    2
    """
    entry = _find(name)
    return entry.build(entry.config.replace(**overrides))


def build_model(preset: str | None, config: NetworkConfig) -> SpikingNetwork:
    """The network of a stored configuration: of the kind that its preset has.

    Args:
        preset: a registered name, which tells a mixer from a baseline; with None, or a name that is not
            registered here, the network is a `SpikingMLP`.
        config: the whole configuration; that of the preset plays no part.

    Raises:
        InputError: the kind of network does not know a field of the configuration.
    """
    entries = _known()
    return entries[preset].build(config) if preset in entries else SpikingMLP(config)
