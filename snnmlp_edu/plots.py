"""Figures in one style: plain results in, a matplotlib `Figure` out; no model code.

The same colours in the whole book: spikes are vermilion, membranes blue, currents green, and
what is compared with them grey. The palette is Okabe and Ito's, which colour-blind readers can tell apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .errors import InputError

try:
    import matplotlib
except ValueError as error:  # matplotlib looks at MPLBACKEND when it is imported
    raise InputError(f"matplotlib cannot be used ({error}); unset MPLBACKEND, or set it to agg") from error
from matplotlib import rcsetup, style
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from numpy.typing import ArrayLike

SPIKE = "#D55E00"
MEMBRANE = "#0072B2"
CURRENT = "#009E73"
REFERENCE = "#6E6E6E"
_SCALES = "#4D3C8C"
PALETTE = (MEMBRANE, SPIKE, CURRENT, "#CC79A7", "#E69F00", "#56B4E9")
CONTESTANTS = (
    "#000000",
    *PALETTE[3:],
    "#7B5EA7",
    "#8C510A",
)  # no colour that stands for spikes, membranes, currents


def use_book_style() -> None:
    """Set fonts, colours and line widths for every figure made afterwards.

    Backgrounds are opaque white, so that a figure reads alike on a light and on a dark page.
    """
    # matplotlib's copy of seaborn's style: importing seaborn itself would take every chapter a second.
    style.use("seaborn-v0_8-ticks")
    matplotlib.rcParams.update(
        {
            "axes.prop_cycle": rcsetup.cycler("color", PALETTE),
            "font.sans-serif": ["DejaVu Sans"],  # matplotlib brings it: the same figure on every machine
            "font.size": 12,
            "axes.labelsize": 12,
            "xtick.labelsize": 11,
            "ytick.labelsize": 11,
            "legend.fontsize": 11,
            "legend.title_fontsize": 12,
            "xtick.major.width": 1.25,
            "ytick.major.width": 1.25,
            "patch.edgecolor": "white",
            "patch.force_edgecolor": True,
            "figure.dpi": 110,
            "figure.constrained_layout.use": True,
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": "medium",
            "legend.frameon": False,
            "lines.linewidth": 2,
            "image.interpolation": "nearest",
        }
    )


def plot_raster(spikes: ArrayLike, ax: Axes, title: str = "") -> None:
    """Spikes `[T, neurons]` as a raster: one row per time step, one column per neuron.

    Args:
        spikes: 0 or 1, `[T, neurons]`.
        ax: where to draw.
        title: heading of the panel.
    """
    spikes = np.asarray(spikes)
    steps, neurons = spikes.shape
    # Lines and not an image: where neurons outnumber pixels, an image would leave spikes out.
    ax.eventplot(
        [np.flatnonzero(step) for step in spikes],
        lineoffsets=list(range(steps)),
        linelengths=0.9,
        linewidths=max(0.7, 300 / neurons),
        colors=SPIKE,
    )
    ax.set(xlabel="neuron", ylabel="time step", yticks=range(steps), title=title)
    ax.set(xlim=(-0.5, neurons - 0.5), ylim=(steps - 0.5, -0.5))


def plot_confusion(counts: ArrayLike, names: Sequence[str]) -> Figure:
    """A confusion matrix: row the true class, column the predicted one, cells in images.

    Args:
        counts: whole numbers `[classes, classes]`.
        names: class names in order.
    """
    import seaborn

    figure = Figure(figsize=(7, 6))
    ax = figure.subplots()
    seaborn.heatmap(
        np.asarray(counts),
        annot=True,
        fmt="d",
        cmap="Blues",
        cbar_kws={"label": "images"},
        xticklabels=list(names),
        yticklabels=list(names),
        ax=ax,
    )
    ax.set(xlabel="predicted class", ylabel="true class")
    return figure


def plot_scales(ax: Axes, writes: str, keeps: str | None, title: str = "") -> None:
    """A block of currents `[H, W, C]`: its normalisation's scales as colours, its map's axis as an arrow.

    Args:
        ax: where to draw.
        writes: the axis that the linear map writes, `channel` or `width`.
        keeps: the axis that has a scale for each of its positions: `channel`, `width`, `height` or `token`;
            None where the scales depend on the input, which leaves white cells and question marks.
        title: heading of the panel.
    """
    rows, columns, channels = 4, 4, 5
    scales = {"channel": channels, "width": columns, "height": rows, "token": rows * columns, None: 1}[keeps]
    shades = matplotlib.colormaps["BuPu"](np.linspace(0.2, 1, scales))

    def place(h: float, w: float, c: float) -> tuple[float, float]:
        return w + 0.62 * c, -h + 0.5 * c

    def cell(h: int, w: int, c: int, corners: list[tuple[int, int, int]]) -> None:
        # Neighbouring tokens get shades that are far apart.
        token = 7 * (h * columns + w) % scales
        scale = {"channel": c, "width": w, "height": h, "token": token, None: 0}[keeps]
        outline = [place(h + down, w + right, c + back) for down, right, back in corners]
        if keeps is None:
            drawn = Polygon(outline, linewidth=1, facecolor="white", edgecolor="#9A8FBF", hatch="...")
        else:
            drawn = Polygon(outline, linewidth=1, facecolor=shades[scale], edgecolor="white")
        ax.add_patch(drawn)

    front = [(0, 0, 0), (0, 1, 0), (1, 1, 0), (1, 0, 0)]
    top = [(0, 0, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1)]
    side = [(0, 1, 0), (0, 1, 1), (1, 1, 1), (1, 1, 0)]
    for w in range(columns):
        for h in range(rows):
            cell(h, w, 0, front)
            if keeps is None:
                mark = {"boxstyle": "circle,pad=0.12", "facecolor": "white", "edgecolor": "none"}
                x, y = place(h + 0.5, w + 0.5, 0)
                ax.text(x, y, "?", ha="center", va="center", fontsize=13, color=_SCALES, bbox=mark)
        for c in range(channels):
            cell(0, w, c, top)
    for c in range(channels):
        for h in range(rows):
            cell(h, columns - 1, c, side)

    ends = {
        "channel": ((rows + 0.1, columns + 0.55, channels), (rows + 0.1, columns + 0.55, 0)),
        "width": ((rows + 0.5, columns, 0), (rows + 0.5, 0, 0)),
    }[writes]
    arrow = {"arrowstyle": "-|>", "color": CURRENT, "linewidth": 3, "mutation_scale": 20}
    ax.annotate("", place(*ends[0]), place(*ends[1]), arrowprops=arrow)
    written = {"width": "position in the row"}.get(writes, writes)
    kept = {"width": "position in the row", None: "token and input"}.get(keeps, keeps)
    ax.text(3.6, -5.5, f"map writes: {written}", color=CURRENT, ha="center", fontsize=12)
    ax.text(3.6, -6.3, f"a scale per {kept}", color=_SCALES, ha="center", fontsize=12)
    ax.set(xlim=(-0.9, 8.2), ylim=(-6.8, 2.9), aspect="equal", title=title)
    ax.axis("off")


def plot_stages(
    names: Sequence[str],
    grids: Sequence[tuple[int, int]],
    widths: Sequence[int],
    columns: Mapping[str, Sequence[tuple[float, str]]],
) -> Figure:
    """The stages of a network as boxes, drawn to scale, with bars next to them.

    The front of a box is as tall as the grid and as long as the stage is wide, each on its own scale.

    Args:
        names: labels next to each stage.
        grids: tokens `(H, W)` of each stage.
        widths: channels of each stage.
        columns: heading -> for each stage the length of its bar and the text at its end.
    """
    figure = Figure(figsize=(8.5, 1.1 * len(names) + 0.7))
    ax, *bars = figure.subplots(1, 1 + len(columns), width_ratios=(3.2,) + (1,) * len(columns))
    tallest, longest = max(height for height, _ in grids), max(widths)
    for row, ((height, width), channels) in enumerate(zip(grids, widths, strict=True)):
        up, into, right = 0.5 * height / tallest, 0.25 * width / tallest, channels / longest
        slant, bottom = 0.35 * into, row + (up + into) / 2
        top, back = bottom - up, bottom - up - into
        faces = {
            "#CFE3F1": [(0, bottom), (right, bottom), (right, top), (0, top)],
            "#E8F2F9": [(0, top), (right, top), (right + slant, back), (slant, back)],
            "#A9CCE4": [(right, bottom), (right + slant, bottom - into), (right + slant, back), (right, top)],
        }
        for color, corners in faces.items():
            ax.add_patch(Polygon(corners, facecolor=color, edgecolor=MEMBRANE, linewidth=1))
        ax.text(right + slant + 0.03, row, f"{height} × {width} × {channels}", va="center", fontsize=11)
    ax.set(xlim=(-0.02, 1.4), ylim=(len(names) - 0.45, -0.5), yticks=range(len(names)), xticks=[])
    ax.set_yticklabels(names)
    ax.set_title("grid (rows × columns) × channels", loc="left")
    for panel, color, (heading, entries) in zip(bars, PALETTE[3:], columns.items(), strict=False):
        values = [value for value, _ in entries]
        panel.barh(range(len(entries)), values, height=0.4, color=color)
        for row, (value, text) in enumerate(entries):
            panel.text(value + 0.03 * max(values), row, text, va="center", fontsize=10)
        panel.set(xlim=(0, 1.75 * max(values)), ylim=ax.get_ylim(), xticks=[], yticks=[], title=heading)
    for panel in (ax, *bars):
        panel.spines[["left", "bottom"]].set_visible(False)
        panel.tick_params(length=0)
    return figure


def plot_run(
    image: ArrayLike,
    spikes: Sequence[ArrayLike],
    evidence: Mapping[str, float],
    operations: Mapping[str, float],
) -> Figure:
    """One image on its way through a network: the spikes that leave each stage, the answer, what it took.

    Args:
        image: grey values `[h, w]`.
        spikes: for each stage those that leave it, 0 or 1, `[T, H, W, C]`.
        evidence: class -> its logit.
        operations: what is counted -> how many; first what the network needs, then what it is compared with.
    """
    figure = Figure(figsize=(10, 6.2))
    figure.set_layout_engine("none")  # squares stay squares: places are given
    green = LinearSegmentedColormap.from_list("image", ["#FFFFFF", CURRENT, "#00241B"])
    cells = ListedColormap(["#FFFFFF", "#E6E6E6", SPIKE])

    panel = figure.add_axes((0.01, 0.43, 0.15, 0.26))
    panel.imshow(np.asarray(image), cmap=green)
    panel.set(xticks=[], yticks=[], title="image")
    panel.spines[:].set_visible(False)

    steps = len(np.asarray(spikes[0]))
    places = {"left": 0.21, "right": 0.74, "bottom": 0.2, "top": 0.9, "wspace": 0.08, "hspace": 0.08}
    grid = figure.add_gridspec(steps, len(spikes), **places)
    for stage, leaving in enumerate(spikes):
        for step, now in enumerate(np.asarray(leaving)):
            panel = figure.add_subplot(grid[step, stage])
            panel.imshow(_maps_side_by_side(now), cmap=cells, vmin=-1, vmax=1)
            panel.set(xticks=[], yticks=[], anchor="N")
            panel.spines[:].set_visible(False)
            if step == 0:
                height, width, channels = now.shape
                panel.set_title(f"stage {stage}\n{channels} maps of {height} × {width}", fontsize=9)
            if stage == 0:
                panel.set_ylabel(f"step {step + 1}", fontsize=11)

    panel = figure.add_axes((0.845, 0.22, 0.145, 0.68))
    colors = [MEMBRANE if value == max(evidence.values()) else "#B5B5B5" for value in evidence.values()]
    panel.barh(list(evidence), list(evidence.values()), height=0.6, color=colors)
    panel.axvline(0, color="black", linewidth=0.8)
    panel.set(xticks=[0], title="evidence")

    counts = figure.add_axes((0.3, 0.01, 0.69, 0.13))
    counts.barh(list(operations), list(operations.values()), height=0.6, color=(SPIKE, REFERENCE))
    for row, count in enumerate(operations.values()):
        counts.text(count, row, f" {count:,.0f}", va="center", fontsize=11)
    counts.set(xlim=(0, 1.2 * max(operations.values())), xticks=[])
    for bars in (panel, counts):
        bars.invert_yaxis()
        bars.tick_params(length=0)
        bars.spines[["left", "bottom"]].set_visible(False)
    return figure


def _maps_side_by_side(spikes: np.ndarray) -> np.ndarray:
    """Spikes `[H, W, C]` as one image: a map for each channel, in three rows for four columns, -1 between."""
    height, width, channels = spikes.shape
    across = math.ceil(math.sqrt(channels * 4 / 3))
    down = math.ceil(channels / across)
    maps = np.full((down * across, height + 1, width + 1), -1.0)
    maps[:channels, 1:, 1:] = spikes.transpose(2, 0, 1)
    rows = maps.reshape(down, across, height + 1, width + 1).swapaxes(1, 2)
    return rows.reshape(down * (height + 1), across * (width + 1))


def plot_learning_curves(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Loss, accuracy and firing rate over the epochs of a training.

    Args:
        history: one mapping for each epoch, as in a run's `epochs.csv`; a rate of None is left out.
    """
    figure = Figure(figsize=(10, 3), layout="constrained")
    epochs = [row["epoch"] for row in history]
    for panel, measure in zip(figure.subplots(1, 3), ("loss", "accuracy", "firing_rate"), strict=True):
        parts = {"train": REFERENCE, "validation": MEMBRANE} if measure != "firing_rate" else {"": SPIKE}
        for part, color in parts.items():
            values = [row[f"{part}_{measure}".lstrip("_")] for row in history]
            values = [np.nan if value is None else value for value in values]
            panel.plot(epochs, values, color=color, marker="o", markersize=3, label=part or None)
        panel.set(xlabel="epoch", ylabel=measure.replace("_", " "))
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        if measure != "firing_rate":
            panel.legend(fontsize="small")
    return figure


