"""Neurons and networks timed against their ReLU twins and peers."""
