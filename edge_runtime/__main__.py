"""``python -m edge_runtime``: the same as ``edge-runtime``."""

import sys

from edge_runtime.cli import main

sys.exit(main())
