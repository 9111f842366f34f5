"""When a frame is: the three forms of stamps that published files have, and moments, as weekday and time of day.

A clock is a pair [weekday 0 (Monday) … 6, second of the day]; the model sees [weekday, half hour of the day 0 … 47].
Source of the forms: VLM4ST, `dataset.py`, where the name of a file decides about them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Int64
from numpy import ndarray
from numpy.typing import NDArray

from stcore.errors import UserError
from stcore.readers.limits import short
from vlm4st.data_options import SLOTS_PER_DAY, StampForm

DAY, WEEK = 86_400, 604_800
"""Seconds."""
HALF_HOUR = DAY // SLOTS_PER_DAY
_FIRST_WEEKDAY = 2
"""Weekday of running number 0 in the published files: a Wednesday."""
_THURSDAY = 3
"""Weekday of 1970-01-01."""


def form_by_name(name: str) -> StampForm:
    """Return the form that the original takes the stamps of a data set for, by its name alone.

    >>> [form_by_name(name) for name in ("TaxiBJ", "CrowdBJ", "Traffic_log_NJ", "BikeNYC")]
    ['text', 'index', 'index', 'pair']
    """
    if "TaxiBJ" in name:
        return "text"
    return "index" if any(part in name for part in ("Crowd", "Cellular", "Traffic_log")) else "pair"


def require_form(found: StampForm, wanted: StampForm, *, name: str, where: str) -> None:
    """Refuse stamps of another form than the one asked for.

    Raises:
        UserError: names both.
    """
    expected = form_by_name(name) if wanted == "name" else wanted
    if expected in ("auto", "none") or expected == found:
        return
    why = f"as the name {short(name)} tells" if wanted == "name" else "as data.timestamps says"
    raise UserError(f"{where}: timestamps of form {found}; expected {expected}, {why}; pass --data.timestamps auto")


def clock_of_moments(times: NDArray[Any]) -> Int64[ndarray, "*shape 2"]:
    """Return the clock of moments.

    >>> clock_of_moments(np.array(["2024-05-06T12:30"], "M8[s]")).tolist()
    [[0, 45000]]
    """
    seconds = times.astype("datetime64[s]").astype(np.int64)
    return np.stack([(seconds // DAY + _THURSDAY) % 7, seconds % DAY], axis=-1)


def clock_of_stamps(
    stamps: NDArray[Any], form: StampForm, *, slots: int, where: str
) -> Int64[ndarray, "window frame 2"]:
    """Return the clocks of the stamps of a file's windows.

    Args:
        stamps: moments or running numbers (window, frame), or pairs (window, frame, 2).
        form: what they are.
        slots: slots of a day that numbers and pairs count.
        where: file and part, for messages.

    Raises:
        UserError: a weekday or a slot is out of range; names the sample.
    """
    if form == "text":
        return clock_of_moments(stamps)
    if form == "index":
        numbers = np.asarray(stamps, dtype=np.int64)
        return np.stack([(numbers // slots + _FIRST_WEEKDAY) % 7, numbers % slots * DAY // slots], axis=-1)
    pairs = np.asarray(stamps, dtype=np.int64)
    wrong = (pairs < 0) | (pairs >= np.array([7, slots]))
    if wrong.any():
        sample, entry, which = (int(at) for at in np.argwhere(wrong)[0])
        what = "slot" if which else "weekday"
        top = slots - 1 if which else 6
        advice = "; pass --data.slots-per-day if a day has more of them" if which else ""
        raise UserError(f"{where}, sample {sample}, entry {entry}: {what} {pairs[sample, entry, which]}; expected 0 to "
                        f"{top}{advice}")  # fmt: skip
    return np.stack([pairs[..., 0], pairs[..., 1] * DAY // slots], axis=-1)


def extended(clock: Int64[ndarray, "window entry 2"], frames: int) -> Int64[ndarray, "window frame 2"]:
    """Return clocks for all `frames` of windows of which only the first ones have any, going on by their last step."""
    have = clock.shape[1]
    if have >= frames:
        return clock[:, :frames]
    seconds = second_of_week(clock)
    step = (seconds[:, -1] - seconds[:, -2]) % WEEK if have > 1 else np.full(len(clock), HALF_HOUR)
    ahead = (seconds[:, -1:] + step[:, None] * np.arange(1, frames - have + 1)) % WEEK
    return np.concatenate([clock, np.stack([ahead // DAY, ahead % DAY], axis=-1)], axis=1)


def second_of_week(clock: Int64[ndarray, "*shape 2"]) -> Int64[ndarray, "*shape"]:
    """Return the seconds since the week's Monday began."""
    return clock[..., 0] * DAY + clock[..., 1]


def slots_of(clock: Int64[ndarray, "*shape 2"]) -> Int64[ndarray, "*shape 2"]:
    """Return weekday and half hour, as the model takes them."""
    return np.stack([clock[..., 0], clock[..., 1] // HALF_HOUR], axis=-1)


def as_clock(timestamps: Any, *, where: str = "timestamps") -> Int64[ndarray, "*shape 2"]:
    """Return the clock of moments, of words of moments, or of pairs of weekday and half hour.

    Args:
        timestamps: an array, tensor or nested list: moments (…), or pairs of whole numbers (…, 2).
        where: what it is, for messages.

    Raises:
        UserError: it is neither, or out of range.

    >>> as_clock([["2024-05-06T12:30", "2024-05-07T00:00"]]).tolist(), as_clock([[[6, 47]]]).tolist()
    ([[[0, 45000], [1, 0]]], [[[6, 84600]]])
    """
    found = np.asarray(timestamps)
    if found.dtype.kind in "US":
        try:
            found = found.astype("datetime64[s]")
        except ValueError as error:
            raise UserError(f"{where}: {short(str(error))}; expected moments such as 2024-05-01T12:30") from error
    if found.dtype.kind == "M":
        if np.isnat(found).any():
            raise UserError(
                f"{where}: entry {int(np.argmax(np.isnat(found)))} is no moment; expected one for each frame"
            )
        return clock_of_moments(found)
    if found.dtype.kind not in "iu" or found.ndim < 2 or found.shape[-1] != 2:
        raise UserError(f"{where}: {found.dtype} of shape {found.shape}; expected moments, or pairs of weekday and "
                        "half hour of the day")  # fmt: skip
    wrong = (found < 0) | (found >= np.array([7, SLOTS_PER_DAY]))
    if wrong.any():
        *entry, which = (int(at) for at in np.argwhere(wrong)[0])
        what, top = ("slot", SLOTS_PER_DAY - 1) if which else ("weekday", 6)
        raise UserError(f"{where}: {what} {found[(*entry, which)]} at {tuple(entry)}; expected 0 to {top}")
    return found.astype(np.int64) * np.array([1, HALF_HOUR])
