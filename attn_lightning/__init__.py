"""Training methods for robust and interpretable attention on PyTorch Lightning, with the measurements beside them."""

__version__ = "0.1.0"
