"""Reads the daemon's own Prometheus text: as much of the format as it writes.

prometheus_client's parser reads every exposition there is; it takes longer to import than a whole
look of ``edge-runtime top``, and ten times as long to read.
"""

import re
from collections.abc import Container, Iterator, Mapping
from typing import Final

from edge_runtime.errors import ProtocolError

Labels = Mapping[str, str]

_line: Final = re.compile(r"([A-Za-z_:][A-Za-z0-9_:]*)(?:\{(.*)\})? (\S+)")
_label: Final = re.compile(r'([A-Za-z_][A-Za-z0-9_]*)="((?:[^"\\]|\\.)*)"(?:,|$)')
_escape: Final = re.compile(r"\\(.)")
_ESCAPED: Final = {"n": "\n"}


def samples(text: str, wanted: Container[str]) -> Iterator[tuple[str, Labels, float]]:
    """Read samples: their names, labels and values.

    Args:
        text: What ``GET /metrics`` answers.
        wanted: Names of samples; others are passed over.

    Raises:
        ProtocolError: A line is no sample.
    """
    for line in text.split("\n"):
        if not line or line[0] == "#":
            continue
        found = _line.fullmatch(line)
        if found is None:
            raise ProtocolError(f"the server's metrics cannot be read: {line[:200]!r}")
        name, labels, value = found.groups()
        if name not in wanted:
            continue
        try:
            yield name, _labels(labels) if labels else {}, float(value)
        except ValueError as error:
            raise ProtocolError(f"the server's metrics cannot be read: {line[:200]!r}") from error


def _labels(text: str) -> dict[str, str]:
    labels = {}
    position = 0
    for found in _label.finditer(text):
        if found.start() != position:
            break
        position = found.end()
        name, value = found.groups()
        labels[name] = _escape.sub(_plain, value) if "\\" in value else value
    if position != len(text):
        message = "labels"
        raise ValueError(message)
    return labels


def _plain(found: re.Match[str]) -> str:
    return _ESCAPED.get(found[1], found[1])
