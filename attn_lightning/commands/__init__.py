"""The commands of `python -m attn_lightning`, a file each: options, checks, and calls of the rooms below."""
