"""Receptive fields: how they are measured, how well Gabor functions fit them, and the controls.

Measure with `spike_triggered_average` or `input_gradients`, in two halves; `examine` fits and judges;
`verdict` compares with an `untrained` network, with `shuffled` weights and with `phase_randomised` fields.
`try_plants` shows what all this says of networks whose fields are known.
"""

from .averages import spike_triggered_average
from .controls import axial_lines, phase_randomised, shuffle, shuffled, untrained
from .fields import Fields, centre, choose_units, neuron_layer
from .gabors import GaborFits, fit_gabor_lines, fit_gabors, gabor
from .gradients import input_gradients
from .judging import GOOD, Proportion, judge, proportion, well_fitted
from .planting import PLANTED_LAYER, plant, plants, try_plants
from .probes import sparse_noise, white_noise
from .verdicts import Difference, Examined, Verdict, examine, paired_difference, verdict

__all__ = [
    "GOOD",
    "PLANTED_LAYER",
    "Difference",
    "Examined",
    "Fields",
    "GaborFits",
    "Proportion",
    "Verdict",
    "axial_lines",
    "centre",
    "choose_units",
    "examine",
    "fit_gabor_lines",
    "fit_gabors",
    "gabor",
    "input_gradients",
    "judge",
    "neuron_layer",
    "paired_difference",
    "phase_randomised",
    "plant",
    "plants",
    "proportion",
    "shuffle",
    "shuffled",
    "sparse_noise",
    "spike_triggered_average",
    "try_plants",
    "untrained",
    "verdict",
    "well_fitted",
    "white_noise",
]
