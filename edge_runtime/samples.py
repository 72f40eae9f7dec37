"""Sample inputs of a model: golden ones where its bundle has them, else made to fit its signature.

They warm a model up before it counts as ready, and try out whether its rows may be joined.
"""

import math
from collections.abc import Mapping
from typing import Final, NamedTuple
from zlib import crc32

import numpy as np

from edge_runtime.bundle import Bundle
from edge_runtime.datatypes import BF16, BOOL, BYTES, Datatype
from edge_runtime.errors import InvalidTensorError
from edge_runtime.goldens import ENDING, checked_feeds, read_file, unpack
from edge_runtime.tensors import VARIABLE, Array, Signature, Tensor, TensorSpec

ELEMENTS_MAX: Final = 2**24
"""Elements of one synthetic input; a larger one would take seconds to make and to run."""
GOLDEN_BYTES_MAX: Final = 2**26
"""Bytes of the golden files read, in memory; what is beyond is left to a full self-test."""

_BLOCK: Final = 2**16
_HALF_BITS: Final = 32
_HALF: Final = 2**_HALF_BITS
_TEXTS: Final = np.array(["sample", "text"], object)


class Sample(NamedTuple):
    """Inputs for one run.

    Attributes:
        feeds: Arrays by input name, of the signature's datatypes and shapes.
        golden: Path in the bundle of the golden file they come from; empty: synthetic.
    """

    feeds: dict[str, Array]
    golden: str = ""


def samples(bundle: Bundle, signature: Signature, rows: int = 1) -> tuple[Sample, ...]:
    """Give inputs that a model should be able to run on.

    A golden ``.npz`` file holds one array per input, named like it (and, for other readers, one
    per output). ``.pb`` goldens are not read here.

    Args:
        bundle: Whose goldens are taken, as many as fit in ``GOLDEN_BYTES_MAX``.
        signature: What the inputs fit.
        rows: Size of the first axis where it varies; goldens are cut, or repeated.

    Returns:
        One sample per golden, else one synthetic sample; none where that would be too large.

    Raises:
        DigestMismatchError: A golden is not the file the manifest names.
        ManifestError: A golden does not hold what the model takes.
        ModelLoadError: A golden cannot be read.
    """
    found: list[Sample] = []
    left = GOLDEN_BYTES_MAX
    for file in bundle.manifest.acceptance.goldens:
        if not file.path.endswith(ENDING) or file.size_bytes > left:
            continue
        shown = f"{bundle.manifest.name} version {bundle.manifest.version}: {file.path}"
        arrays = unpack(read_file(bundle.directory, file, shown), shown, left)
        if arrays is None:
            continue
        left -= sum(array.nbytes for array in arrays.values())
        feeds = checked_feeds(arrays, signature, shown)
        found.append(Sample(_with_rows(feeds, signature, rows), file.path))
    if found:
        return tuple(found)
    try:
        return (Sample(synthetic(signature, rows)),)
    except InvalidTensorError:
        return ()


def synthetic(
    signature: Signature, rows: int = 1, seed: int = 0, amplitude: float = 1.0
) -> dict[str, Array]:
    """Make inputs that fit a signature; the same ones for the same arguments.

    Floats are standard normal. Integers are 0 or 1, because they may be indices. Axes other than
    the first have size 1 where they vary. The first rows do not depend on how many follow.

    Args:
        signature: What the inputs fit.
        rows: Size of the first axis where it varies.
        seed: Another seed gives other values; 0 to 2**32 - 1.
        amplitude: Factor of the floats (of FP16, at most 10,000); other datatypes do not change.

    Returns:
        Arrays by input name, as ``Signature.check`` gives them.

    Raises:
        InvalidTensorError: An input has more than ``ELEMENTS_MAX`` elements.
    """
    sizes = _symbol_sizes(signature, rows)
    feeds = {}
    for spec in signature.inputs:
        shape = _shape(spec, sizes, rows)
        count = math.prod(shape)
        if count > ELEMENTS_MAX:
            raise InvalidTensorError(
                f"a sample of input {spec.name!r} would have shape {list(shape)}, more than "
                f"{ELEMENTS_MAX} elements"
            )
        place = crc32(spec.name.encode(), seed)  # inputs of one shape must not be equal
        feeds[spec.name] = _elements(spec.datatype, count, place, amplitude).reshape(shape)
    return feeds


