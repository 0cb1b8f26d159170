"""A folded network as a program that only adds: exported, compiled, run, and read by its instructions."""
