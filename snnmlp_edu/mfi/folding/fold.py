r"""Folding: every batch norm merges into the weights or the neuron next to it.

`fold_batch_norm` replaces modules in a copy of the network; which go where is in
`snnmlp_edu.mfi.folding.rules`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from ...errors import InputError
from ...model.network import Head
from ...model.neurons import LIF
from ...model.normalisation import BatchNorm, LayerNorm
from ...model.patches import ConvNorm
from ...model.synapses import Synapse
from ..known import refuse_altered, refuse_infinite
from .rules import NotFolded, Replacements, outcomes

Model = TypeVar("Model", bound=nn.Module)


class NotFoldableError(InputError):
    """A network has normalisations that do not fold; the attribute `not_folded` lists them."""

    def __init__(self, not_folded: Sequence[NotFolded]) -> None:
        self.not_folded = list(not_folded)
        others = f"; {len(not_folded) - 1} more do not fold" if len(not_folded) > 1 else ""
        super().__init__(f"{not_folded[0]}{others}")


@torch.no_grad()
def fold_batch_norm(model: Model, strict: bool = True) -> Model:
    r"""A new network without batch norm and without input gain: the same spikes, the same logits.

    After a linear map, on the axis q that the map writes, batch norm is :math:`a_q y_q + d_q` and becomes

    .. math::
        W'_{qp} = a_q W_{qp}, \qquad b'_q = a_q b_q + d_q, \qquad
        a = \gamma / \sqrt{\sigma^2 + \epsilon}, \quad d = \delta - a \mu

    `snnmlp_edu.mfi.folding.rules` has the other cases. The gain g of every neuron goes into its threshold,
    :math:`\theta / g`. Module paths stay, so that `record` names the same neurons before and after. What
    `forward_steps` returns for each step now adds up to the logits. The constants are computed in fp64 and
    rounded once. The network given stays as it is.

    The result is for inference: its weights take no gradient, and its neurons' surrogate gradients are not
    those of the network given.

    Args:
        model: a network in evaluation mode, built from this package's layers, with trained statistics.
        strict: whether a normalisation that does not fold is an error. If not, it stays as it is, and the
            attribute `not_folded` of the result lists those that stay.

    Raises:
        NotFoldableError: a normalisation does not fold: layer norm; or a batch norm on an axis that its map
            does not write, where no neuron can take it.
        InputError: the network is in training mode, has a tensor that is not finite, a batch norm without
            statistics or a forward hook, or no layer that is known here.

    Source: arXiv 2306.12465, on multiplication-free inference; the axes are worked out here.

    >>> from snnmlp_edu import load_pretrained
    >>> model = load_pretrained("mlp_spe_nano").double()
    >>> images = torch.rand(2, 1, 32, 32, dtype=torch.float64)
    >>> torch.allclose(fold_batch_norm(model)(images), model(images), rtol=0, atol=1e-10)
    True
    """
    _check(model)
    folded: Any = copy.deepcopy(model)
    replacements: Replacements = {}
    not_folded: list[NotFolded] = []
    for outcome in outcomes(folded):
        if isinstance(outcome, NotFolded):
            not_folded.append(outcome)
        else:
            replacements |= outcome
    for path, module in replacements.items():
        folded.set_submodule(path, module)
    not_folded += _strays(folded, not_folded)
    if strict and not_folded:
        raise NotFoldableError(not_folded)
    _check_statistics(model)  # what can never fold is said first: no training would change it
    folded.not_folded = not_folded
    return folded.requires_grad_(False).eval()


def _strays(network: nn.Module, listed: Sequence[NotFolded]) -> list[NotFolded]:
    """Normalisations that are left and not listed yet, because no rule covers their position."""
    strays: list[NotFolded] = []
    for path, module in network.named_modules():
        seen = any(f"{path}.".startswith(f"{other.path}.") for other in (*listed, *strays))
        if isinstance(module, NORMS) and not seen:
            axis = getattr(module, "axis", "channel")
            holder = type(network.get_submodule(path.rpartition(".")[0])).__name__
            reason = f"it is in a {holder}, after no linear map that fold_batch_norm knows"
            strays.append(NotFolded(path, axis, reason))
    return strays


_OWN = (Synapse, ConvNorm, LIF, BatchNorm, LayerNorm, Head)
# Whatever normalises.
NORMS = (BatchNorm, LayerNorm, nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def _check(model: nn.Module) -> None:
    name = type(model).__name__
    modules = dict(model.named_modules()) if isinstance(model, nn.Module) else {}
    if not any(isinstance(module, _OWN) for module in modules.values()):
        raise InputError(
            "fold_batch_norm folds networks built from this package's layers (Synapse, ConvNorm, LIF, Head)"
            f" and {name} has none of them; build it from these, or fold its batch norms by hand"
        )
    for path, module in modules.items():
        where = path or name
        if module.training:
            raise InputError(f"{where} is in training mode; call model.eval() before folding")
    refuse_altered(model)
    refuse_infinite(model)


def _check_statistics(model: nn.Module) -> None:
    for path, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and not module.num_batches_tracked:
            raise InputError(
                f"{path} has no statistics yet, it never saw a batch in training; train the network, load"
                " trained weights, or give it statistics by snnmlp_edu.mfi.calibrate"
            )
