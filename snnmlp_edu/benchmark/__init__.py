"""Neurons and networks timed beside their ReLU twins and peers."""
