"""``python -m together_batches`` is the command ``together-batches``."""

import sys

from together_batches.cli import main

sys.exit(main())
