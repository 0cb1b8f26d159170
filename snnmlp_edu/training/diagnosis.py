"""What is wrong with a network in training: where numbers broke, and layers silent or never at rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..model.holding import in_this_thread
from .processes import any_process, every_process

SILENT, RESTLESS = 0.001, 0.9


class Diverged(InputError):
    """Training broke down: a loss, a weight or a statistic is NaN or infinite."""

    def __init__(self, what: str) -> None:
        super().__init__(f"training diverged: {what}; lower learning_rate or set gradient_clip")


def require_finite_loss(loss: Tensor, model: nn.Module, images: Tensor, step: int) -> None:
    """Stop every process if the loss of any is not finite.

    Raises:
        Diverged: names the first layer that broke.
    """
    finite = bool(torch.isfinite(loss))
    if not any_process(not finite)[0]:
        return
    broken = first_broken_layer(model, images) or "the loss itself"
    what = f"the loss is {loss.item()} at step {step}, first broken: {broken}"
    said = every_process(None if finite else what)
    raise Diverged(next(text for text in said if text is not None))


def first_broken_layer(model: nn.Module, images: Tensor) -> str | None:
    """The first layer of a forward pass that puts out, or holds, a NaN or an infinite number.

    The network runs once more on the same batch, in the mode it is in, with a hook on every module. Of
    modules that contain each other the innermost counts.

    Args:
        model: a network whose loss is not finite.
        images: the batch, `[B, C, H, W]`.

    Returns:
        "the activations of PATH" or "the weights PATH"; None where every layer is sound.
    """
    found: list[str] = []

    def look(path: str, module: nn.Module, outputs: Any) -> None:
        if found:
            return
        broken = [name for name, parameter in module.named_parameters(path) if not _finite(parameter)]
        if broken:
            found.append(f"the weights {broken[0]}")
        elif not all(map(_finite, _tensors(outputs))):
            found.append(f"the activations of {path or 'the network'}")

    with ExitStack() as stack, torch.no_grad():
        for path, module in model.named_modules():

            def hook(module: nn.Module, _: Any, outputs: Any, path: str = path) -> None:
                look(path, module, outputs)

            stack.callback(module.register_forward_hook(in_this_thread(hook)).remove)
        model(images)
    return found[0] if found else None


def firing_warning(rates: Mapping[str, float]) -> str | None:
    """One line that names layers which hardly ever fire or hardly ever rest; None if there are none.

    Args:
        rates: module path -> spikes per neuron and step.

    >>> firing_warning({"a": 0.2, "b": 0.0, "c": 0.95})
    'warning: firing rate below 0.1 % or above 90 %: b 0.00 %, c 95.00 %'
    >>> firing_warning({"a": 0.2}) is None
    True
    """
    odd = [f"{path} {100 * rate:.2f} %" for path, rate in rates.items() if not SILENT <= rate <= RESTLESS]
    if not odd:
        return None
    return f"warning: firing rate below {100 * SILENT:g} % or above {100 * RESTLESS:g} %: {', '.join(odd)}"


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)
