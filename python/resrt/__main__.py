"""`python -m resrt` is the `resrt` command."""

import sys

from resrt.cli import main

sys.exit(main())
