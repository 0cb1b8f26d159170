from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from snnmlp_edu.plots import (
    MEMBRANE,
    REFERENCE,
    SPIKE,
    plot_comparison,
    plot_confusion,
    plot_learning_curves,
    plot_raster,
    plot_run,
    plot_scales,
    plot_stages,
    plot_sweeps,
)

DRAW = """
from snnmlp_edu.plots import plot_confusion, use_book_style
use_book_style()
plot_confusion([[9, 1], [2, 8]], ["shirt", "boot"]).savefig("confusion.png")
"""


def test_figures_need_no_display(tmp_path: Path) -> None:
    screens = ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND")
    environment = {name: value for name, value in os.environ.items() if name not in screens}
    subprocess.run([sys.executable, "-c", DRAW], cwd=tmp_path, env=environment, check=True, timeout=120)
    assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_a_raster_shows_every_spike() -> None:
    spikes = np.zeros((3, 1000))
    places = {0: [0, 999], 1: [], 2: [500]}
    for step, neurons in places.items():
        spikes[step, neurons] = 1
    ax = Figure().subplots()
    plot_raster(spikes, ax, "stage 0")
    shown = {line.get_lineoffset(): [float(x) for x in line.get_positions()] for line in ax.collections}
    assert shown == {step: [float(n) for n in neurons] for step, neurons in places.items()}
    assert ax.get_ylim() == (2.5, -0.5)  # time runs down
    assert to_hex(ax.collections[0].get_color()) == SPIKE.lower()


@pytest.mark.parametrize(
    ("keeps", "scales"), [("channel", 5), ("width", 4), ("height", 4), ("token", 16), (None, 1)]
)
def test_a_block_of_currents_has_a_colour_for_each_scale(keeps: str | None, scales: int) -> None:
    ax = Figure().subplots()
    plot_scales(ax, "channel", keeps)
    assert len({to_hex(cell.get_facecolor()) for cell in ax.patches}) == scales
    unknown = [text.get_text() for text in ax.texts].count("?")
    assert unknown == (16 if keeps is None else 0), "only scales that depend on the input are unknown"


def test_the_arrow_of_a_block_follows_the_axis_that_is_written() -> None:
    ends = {}
    for writes in ("channel", "width"):
        ax = Figure().subplots()
        plot_scales(ax, writes, "channel")
        (arrow,) = (text for text in ax.texts if getattr(text, "arrow_patch", None))
        ends[writes] = np.subtract(arrow.xy, arrow.xyann)
    assert ends["width"][0] > 0 == ends["width"][1], "to the right"
    assert (ends["channel"] > 0).all(), "into the page"


def test_a_confusion_matrix_counts_images() -> None:
    ax, bar = plot_confusion([[9, 1], [2, 8]], ["shirt", "boot"]).axes
    assert [text.get_text() for text in ax.texts] == ["9", "1", "2", "8"]
    assert (ax.get_xlabel(), ax.get_ylabel(), bar.get_ylabel()) == ("predicted class", "true class", "images")


def test_a_run_shows_every_spike_in_the_map_of_its_channel() -> None:
    spikes = np.zeros((2, 4, 4, 12))
    spikes[1, 2, 3, 5] = 1  # step 1, row 2, column 3; channel 5 is the second map of the second row
    evidence, operations = {"shirt": -5.0, "boot": 7.0}, {"additions": 30.0, "multiplications": 60.0}
    _, *steps, answer, counts = plot_run(np.zeros((8, 8)), [spikes], evidence, operations).axes
    shown = [np.argwhere(np.asarray(each.images[0].get_array()) == 1).tolist() for each in steps]
    assert shown == [[], [[1 * 5 + 1 + 2, 1 * 5 + 1 + 3]]]
    assert [label.get_text() for label in answer.get_yticklabels()] == ["shirt", "boot"]
    assert [bar.get_width() for bar in answer.patches] == [-5, 7]
    assert [text.get_text().strip() for text in counts.texts] == ["30", "60"]


def test_stages_are_drawn_to_scale() -> None:
    weights = [(1.0, "1 k"), (4.0, "4 k")]
    boxes, bars = plot_stages(["stage 0", "stage 1"], [(8, 8), (4, 4)], [3, 6], {"weights": weights}).axes
    fronts = [boxes.patches[0].get_xy(), boxes.patches[3].get_xy()]  # three faces a stage, the front first
    tall, long = ([np.ptp(front[:, axis]) for front in fronts] for axis in (1, 0))
    assert tall[0] == pytest.approx(2 * tall[1])
    assert long[1] == pytest.approx(2 * long[0])
    assert [text.get_text() for text in boxes.texts] == ["8 × 8 × 3", "4 × 4 × 6"]
    assert [bar.get_width() for bar in bars.patches] == [1.0, 4.0]


