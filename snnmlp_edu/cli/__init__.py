"""The command line `snnmlp`: parse and call, nothing else."""

from __future__ import annotations

from .app import app, main

__all__ = ["app", "main"]
