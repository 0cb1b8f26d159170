"""A folded network as a program that only adds: exported, compiled, run, and read by its instructions.

Names are imported from here: `from snnmlp_edu.engine import compile_network`.
"""

from __future__ import annotations

from .program import Program, compile_network

__all__ = ["Program", "compile_network"]
