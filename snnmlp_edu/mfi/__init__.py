"""Multiplication-free inference: fold the batch norms away, prove it, run on events, export.

Names are imported from here: `from snnmlp_edu.mfi import fold_batch_norm`.
"""

from __future__ import annotations

from .fold import NotFoldableError, fold_batch_norm
from .rules import NotFolded

__all__ = ["NotFoldableError", "NotFolded", "fold_batch_norm"]
