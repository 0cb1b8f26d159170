"""The audit: every operation of a run, watched and judged."""