def plot_comparison(
    values: Mapping[str, Sequence[float]],
    xlabel: str,
    intervals: Mapping[str, tuple[float, float]] | None = None,
    reference: float | None = None,
    colors: Mapping[str, str] | None = None,
) -> Figure:
    """Variants as rows: a dot per seed, a line at the mean, and an interval if given.

    Args:
        values: variant -> one value for each seed.
        xlabel: what the values are.
        intervals: variant -> lower and upper end; an infinite one is left out.
        reference: position of a dashed line, such as the mean of the base.
        colors: variant -> colour of all that its row shows; others have orange dots and a blue interval.
    """
    height = 0.55 if len(values) <= 8 else 0.3
    figure = Figure(figsize=(7, height * len(values) + 1.1), layout="constrained")
    ax = figure.subplots()
    for row, (variant, each) in enumerate(values.items()):
        low, high = (intervals or {}).get(variant, (np.nan, np.nan))
        color = (colors or {}).get(variant)
        bar, dot = color or MEMBRANE, color or SPIKE
        if np.isfinite([low, high]).all():
            ax.plot([low, high], [row, row], color=bar, linewidth=6, alpha=0.25, solid_capstyle="butt")
        ax.plot([np.mean(each)] * 2, [row - 0.3, row + 0.3], color=bar)
        ax.plot(each, [row] * len(each), "o", color=dot, markersize=5, alpha=0.85)
    if reference is not None:
        ax.axvline(reference, color=REFERENCE, linestyle="--", linewidth=1, zorder=0)
    ax.set(xlabel=xlabel, ylim=(len(values) - 0.5, -0.5))
    ax.set_yticks(range(len(values)), list(values))
    return figure


