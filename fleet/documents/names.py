"""What names of fleets, channels, devices and labels look like, and bounds that documents share."""

from typing import Annotated, Final

from msgspec import Meta

from edge_runtime.manifest import MAX_VERSION, MODEL_NAME

# Python's `$` also matches before a last newline; JSON Schema's does not. `(?!\n)` makes them one.
_END: Final = r"$(?!\n)"
WORD: Final = rf"^[a-z0-9][a-z0-9-]{{0,63}}{_END}"
"""Fleets, channels and rollouts: they are parts of paths and topics."""
DEVICE: Final = rf"^[a-z0-9][a-z0-9._-]{{0,63}}{_END}"
SALT: Final = rf"^[A-Za-z0-9._-]{{1,64}}{_END}"
SHA256: Final = rf"^[0-9a-f]{{64}}{_END}"
RELEASE: Final = rf"^([0-9]{{1,9}}\.[0-9]{{1,9}}(\.[0-9]{{1,9}})?)?{_END}"
LABELS_MAX: Final = 64
VALUES_MAX: Final = 1024
SECONDS_MAX: Final = 1e12

Word = Annotated[str, Meta(pattern=WORD)]
ModelName = Annotated[str, Meta(pattern=MODEL_NAME)]
Version = Annotated[int, Meta(ge=1, le=MAX_VERSION)]
Count = Annotated[int, Meta(ge=0, le=MAX_VERSION)]
Sha256 = Annotated[str, Meta(pattern=SHA256)]
Device = Annotated[str, Meta(pattern=DEVICE)]
Permyriad = Annotated[int, Meta(ge=0, le=10_000)]
Seconds = Annotated[float, Meta(ge=0, le=SECONDS_MAX)]
Label = Annotated[str, Meta(max_length=200)]
Labels = Annotated[
    dict[Label, Annotated[tuple[Label, ...], Meta(max_length=VALUES_MAX)]],
    Meta(max_length=LABELS_MAX),
]
"""Accepted values by label."""
