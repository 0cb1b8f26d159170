"""Figures of receptive fields show the numbers they were given."""

from __future__ import annotations

import numpy as np
import pytest

from snnmlp_edu.receptive_fields.plots import plot_fields, plot_fractions, plot_shape_plane, plot_unexplained


def test_fields_have_a_scale_of_their_own_with_white_at_zero() -> None:
    maps = np.zeros((3, 4, 5))
    maps[0, 1, 2], maps[1, 0, 0] = -2, 0.5
    figure = plot_fields({"one": maps, "other": maps[:1]}, columns=2)
    assert [block.get_suptitle() for block in figure.subfigs] == ["one", "other"]
    shown = [panel.images[0] for panel in figure.subfigs[0].axes if panel.images]
    assert [image.get_clim() for image in shown] == [(-2, 2), (-0.5, 0.5), (-1, 1)]
    assert np.array_equal(shown[0].get_array(), maps[0])
    assert sum(bool(panel.images) for panel in figure.subfigs[1].axes) == 1


def test_fractions_stand_in_their_rows_with_their_intervals() -> None:
    groups = {"trained": [(0.5, 0.4, 0.7), (0.1, 0.0, 0.2)], "untrained": [(0.3, 0.2, 0.4), (0.2, 0.1, 0.9)]}
    (ax,) = plot_fractions(["a", "b"], groups, "well fitted").axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    points, _, bars = ax.containers[0]
    assert points.get_xdata().tolist() == [0.5, 0.1]
    assert np.allclose([segment[:, 0] for segment in bars[0].get_segments()], [[0.4, 0.7], [0.0, 0.2]])
    assert [round(y) for y in ax.containers[1][0].get_ydata()] == [0, 1]
    assert ax.get_xlabel() == "well fitted"


def test_share_below_a_limit_counts_missing_fits() -> None:
    (ax,) = plot_unexplained({"x": [0.2, 0.8, np.nan, 0.4]}, threshold=0.3, xlabel="left over").axes
    curve = ax.lines[0]
    assert curve.get_xdata().tolist() == [0, 0.2, 0.4, 0.8, 1]
    assert curve.get_ydata().tolist() == [0, 0.25, 0.5, 0.75, 0.75]
    assert list(ax.lines[1].get_xdata()) == [0.3, 0.3]


@pytest.mark.parametrize("values", [[], [np.nan, np.nan]])
def test_no_fits_at_all_can_be_drawn(values: list[float]) -> None:
    (ax,) = plot_unexplained({"x": values}, threshold=0.3, xlabel="left over").axes
    assert max(ax.lines[0].get_ydata()) == 0


def test_shapes_beyond_the_plane_are_drawn_at_its_edge() -> None:
    (ax,) = plot_shape_plane({"x": ([0.1, 5.0], [0.3, 0.2]), "none": ([], [])}, limit=1.0).axes
    assert ax.collections[0].get_offsets().tolist() == [[0.1, 0.3], [1.0, 0.2]]
    assert len(ax.collections[1].get_offsets()) == 0
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, 1), (0, 1))
