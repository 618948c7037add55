"""The model: what it is at test time."""
