"""32-bit floats as the doubles whose JSON text is shortest: 0.1 is written 0.1.

An encoder of JSON knows doubles only, and the double nearest to a 32-bit 0.1 is written
0.10000000149011612. The one nearest to the decimal 0.1 is written 0.1, and reads back as the same
32-bit number.

Source:
    TensorFlow Serving writes 32-bit floats so; Triton widens them.
"""

from typing import Final

import numpy as np

from edge_runtime.tensors import Array

_DIGITS: Final = range(6, 10)  # fewer are enough where the last ones are 0; 9 are always enough
_WHOLE: Final = 1 << 24  # whole numbers below this have no shorter text
_EXACT: Final = 22  # powers of ten up to this one are doubles without an error
_POWERS: Final = np.array([float(f"1e{exponent}") for exponent in range(_EXACT + 1)])


def shortest(array: Array) -> Array:
    """Widen 32-bit floats to the doubles whose text is shortest.

    Args:
        array: FP32, of any shape; what is not finite stays as it is.

    Returns:
        FP64 of that shape; each element becomes the same 32-bit float again.
    """
    given = array.reshape(-1)
    wide = given.astype(np.float64)
    is_plain = (given == np.rint(given)) & (np.abs(given) < _WHOLE)
    left = np.flatnonzero(np.isfinite(given) & ~is_plain)
    exponents = np.floor(np.log10(np.abs(wide[left]))).astype(np.intp)
    for digits in _DIGITS:
        places = digits - 1 - exponents
        is_exact = (places >= 0) & (places <= _EXACT)
        scale = _POWERS[np.where(is_exact, places, 0)]
        tried = np.rint(wide[left] * scale) / scale
        fits = is_exact & (tried.astype(np.float32) == given[left])
        wide[left[fits]] = tried[fits]
        left, exponents = left[~fits], exponents[~fits]
        if not left.size:
            break
    for place in left:  # tiny and huge ones
        wide[place] = float(str(given[place]))
    return wide.reshape(array.shape)
