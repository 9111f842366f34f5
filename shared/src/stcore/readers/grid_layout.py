"""The order of the axes of an array of frames: as given, or inferred where only one order is possible."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stcore.errors import UserError
from stcore.frame_stores import ClipFrames

_FEW = 4
"""An axis of at most this size, beside a longer one, is taken for channels."""


def infer_layout(where: str, shape: tuple[int, ...]) -> str:
    """Return the layout of an array of `shape`, in letters of N, T, C, H, W.

    Raises:
        UserError: more than one order is possible, or none.

    >>> infer_layout("a.npy", (500, 2, 32, 32)), infer_layout("a.npy", (20, 10000, 64, 64, 1))
    ('TCHW', 'NTHWC')
    """
    if len(shape) == 3:
        if shape[0] == shape[1] != shape[2]:
            raise _asking(where, shape, "the first two axes are equal: time may come last", "THW or HWT")
        return "THW"
    if len(shape) not in (4, 5):
        raise UserError(
            f"{where}: array of shape {shape}; expected three to five axes: time, height, width, perhaps clip, channel"
        )
    clip = "" if len(shape) == 4 else "N"
    first, last = shape[-3] <= _FEW < shape[-1], shape[-1] <= _FEW < shape[-3]
    if first == last:
        choices = "TCHW, NTHW or TNHW" if len(shape) == 4 else "NTCHW, TNCHW or NTHWC"
        raise _asking(where, shape, "which axis is which cannot be told", choices)
    return clip + ("TCHW" if first else "THWC")


def _asking(where: str, shape: tuple[int, ...], found: str, choices: str) -> UserError:
    return UserError(f"{where}: array of shape {shape}, {found}; expected a layout; pass --data.layout {choices}")


def with_layout(where: str, array: NDArray[Any], layout: str) -> Any:
    """Return `array` as frames (time, channel, height, width) and the number of clips, without copying it.

    Returns:
        The array or a store of frames, and the clips it holds.

    Raises:
        UserError: the layout has another number of axes, an axis is empty, or the type is no real number.
    """
    if array.dtype.kind not in "iufb" or array.dtype.names:
        raise UserError(f"{where}: array of {array.dtype}; expected real numbers")
    letters = layout.upper() or infer_layout(where, array.shape)
    if len(letters) != array.ndim:
        raise UserError(
            f"{where}: array of shape {array.shape} has {array.ndim} axes; expected {len(letters)} as --data.layout "
            f"{letters} says"
        )
    if 0 in array.shape:
        raise UserError(f"{where}: array of shape {array.shape}, an axis is empty; expected at least one of each")
    absent = [letter for letter in "NTCHW" if letter not in letters]
    wide = array[(...,) + (np.newaxis,) * len(absent)]
    order = [(letters + "".join(absent)).index(letter) for letter in "NTCHW"]
    clips = np.transpose(wide, order)
    return (clips[0], 1) if clips.shape[0] == 1 else (ClipFrames(clips), clips.shape[0])
