"""A process that refreshes once, for tests that kill it: ``STATE URL ROOT``."""

import sys
import time
from pathlib import Path

from tests.trusting import Device, Hands


def main() -> int:
    """Refresh; say which version of the plans is believed then."""
    state, url, root = sys.argv[1:]
    device = Device(Path(state), url, Path(root), Hands(time.time()))
    try:
        return device.repository.refresh().plans_version
    finally:
        device.close()


if __name__ == "__main__":
    sys.exit(main())
