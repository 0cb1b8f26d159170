"""Folding: batch norms, gains and averages put into weights, biases and thresholds."""
