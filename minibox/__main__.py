"""`python -m minibox`."""

from __future__ import annotations

import sys

from minibox.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
