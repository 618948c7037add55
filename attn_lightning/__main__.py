"""`python -m attn_lightning COMMAND ...`; see `attn_lightning.cli`."""

import sys

from attn_lightning.cli import main

sys.exit(main(sys.argv[1:]))
