"""Runs the `resrt` command as `python -m resrt`."""

import sys

from resrt.cli import main

sys.exit(main())
