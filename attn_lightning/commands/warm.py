"""What the server of the local engine imports, so that every job begins with it: `fit` and its parser, built."""

from attn_lightning.commands.validation import shared_validator

shared_validator()
