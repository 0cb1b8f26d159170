"""Multiplication-free inference: fold the batch norms away, prove it, run on events, export.

Names are imported from here: `from snnmlp_edu.mfi import fold_batch_norm`.
"""

from __future__ import annotations

from .auditing.audit import audit
from .auditing.report import AuditedOperation, AuditReport
from .calibration import calibrate
from .events.execute import event_driven
from .folding.fold import NotFoldableError, fold_batch_norm
from .folding.rules import NotFolded
from .loading import Loaded, load_or_calibrate
from .nir import export_nir

__all__ = [
    "AuditReport",
    "AuditedOperation",
    "Loaded",
    "NotFoldableError",
    "NotFolded",
    "audit",
    "calibrate",
    "event_driven",
    "export_nir",
    "fold_batch_norm",
    "load_or_calibrate",
]
