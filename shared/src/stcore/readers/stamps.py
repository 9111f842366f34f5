"""Timestamps written as text: ISO 8601, and dates with slashes where the column shows which number is the day."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stcore.errors import UserError
from stcore.readers.limits import short

_ISO = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}([.,]\d{1,9})?)?)?"
_ZONE = r"\s*(Z|z|UTC|[+-]\d{2}:?\d{2})$"
_SLASH = r"^(?P<first>\d{1,2})/(?P<second>\d{1,2})/(?P<year>\d{4})(?:[T ]\d{2}:\d{2}(?::\d{2}(?:[.]\d{1,6})?)?)?$"


def any_stamps(column: Any) -> bool:
    """Return whether some cell of an Arrow text column begins like a date."""
    import pyarrow as pa
    import pyarrow.compute

    pc: Any = pyarrow.compute  # its functions are made at import, unseen by type checkers
    return bool(_mask(pc.match_substring_regex(column.cast(pa.string()), r"^\s*(\d{4}-|\d{1,2}/)\d{1,2}[-/]")).any())


_log = logging.getLogger(__name__)


def parse_stamps(column: Any, name: str, where: str, place: Callable[[int], str]) -> NDArray[np.datetime64]:
    """Return a text column as datetime64[us], NaT where a cell is empty; moments with a zone become UTC.

    Where most rows are dates alone, the time of day of the others is dropped: within a day nothing is known of the
    order, and a date alone would otherwise come before it. Where few are, they mean midnight.

    Args:
        column: Arrow array of strings.
        name: name of the column, for messages.
        where: file, for messages.
        place: names a row, for messages.

    Raises:
        UserError: a cell is neither a number nor a timestamp, zones are given for some rows only, or dates with
            slashes leave open which number is the day.
    """
    import pyarrow as pa
    import pyarrow.compute

    pc: Any = pyarrow.compute  # its functions are made at import, unseen by type checkers

    texts = pc.utf8_trim_whitespace(column.cast(pa.string()))
    texts = pc.if_else(pc.equal(texts, ""), None, texts)
    iso = _mask(pc.match_substring_regex(texts, f"{_ISO}({_ZONE.removesuffix('$')})?$"))
    slash = _mask(pc.match_substring_regex(texts, _SLASH))
    missing = ~_mask(texts.is_valid())
    if (neither := np.flatnonzero(~(iso | slash | missing))).size:
        row = int(neither[0])
        raise UserError(
            f"{where}: {place(row)}: {name} is {short(texts[row].as_py())}; expected a number or a timestamp such as "
            "2024-05-01T12:30:00Z"
        )
    if slash.any():
        texts = _slashes_to_iso(texts, slash, name, where, place)
    zoned = _mask(pc.match_substring_regex(texts, _ZONE))
    timed = _mask(pc.match_substring(texts, ":"))
    if zoned.any() and (naive := np.flatnonzero(~zoned & ~missing & timed)).size:
        row = int(naive[0])
        raise UserError(
            f"{where}: {place(row)}: {name} is {short(texts[row].as_py())} without a time zone where other rows have "
            "one; expected a zone in all rows or in none"
        )
    moments = _moments(texts, zoned, name, where, place)
    if 0 < timed.sum() < 0.5 * (~missing).sum():
        _log.warning(
            "%s: %d of %d times have a time of day, the others not: read to the day", where, timed.sum(), len(timed)
        )
        moments = moments.astype("datetime64[D]").astype("datetime64[us]")
    return moments


def _mask(array: Any) -> NDArray[np.bool_]:
    return array.fill_null(False).to_numpy(zero_copy_only=False).astype(np.bool_)


def _slashes_to_iso(texts: Any, slash: NDArray[np.bool_], name: str, where: str, place: Callable[[int], str]) -> Any:
    """Rewrite dates with slashes; a number above 12 somewhere in the column shows which one is the day."""
    import pyarrow as pa
    import pyarrow.compute

    pc: Any = pyarrow.compute  # its functions are made at import, unseen by type checkers

    pieces = pc.extract_regex(texts, _SLASH)
    numbers = {
        key: pc.struct_field(pieces, key).cast(pa.int32()).fill_null(0).to_numpy(zero_copy_only=False)
        for key in ("first", "second")
    }
    day_first, month_first = (np.flatnonzero(numbers[key] > 12) for key in ("first", "second"))
    if bool(day_first.size) == bool(month_first.size):
        row = int(np.flatnonzero(slash)[0])
        if day_first.size:
            other = int(month_first[0])
            row = int(day_first[0])
            found = f"{short(texts[row].as_py())} and {place(other)} {short(texts[other].as_py())}"
            raise UserError(f"{where}: {place(row)}: {name} is {found}; expected day or month first in all rows")
        raise UserError(
            f"{where}: {place(row)}: {name} is {short(texts[row].as_py())}, and no row shows whether day or month "
            "comes first; expected dates as year-month-day"
        )
    order = r"\3-\2-\1\4" if day_first.size else r"\3-\1-\2\4"
    padded = pc.replace_substring_regex(texts, r"^(\d)/", r"0\1/")
    padded = pc.replace_substring_regex(padded, r"/(\d)/", r"/0\1/")
    rewritten = pc.replace_substring_regex(padded, r"^(\d{2})/(\d{2})/(\d{4})(.*)$", order)
    return pc.if_else(pa.array(slash), rewritten, texts)


def _moments(
    texts: Any, zoned: NDArray[np.bool_], name: str, where: str, place: Callable[[int], str]
) -> NDArray[np.datetime64]:
    import pyarrow as pa
    import pyarrow.compute

    pc: Any = pyarrow.compute  # its functions are made at import, unseen by type checkers

    plain = pc.replace_substring(texts, ",", ".")
    plain = pc.replace_substring_regex(plain, r"(\.\d{6})\d+", r"\1")
    plain = pc.replace_substring_regex(plain, r"\s*(UTC|z)$", "Z")
    plain = pc.replace_substring_regex(plain, r"\s+([+-]\d{2}:?\d{2}|Z)$", r"\1")
    if zoned.any():
        plain = pc.replace_substring_regex(plain, r"^(\d{4}-\d{2}-\d{2})$", r"\1T00:00Z")
    kind = pa.timestamp("us", tz="UTC") if zoned.any() else pa.timestamp("us")
    try:
        moments = plain.cast(kind)
    except pa.ArrowInvalid as error:
        row = next(index for index in range(len(plain)) if not _castable(plain[index], kind))
        raise UserError(
            f"{where}: {place(row)}: {name} is {short(texts[row].as_py())}; expected a moment that exists"
        ) from error
    return moments.cast(pa.timestamp("us")).to_numpy(zero_copy_only=False).astype("datetime64[us]")


def _castable(value: Any, kind: Any) -> bool:
    import pyarrow as pa

    try:
        value.cast(kind)
    except pa.ArrowInvalid:
        return False
    return True
