"""Receptive fields: how they are measured, how well Gabor functions fit them, and the controls.

Measure with `spike_triggered_average` or `input_gradients`, fit with `fit_gabors`, and compare with an
`untrained` network, with `shuffled` weights and with `phase_randomised` fields before anything is said.
"""

from .averages import spike_triggered_average
from .controls import axial_lines, phase_randomised, shuffle, shuffled, untrained
from .fields import Fields, centre, choose_units, neuron_layer
from .gabors import GaborFits, fit_gabor_lines, fit_gabors, gabor
from .gradients import input_gradients
from .judging import (
    GOOD,
    Conclusion,
    Difference,
    Proportion,
    conclude,
    difference,
    fitted_better,
    judge,
    proportion,
    well_fitted,
)
from .probes import sparse_noise, white_noise

__all__ = [
    "GOOD",
    "Conclusion",
    "Difference",
    "Fields",
    "GaborFits",
    "Proportion",
    "axial_lines",
    "centre",
    "choose_units",
    "conclude",
    "difference",
    "fit_gabor_lines",
    "fit_gabors",
    "fitted_better",
    "gabor",
    "input_gradients",
    "judge",
    "neuron_layer",
    "phase_randomised",
    "proportion",
    "shuffle",
    "shuffled",
    "sparse_noise",
    "spike_triggered_average",
    "untrained",
    "well_fitted",
    "white_noise",
]