# -- goldens -----------------------------------------------------------------------------------


def _with_rows(feeds: dict[str, Array], signature: Signature, rows: int) -> dict[str, Array]:
    """Cut or repeat the rows of a golden, if it stays one that the model takes."""
    varying = [spec.name for spec in signature.inputs if spec.shape[:1] == (VARIABLE,)]
    sizes = {feeds[name].shape[0] for name in varying}
    if len(sizes) != 1 or sizes <= {0, rows}:
        return feeds
    chosen = np.arange(rows) % sizes.pop()
    changed = feeds | {name: feeds[name][chosen] for name in varying}
    tensors = {spec.name: Tensor(spec.datatype, changed[spec.name]) for spec in signature.inputs}
    try:
        return signature.check(tensors)
    except InvalidTensorError:  # the rows' axis is also another input's second one
        return feeds


# -- synthetic inputs ----------------------------------------------------------------------------


def _symbol_sizes(signature: Signature, rows: int) -> dict[str, int]:
    """Choose a size per named axis: a stated one, else the rows where it comes first."""
    sizes: dict[str, int] = {}
    for spec in signature.inputs:
        named = zip(spec.symbols, spec.shape, strict=False)
        for axis, (symbol, size) in enumerate(named):
            if symbol is not None and size != VARIABLE:
                sizes[symbol] = size
            elif symbol is not None and not axis:
                sizes.setdefault(symbol, rows)
    return sizes


def _shape(spec: TensorSpec, sizes: Mapping[str, int], rows: int) -> tuple[int, ...]:
    symbols = spec.symbols or (None,) * len(spec.shape)
    free = [rows, *[1] * len(spec.shape)]
    return tuple(
        sizes.get(symbol or "", default) if size == VARIABLE else size
        for size, symbol, default in zip(spec.shape, symbols, free, strict=False)
    )


def _elements(datatype: Datatype, count: int, seed: int, amplitude: float) -> Array:
    """Make random elements, block by block: the words behind them are larger than they are."""
    array: Array = np.empty(count, datatype.numpy)
    for first in range(0, count, _BLOCK):
        block = array[first : first + _BLOCK]
        block[:] = _values(_random_words(first, len(block), seed), datatype, amplitude)
    return array


def _random_words(first: int, count: int, seed: int) -> Array:
    """Make random 64-bit words, each of its place and the seed alone.

    numpy's own generators would cost every daemon 14 ms and 6 MB of memory to import.

    Source:
        SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
    """
    place = np.arange(first + 1, first + 1 + count, dtype="<u8")
    words = place * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed << _HALF_BITS)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Array = words ^ (words >> np.uint64(31))
    return mixed


def _values(words: Array, datatype: Datatype, amplitude: float) -> Array:
    """Turn random words into elements."""
    if datatype is BYTES:
        texts: Array = _TEXTS[(words & np.uint64(1)).astype(np.intp)]
        return texts
    if datatype is BOOL:
        return (words & np.uint64(1)).astype(datatype.numpy)
    if datatype.json == "int":
        largest = min(max(1, int(amplitude)), int(np.iinfo(datatype.numpy).max))
        return (words % np.uint64(largest + 1)).astype(datatype.numpy)
    # Box and Muller: two uniform numbers, the first one not 0, make a normal one.
    first = ((words >> np.uint64(_HALF_BITS)) + np.uint64(1)) / _HALF
    second = (words & np.uint64(_HALF - 1)) / _HALF
    normal: Array = amplitude * np.sqrt(-2 * np.log(first)) * np.cos(2 * math.pi * second)
    if datatype is BF16:
        normal = normal.astype("<f4").view("<u4") >> np.uint32(16)
    numbers: Array = normal.astype(datatype.numpy)
    return numbers
