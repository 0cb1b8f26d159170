"""The ledger: plans of runs, a record of each run, and what they say about the paper's claims.

Reading needs the core alone. Running a plan trains, and needs the extra `[train]`.
"""

from __future__ import annotations

from .claims import VERDICTS, Claim, Rival, claims, rivals, verdict_counts
from .comparisons import Comparison, Family, Interval, Summary
from .plans import Plan, list_plans, load_plan
from .reading import Progress, progress, read_records
from .record import Record
from .statistics import compare, compare_pairs, compare_with, summarise

__all__ = [
    "VERDICTS",
    "Claim",
    "Comparison",
    "Family",
    "Interval",
    "Plan",
    "Progress",
    "Record",
    "Rival",
    "Summary",
    "claims",
    "compare",
    "compare_pairs",
    "compare_with",
    "list_plans",
    "load_plan",
    "progress",
    "read_records",
    "rivals",
    "summarise",
    "verdict_counts",
]
