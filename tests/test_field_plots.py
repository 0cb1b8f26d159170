"""Figures of receptive fields show the numbers they were given."""

from __future__ import annotations

import numpy as np

from snnmlp_edu.receptive_fields.plots import plot_fields, plot_fits


def test_fields_have_a_scale_of_their_own_with_white_at_zero() -> None:
    maps = np.zeros((3, 4, 5))
    maps[0, 1, 2], maps[1, 0, 0] = -2, 0.5
    figure = plot_fields({"one": maps, "other": maps[:1]}, columns=2)
    assert [block.get_suptitle() for block in figure.subfigs] == ["one", "other"]
    shown = [panel.images[0] for panel in figure.subfigs[0].axes if panel.images]
    assert [image.get_clim() for image in shown] == [(-2, 2), (-0.5, 0.5), (-1, 1)]
    assert np.array_equal(shown[0].get_array(), maps[0])
    assert sum(bool(panel.images) for panel in figure.subfigs[1].axes) == 1


def test_left_over_is_the_field_minus_its_fit_on_the_scale_of_the_field() -> None:
    fields = np.zeros((2, 3, 4))
    fields[0, 1, 1], fields[1, 2, 0] = 2, -4
    figure = plot_fits(fields, fields / 2, ["a", "b"])
    shown = np.array(figure.axes, dtype=object).reshape(3, 2)
    assert [panel.get_ylabel() for panel in shown[:, 0]] == ["field", "fit", "left over"]
    assert [panel.get_title() for panel in shown[0]] == ["a", "b"]
    for column, limit in enumerate((2, 4)):
        images = [panel.images[0] for panel in shown[:, column]]
        assert [image.get_clim() for image in images] == [(-limit, limit)] * 3
        for image, part in zip(images, (1, 0.5, 0.5), strict=True):
            assert np.array_equal(image.get_array(), part * fields[column])
