"""``python -m quantize``: the same as ``edge-quantize``."""

import sys

from quantize.cli import main

sys.exit(main())
