"""`python -m blemish`."""

from __future__ import annotations

import sys

from blemish.cli import main

if __name__ == "__main__":
    sys.exit(main())
