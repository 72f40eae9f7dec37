"""Golden files of a bundle: inputs, the answers they must get, and how far off others are.

A golden ``.npz`` file holds an array per input and per output, by their names; ``labels`` is there
where the samples have labels and no tensor has that name. Text is stored as numpy's ``U`` and
given as ``object`` arrays of ``str``; BF16 is stored as its raw bits in ``<u2``. Who publishes a
bundle, who tries it out and who warms it up read it here.
"""

from edge_runtime.goldens.answers import Distance, OutputCheck, check_outputs, distance
from edge_runtime.goldens.files import (
    ENDING,
    LABELS,
    UNPACKED_BYTES_MAX,
    Golden,
    checked_feeds,
    decode,
    encode,
    read_file,
    read_goldens,
    unpack,
)

__all__ = [
    "ENDING",
    "LABELS",
    "UNPACKED_BYTES_MAX",
    "Distance",
    "Golden",
    "OutputCheck",
    "check_outputs",
    "checked_feeds",
    "decode",
    "distance",
    "encode",
    "read_file",
    "read_goldens",
    "unpack",
]
