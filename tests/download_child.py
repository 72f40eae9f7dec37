"""A process that downloads one file, to be killed by a failpoint on the way.

``python -m tests.download_child FOLDER URL``, with what to fetch in ``FOLDER/order.json``.
"""

import json
import sys
from pathlib import Path

from fleet.documents.chunks import read_chunks
from tests.agent_downloads import Device, SignedFile


def main() -> None:
    """Fetch it."""
    folder, url = Path(sys.argv[1]), sys.argv[2]
    said = json.loads((folder / "order.json").read_text("utf-8"))
    new, old = (folder / "new.chunks", folder / "old.chunks")
    chunks = read_chunks(new.read_bytes(), "new") if new.exists() else None
    older = [read_chunks(old.read_bytes(), "old")] if old.exists() else []
    device = Device(folder, [url])
    device.fetch(SignedFile(**said), chunks, older)
    device.close()


if __name__ == "__main__":
    main()
