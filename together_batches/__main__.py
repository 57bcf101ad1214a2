"""The command ``together-batches``, as ``python -m together_batches``."""

import sys

from together_batches.cli import main

sys.exit(main())
