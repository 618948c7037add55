"""Measurements: pure functions over padded tensors or arrays, and thin torchmetrics classes."""
