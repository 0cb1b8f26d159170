"""The variants that tests run through, from the types: a new one is tested without being asked for."""

from __future__ import annotations

from typing import Any, get_args

from snnmlp_edu.config import (
    ChannelNorm,
    HeadName,
    PatchEncoding,
    Reset,
    Skip,
    SurrogateName,
    TokenMixingName,
)
from snnmlp_edu.model.mixing import BLOCKS

SKIPS: tuple[str, ...] = get_args(Skip)
NOT_FOLDING_SKIPS = ("outer",)  # its layer norms read each input
FOLDING_SKIPS = tuple(name for name in SKIPS if name not in NOT_FOLDING_SKIPS)
SPIKING_SKIPS = tuple(name for name in SKIPS if BLOCKS[name].wiring.puts_out_spikes)
PATCH_ENCODINGS: tuple[str, ...] = get_args(PatchEncoding)
TOKEN_MIXINGS: tuple[str, ...] = get_args(TokenMixingName)
HEADS: tuple[str, ...] = get_args(HeadName)
RESETS: tuple[str, ...] = get_args(Reset)
SURROGATES: tuple[str, ...] = get_args(SurrogateName)
NOT_FOLDING = ("bn_token", "ln")  # in every network
FOLDING_NORMS = tuple(name for name in get_args(ChannelNorm) if name not in NOT_FOLDING)


def fitted(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields of a network, with the expansion that its shortcut needs."""
    return fields | ({"expansion": 1} if fields.get("skip") == "inner" else {})


# Each recipe field that does not change the result, with another value than a recipe of the tests has.
WITHOUT_EFFECT: tuple[dict[str, Any], ...] = (
    {"data_dir": "elsewhere"},
    {"data_md5": "0" * 32},
    {"loading": {"workers": 2}},
    {"save_every": 7},
    {"tensorboard": True},
)
