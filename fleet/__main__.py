"""``python -m fleet``: the same as ``edge-fleet``."""

import sys

from fleet.cli import main

sys.exit(main())