def _looks(contestants: Iterable[str]) -> dict[str, dict[str, str]]:
    """One look for each contestant; a network or layer without spikes is the grey reference."""
    looks: dict[str, dict[str, str]] = {}
    for name in contestants:
        if name.lower().startswith("relu"):
            looks[name] = {"color": REFERENCE, "linestyle": "--", "marker": "."}
        else:
            i = sum(look["color"] != REFERENCE for look in looks.values())
            looks[name] = {"color": CONTESTANTS[i % len(CONTESTANTS)], "marker": "osD^vP"[i % 6]}
    return looks


def plot_sweeps(sweeps: Sequence[Mapping[str, Any]]) -> Figure:
    """Time of each contestant over the variable of each sweep, as `snnmlp bench --json` prints them.

    Args:
        sweeps: of each the `task`, the `variable`, its `values`, and `ms`: contestant -> milliseconds.
    """
    figure = Figure(figsize=(3.4 * max(2, (len(sweeps) + 1) // 2), 3 * 2), layout="constrained")
    panels = figure.subplots(2, max(2, (len(sweeps) + 1) // 2), squeeze=False).flatten()
    looks = _looks(dict.fromkeys(name for sweep in sweeps for name in sweep["ms"]))
    named = {}
    for panel, sweep in zip(panels, sweeps, strict=False):
        for name, milliseconds in sweep["ms"].items():
            (named[name],) = panel.plot(sweep["values"], milliseconds, label=name, **looks[name])
        panel.set(ylabel="time (ms)", yscale="log")
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter("{x:g}")
        panel.yaxis.set_minor_locator(NullLocator())
        panel.set_xlabel(sweep["variable"], fontsize="small")
        panel.set_title(sweep["task"], fontsize="medium")
        if min(sweep["values"]) > 0:  # they are chosen by factors: on a linear axis the small ones collide
            panel.set_xscale("log")
        panel.set_xticks(sweep["values"], [f"{value:g}" for value in sweep["values"]])
        panel.xaxis.set_minor_locator(NullLocator())
    figure.legend(handles=list(named.values()), loc="outside lower center", ncols=4, fontsize="small")
    for panel in panels[len(sweeps) :]:
        panel.set_axis_off()
    return figure
