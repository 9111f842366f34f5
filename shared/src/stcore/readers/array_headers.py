"""NumPy's own format: type, shape and size of an array from its header, before its content is read. Never a pickle."""

from __future__ import annotations

import tokenize
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stcore.errors import UserError
from stcore.readers.limits import one_line, short

MAX_MEMBERS = 1000
"""Arrays in an .npz file at most."""
_HEADER_ERRORS = (
    ValueError, TypeError, KeyError, SyntaxError, tokenize.TokenError, OverflowError, RecursionError, MemoryError,
)  # fmt: skip


def read_header(file: Any, what: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, order and type of the array that begins here.

    Raises:
        UserError: no header of an array begins here.
    """
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        with warnings.catch_warnings(action="ignore"):  # numpy warns of headers that Python 2 wrote
            shape, fortran, dtype = readers[np.lib.format.read_magic(file)](file)
    except _HEADER_ERRORS as error:
        raise UserError(f"{what}: broken header ({one_line(error)}); expected a NumPy array") from error
    if any(type(size) is not int or size < 0 for size in shape):
        raise UserError(f"{what}: shape {short(shape)}; expected sizes of 0 or more")
    return shape, fortran, dtype


def refuse_objects(dtype: np.dtype[Any], what: str) -> None:
    """Refuse an array that holds anything but plain numbers, words or moments.

    Raises:
        UserError: it holds Python objects.
    """
    if dtype.hasobject:
        raise UserError(
            f"{what}: array of Python objects; expected numbers; objects would need a pickle, and none is loaded"
        )


def bytes_of(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Return the bytes of an array, exactly."""
    size = int(dtype.itemsize)
    for length in shape:
        size *= int(length)  # Python integers: no overflow
    return size


def read_array(file: Any, what: str) -> NDArray[Any]:
    """Read the array that begins here; its size was checked before.

    Raises:
        UserError: its header is broken, its content is shorter than that says, or of Python objects.
    """
    shape, fortran, dtype = read_header(file, what)
    refuse_objects(dtype, what)
    size = bytes_of(shape, dtype)
    data = file.read(size)
    if len(data) != size:
        raise UserError(f"{what}: {len(data):,} bytes for shape {shape} of {dtype}; expected {size:,}; the file is cut")
    return np.frombuffer(data, dtype=dtype).reshape(shape, order="F" if fortran else "C")
