"""Which code runs for an operation of PyTorch: its own kernel, or one that replaced it.

`torch.library` lets anybody replace what `aten::relu` does. Such a kernel runs below or above the place at
which the audit watches, and what it does there is not seen.
"""

from __future__ import annotations

from pathlib import Path

import torch

# Where PyTorch's own kernels are registered, as its build and its package write it down.
_OWN_SOURCES = ("/aten/src/ATen/", "/torch/csrc/", f"{Path(torch.__file__).parent}/")
_REGISTERED = ": registered at "
# A key that computes shapes alone, and no values.
_SHAPES_ONLY = "Meta"


class Kernels:
    """Finds operations of PyTorch with kernels that are not PyTorch's own."""

    def __init__(self) -> None:
        self._foreign: dict[tuple[str, int], str | None] = {}

    def foreign(self, name: str) -> str | None:
        """Where an operation has a kernel of other code, in words; None if all are PyTorch's own.

        Args:
            name: of the dispatcher, with its overload, such as `aten::relu` or `aten::add.Tensor`.

        >>> Kernels().foreign("aten::relu") is None
        True
        """
        key = (name, len(torch.library._impls))  # what is registered meanwhile makes old answers void
        if key not in self._foreign:
            self._foreign[key] = _foreign(torch._C._dispatch_dump_table(name))
        return self._foreign[key]


def replaced_operations() -> dict[str, str]:
    """Operations of PyTorch that Python code has given kernels of its own: name -> where, in words.

    An operation that is made of others never reaches the audit under its own name, so they are looked for
    in the list that `torch.library` keeps.
    """
    found = {}
    for entry in tuple(torch.library._impls):
        space, name, key = entry.split("/", 2)
        if space == "aten" and key != _SHAPES_ONLY:
            reason = _foreign(torch._C._dispatch_dump(f"aten::{name}"))
            if reason is not None:
                found[name] = reason
    return found


def _foreign(table: str) -> str | None:
    for line in table.splitlines():
        key, registered, source = line.partition(_REGISTERED)
        counts = registered and key not in (_SHAPES_ONLY, "debug")
        if counts and not any(own in source for own in _OWN_SOURCES):
            return f"the kernel for {key} is not PyTorch's own, and runs unseen"
    return None
