"""``python -m together_batches`` is the command ``together-batches``."""

import sys

from together_batches.cli import main

if __name__ == "__main__":
    sys.exit(main())
