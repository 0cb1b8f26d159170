"""The board: the paper's claims in rows, and the verdict on each in its column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..errors import InputError
from ..plots import REFERENCE
from .claims import VERDICTS, Claim

# The groups of the board, by the chapter that gives their verdicts.
GROUPS = {
    11: "Receptive fields",
    12: "Other images",
    13: "Accuracy on ImageNet",
    14: "Structure, sizes, operations",
    15: "Effects on accuracy",
}
# Violet holds, black does not, amber cannot tell, a ring was not run. None of them is the colour of spikes,
# membranes or currents.
_COLOURS = dict(zip(VERDICTS, ("#4D3C8C", "#A99BD6", "#000000", "#E69F00", "white"), strict=True))
_MARKERS = {"proof": "s", "arithmetic": "D", "experiment": "o"}
_WORDS = {"proof": "a proof", "arithmetic": "arithmetic", "experiment": "an experiment"}
_LEFT, _GAP = -4.05, 0.55  # where the labels begin; the space after a group, in rows


def on_board(claims: Sequence[Claim]) -> list[Claim]:
    """The claims in the order in which the book gives their verdicts; their places are their numbers.

    Raises:
        InputError: a claim names a chapter that has no group.
    """
    for claim in claims:
        if claim.chapter not in GROUPS:
            raise InputError(
                f"the chapter of {claim.short!r} is {claim.chapter}, and the board has"
                f" {', '.join(map(str, GROUPS))}: name one of these in claims.yaml, or add a group to"
                " snnmlp_edu/ledger/plots.py"
            )
    return sorted(claims, key=lambda claim: claim.chapter)


def plot_board(claims: Sequence[Claim], chapter: int) -> Figure:
    """The board at the end of a chapter: a mark for each verdict, and one line for each group to come.

    The group of the chapter itself has a grey ground.

    Args:
        claims: all of them; those of one chapter are a group.
        chapter: the last one that has been read.
    """
    found = on_board(claims)
    groups = {number: [each for each in found if each.chapter == number] for number in GROUPS}
    heights = [1 + len(group) * (number <= chapter) for number, group in groups.items()]
    figure = Figure(figsize=(8.6, 0.26 * (sum(heights) + _GAP * len(groups)) + 0.95), layout="constrained")
    ax = figure.subplots()
    for column in range(len(VERDICTS)):
        ax.axvline(column, color="0.85", linewidth=0.8, zorder=0.5)
    small: dict[str, Any] = {"va": "center", "color": REFERENCE, "fontsize": 10}
    y, n = 0.0, 0
    for (number, group), height in zip(groups.items(), heights, strict=True):
        ax.text(_LEFT, y, f"{number}  {GROUPS[number]}", va="center", weight="bold", fontsize=11)
        if number > chapter:
            ground = {"facecolor": "white", "edgecolor": "none", "pad": 2}
            to_come = f"{len(group)} claim{'s' * (len(group) > 1)} to come"
            ax.text(2, y, to_come, ha="center", bbox=ground, **small)
        if number == chapter:
            ax.axhspan(y - 0.6, y + height - 0.4, facecolor="#EFEFEF", zorder=0)
        for i, each in enumerate(group if number <= chapter else (), start=1):
            ax.text(_LEFT + 0.26, y + i, str(n + i), ha="right", **small)
            ax.text(_LEFT + 0.36, y + i, each.short, va="center", fontsize=11)
            mark: dict[str, Any] = {
                "marker": _MARKERS[each.strength],
                "color": _COLOURS[each.verdict],
                "markersize": 10,
            }
            ax.plot(VERDICTS.index(each.verdict), y + i, markeredgecolor="0.35", gid=f"claim {n + i}", **mark)
        y, n = y + height + _GAP, n + len(group)
    ax.set(xlim=(_LEFT - 0.1, len(VERDICTS) - 0.45), ylim=(y - _GAP - 0.3, -0.8))
    ax.set_yticks([])
    names = [name.replace(" at", "\nat").replace("not rep", "not\nrep") for name in VERDICTS]
    ax.set_xticks(range(len(VERDICTS)), names)
    ax.xaxis.tick_top()
    ax.tick_params(length=0, labelsize=10)
    ax.spines[:].set_visible(False)
    shapes = [
        Line2D([], [], color="0.35", marker=marker, linestyle="", label=f"rests on {_WORDS[name]}")
        for name, marker in _MARKERS.items()
    ]
    figure.legend(handles=shapes, loc="outside lower center", ncols=3, fontsize=10)
    return figure
