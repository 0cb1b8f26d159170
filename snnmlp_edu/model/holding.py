"""Attributes of modules that several threads share, held at another value while any of them needs it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

_lock = threading.Lock()
_held: WeakKeyDictionary[nn.Module, dict[str, tuple[int, Any]]] = WeakKeyDictionary()


@contextmanager
def holding(changes: Iterable[tuple[nn.Module, str, Any]]) -> Iterator[None]:
    """Inside, attributes of modules have these values; the last to leave restores them.

    Were each thread to give back what it found, one would give back what another had set.

    Args:
        changes: module, name of its attribute, and value.

    >>> layer = nn.Identity()
    >>> with holding([(layer, "training", False)]):
    ...     layer.training
    False
    >>> layer.training
    True
    """
    changes = list(changes)
    with _lock:
        for module, name, value in changes:
            held = _held.setdefault(module, {})
            holders, own = held.get(name, (0, getattr(module, name)))
            held[name] = (holders + 1, own)
            setattr(module, name, value)
    try:
        yield
    finally:
        with _lock:
            for module, name, _ in changes:
                holders, own = _held[module].pop(name)
                if holders > 1:
                    _held[module][name] = (holders - 1, own)
                else:
                    setattr(module, name, own)


def in_this_thread(hook: Callable[..., Any]) -> Callable[..., Any]:
    """The same hook of a module, deaf to runs of that module in other threads."""
    thread = threading.get_ident()

    def heard(*args: Any, **kwargs: Any) -> Any:
        return hook(*args, **kwargs) if threading.get_ident() == thread else None

    return heard
