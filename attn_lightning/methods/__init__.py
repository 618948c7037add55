"""Training methods: what changes only how the model is trained."""