def test_learning_curves_show_every_epoch() -> None:
    measures = ("train_loss", "validation_loss", "train_accuracy", "validation_accuracy", "firing_rate")
    history = [{"epoch": e, **{m: i + 0.1 * e for i, m in enumerate(measures)}} for e in (1, 2, 3)]
    history[1]["firing_rate"] = None
    panels = plot_learning_curves(history).axes
    assert [panel.get_ylabel() for panel in panels] == ["loss", "accuracy", "firing rate"]
    drawn = [[list(line.get_ydata()) for line in panel.lines] for panel in panels]
    assert drawn[0] == [[row["train_loss"] for row in history], [row["validation_loss"] for row in history]]
    assert drawn[1][1] == [row["validation_accuracy"] for row in history]
    assert np.isnan(drawn[2][0][1])
    assert list(panels[0].lines[0].get_xdata()) == [1, 2, 3]


def test_a_comparison_shows_every_seed_the_mean_and_the_interval() -> None:
    values = {"stage": [0.7, 0.8], "none": [0.1, 0.3], "one": [0.5]}
    intervals = {"none": (0.0, 0.4), "one": (-np.inf, np.inf)}
    (ax,) = plot_comparison(values, "accuracy", intervals, reference=0.75).axes
    lines = [(list(line.get_xdata()), line.get_marker()) for line in ax.lines]
    assert [x for x, marker in lines if marker == "o"] == [[0.7, 0.8], [0.1, 0.3], [0.5]]
    bars = [pytest.approx(x) for x, marker in lines if marker != "o"]
    assert bars == [[0.75, 0.75], [0.0, 0.4], [0.2, 0.2], [0.5, 0.5], [0.75, 0.75]]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["stage", "none", "one"]
    assert ax.get_ylim() == (2.5, -0.5)  # the first on top
    assert {line.get_color() for line in ax.lines if line.get_marker() == "o"} == {SPIKE}


def test_a_row_of_a_comparison_can_have_a_colour_of_its_own() -> None:
    values, intervals = {"stage": [0.7], "none": [0.1]}, {"stage": (0.6, 0.8), "none": (0.0, 0.4)}
    (ax,) = plot_comparison(values, "accuracy", intervals, colors={"none": "#123456"}).axes
    drawn = [line.get_color() for line in ax.lines]  # of each row the interval, the mean and the dots
    assert drawn == [MEMBRANE, MEMBRANE, SPIKE, *["#123456"] * 3]


def test_no_two_ticks_of_a_sweep_collide() -> None:
    variables = {"steps": [1, 2, 4, 6, 8], "rate": [0.01, 0.05, 0.15, 0.3, 0.5], "none": [0, 1]}
    sweeps = [
        {
            "task": "task",
            "variable": variable,
            "values": values,
            "ms": {"ours": [float(v + 1) for v in values]},
        }
        for variable, values in variables.items()
    ]
    figure = plot_sweeps(sweeps)
    figure.draw_without_rendering()
    for panel, values in zip(figure.axes, variables.values(), strict=False):
        assert list(panel.lines[0].get_xdata()) == values
        boxes = [tick.get_window_extent() for tick in panel.get_xticklabels()]
        assert [tick.get_text() for tick in panel.get_xticklabels()] == [f"{value:g}" for value in values]
        for left, right in itertools.pairwise(boxes):
            assert left.x1 < right.x0
        assert not panel.xaxis.get_minorticklocs().size


def test_a_contestant_looks_alike_in_all_sweeps_and_relu_is_the_reference() -> None:
    entered = (["ours", "ReLU twin", "other"], ["ours", "eager", "other", "relu"])
    sweeps = [
        {"task": "task", "variable": "steps", "values": [1, 2], "ms": {name: [1.0, 2.0] for name in names}}
        for names in entered
    ]
    figure = plot_sweeps(sweeps)
    looks: dict[str, set[tuple[Any, ...]]] = {}
    for panel, names in zip(figure.axes, entered, strict=False):
        assert [line.get_label() for line in panel.lines] == names
        for line in panel.lines:
            look = (line.get_color(), line.get_marker(), line.get_linestyle())
            looks.setdefault(str(line.get_label()), set()).add(look)
    assert all(len(each) == 1 for each in looks.values())
    assert looks["ReLU twin"] == looks["relu"] == {(REFERENCE, ".", "--")}
    assert len(set.union(*looks.values())) == 4  # two contestants never look alike
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["ours", "ReLU twin", "other", "eager", "relu"]
