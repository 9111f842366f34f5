"""Moments of frames as files have them: timestamps, text, years, or a start and a step."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stcore.errors import UserError
from stcore.readers.limits import short

Stamps = NDArray[np.datetime64]

_UNITS = {
    "s": ("s", "sec", "second", "seconds"),
    "m": ("m", "min", "minute", "minutes"),
    "h": ("h", "hour", "hours"),
    "D": ("d", "day", "days"),
    "W": ("w", "week", "weeks"),
    "M": ("month", "months"),
    "Y": ("year", "years"),
}
_STEP = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*")
_WHOLE = ("M", "Y")


def parse_step(text: str) -> np.timedelta64:
    """Return a step of time from words.

    Raises:
        UserError: there is no number above 0 and unit in `text`.

    >>> parse_step("30 minutes"), parse_step("1 month")
    (np.timedelta64(1800000000,'us'), np.timedelta64(1,'M'))
    """
    match = _STEP.fullmatch(text)
    unit = next((unit for unit, words in _UNITS.items() if match and match[2].lower() in words), "")
    number = float(match[1]) if match else 0.0
    if not unit or not 0.0 < number < 1e6 or (unit in _WHOLE and number != int(number)):
        raise UserError(f"data.step: {short(text)}; expected a number and a unit, such as 30 minutes or 1 month")
    if unit in _WHOLE:
        return np.timedelta64(int(number), unit)  # pyright: ignore[reportArgumentType, reportCallIssue]
    return step_of_seconds(number * {"s": 1.0, "m": 60.0, "h": 3600.0, "D": 86400.0, "W": 604800.0}[unit])


def step_of_seconds(seconds: float) -> np.timedelta64:
    """Return a step of so many seconds, to the microsecond."""
    return np.timedelta64(round(seconds * 1e6), "us")


def regular_times(start: str, step: np.timedelta64, count: int) -> Stamps:
    """Return `count` moments from `start` on, one `step` apart.

    Raises:
        UserError: `start` is no moment, or not on a month's first day where steps are months.
    """
    first = parse_text("data.start", [start])[0]
    unit = np.datetime_data(step.dtype)[0]
    if unit in _WHOLE:
        whole = first.astype(f"datetime64[{unit}]")
        rest = first - whole.astype("datetime64[us]")
        return (whole + step * np.arange(count)).astype("datetime64[us]") + rest
    return first + step * np.arange(count)


def parse_times(where: str, name: str, values: NDArray[Any]) -> Stamps | None:
    """Return moments from an array of a file; none where it holds numbers without a unit.

    Raises:
        UserError: an entry is no moment, or zones are given for some entries only.
    """
    if values.dtype.kind == "M":
        return values.astype("datetime64[us]")
    if values.dtype.kind == "S":
        try:
            values = np.char.decode(values, "ascii")
        except UnicodeDecodeError as error:
            raise UserError(f"{where}: array {name} holds bytes that are no text; expected moments") from error
    if values.dtype.kind == "U":
        return parse_text(f"{where}: array {name}", [str(value) for value in values.reshape(-1)])
    if values.dtype.kind in "iu" and name.startswith("year"):
        if values.size and (int(values.min()) < 1 or int(values.max()) > 9999):
            raise UserError(f"{where}: array {name} from {values.min()} to {values.max()}; expected years 1 to 9999")
        return (values.astype(np.int64) - 1970).astype("datetime64[Y]").astype("datetime64[us]")
    return None


def parse_text(where: str, texts: list[str]) -> Stamps:
    """Return moments written as ISO 8601 (a year, a month or a day alone is its start), in UTC where a zone is given.

    Raises:
        UserError: an entry is no moment, or zones are given for some entries only.
    """
    moments: list[datetime] = []
    for index, text in enumerate(texts):
        plain = text.strip()
        short_form = re.fullmatch(r"(\d{4})(-\d{2})?", plain)
        try:
            moment = datetime.fromisoformat(f"{short_form[1]}{short_form[2] or '-01'}-01" if short_form else plain)
        except ValueError as error:
            raise UserError(
                f"{where}: entry {index} is {short(text)}; expected a moment that exists, such as 2024-05-01T12:30"
            ) from error
        moments.append(moment)
    zoned = [moment.tzinfo is not None for moment in moments]
    if any(zoned) and not all(zoned):
        index = zoned.index(False)
        raise UserError(
            f"{where}: entry {index} is {short(texts[index])} without a time zone where others have one; expected a "
            "zone in all or in none"
        )
    if any(zoned):
        moments = [_utc(where, index, moment) for index, moment in enumerate(moments)]
    return np.array(moments, dtype="datetime64[us]")


def _utc(where: str, index: int, moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC).replace(tzinfo=None)
    except OverflowError as error:
        raise UserError(f"{where}: entry {index} is {moment}; expected a moment that exists in UTC") from error
