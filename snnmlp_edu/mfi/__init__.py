"""Multiplication-free inference: fold the batch norms away, prove it, run on events, export.

Names are imported from here: `from snnmlp_edu.mfi import fold_batch_norm`.
"""

from __future__ import annotations

from .audit import audit
from .calibration import calibrate
from .crossover import Timing, crossover
from .execute import Choice, event_driven
from .fold import NotFoldableError, fold_batch_norm
from .loading import Loaded, load_or_calibrate
from .nir import export_nir
from .report import AuditedOperation, AuditReport
from .rules import NotFolded

__all__ = [
    "AuditReport",
    "AuditedOperation",
    "Choice",
    "Loaded",
    "NotFoldableError",
    "NotFolded",
    "Timing",
    "audit",
    "calibrate",
    "crossover",
    "event_driven",
    "export_nir",
    "fold_batch_norm",
    "load_or_calibrate",
]
