"""Multiplication-free inference: fold the batch norms away, prove it, run on events, export.

Names are imported from here: `from snnmlp_edu.mfi import fold_batch_norm`.
"""

from __future__ import annotations

from .calibration import calibrate
from .fold import NotFoldableError, fold_batch_norm
from .rules import NotFolded

__all__ = ["NotFoldableError", "NotFolded", "calibrate", "fold_batch_norm"]
