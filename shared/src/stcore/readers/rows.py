"""Rows of events as a file gives them, and how they become checked sequences.

Every family of formats makes `Rows`; what is wrong with a value is found here once, and named with the place that
only the family knows (row 17; sequence 3, event 5).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stcore.errors import UserError
from stcore.events import CALENDAR_UNITS, EventSequences, in_order
from stcore.readers.limits import short
from stcore.readers.options import EventReadOptions

_log = logging.getLogger(__name__)

MAX_MARKS = 10_000
_INTEGER = re.compile(r"[+]?\d+(\.0*)?")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class Rows:
    """Events in the order of the file, not yet checked."""

    where: str
    """File (and part) for messages."""
    time: NDArray[Any]
    """float64 since the start of the sequence, or datetime64[us]; NaN or NaT where it is missing."""
    location: NDArray[np.float64]
    """First and second coordinate (row, 2); NaN where missing."""
    place: Callable[[int], str]
    """Name of a row, such as `row 17`."""
    columns: tuple[str, str, str, str] = ("time", "x", "y", "mark")
    """Names of time, first coordinate, second coordinate and mark in the file."""
    mark: NDArray[np.int64] | None = None
    """Index into `labels`, -1 where it is missing."""
    labels: tuple[str, ...] = ()
    """Names of marks, in any order, perhaps repeated."""
    ordered: bool = False
    """Whether `labels` are to be kept in their order, unseen ones included."""
    sequence: NDArray[np.int64] | None = None
    """Index into `ids`; none when all rows are one sequence."""
    ids: tuple[str, ...] = ("0",)
    """Names of the sequences."""
    all_ids: bool = False
    """Whether `ids` are to be kept in their order, sequences without events included."""
    time_unit: str = ""
    """Unit of the times, when the file says it."""
    coordinates: Literal["", "planar", "degrees"] = ""
    """Kind of coordinates, when the file says it."""
    origin: NDArray[np.datetime64] | None = None
    """Absolute time 0 of each sequence, when the file says it beside numbers."""
    kept: NDArray[np.int64] | None = field(default=None)
    """Numbers in the file of the rows that are left, when some were dropped."""

    def name_row(self, row: int) -> str:
        """Name the row, counted as in the file."""
        return self.place(row if self.kept is None else int(self.kept[row]))


def mark_labels(where: str, values: Sequence[Any], place: Callable[[int], str], column: str) -> tuple[str, ...]:
    """Return names for the distinct `values` of a mark column: integers by value, words as they are.

    Raises:
        UserError: a value is a fraction, negative, too large or too long, or there are too many.
    """
    if len(values) > MAX_MARKS:
        raise UserError(
            f"{where}: column {column!r} holds {len(values):,} different marks; expected at most {MAX_MARKS:,}; "
            "name the right column with --data.mark-column, or none"
        )
    return tuple(_label(where, value, index, place, column) for index, value in enumerate(values))


def _label(where: str, value: Any, index: int, place: Callable[[int], str], column: str) -> str:
    text = str(value).strip()
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        text = str(int(value))
    elif isinstance(value, float | np.floating):
        text = str(int(value)) if np.isfinite(value) and float(value).is_integer() else repr(float(value))
    if _INTEGER.fullmatch(text):
        text = text.lstrip("+").split(".")[0].lstrip("0") or "0"
        if len(text) <= 9:
            return text
        raise UserError(
            f"{where}: {place(index)}: {column} is {short(value)}; expected a class, 0 to 999999999 or a word"
        )
    if _NUMBER.fullmatch(text) or text.lower() in ("inf", "-inf", "nan"):
        raise UserError(
            f"{where}: {place(index)}: {column} is {short(value)}; expected a class: an integer from 0 or a word"
        )
    if len(text) > 200 or not text.isprintable():
        raise UserError(f"{where}: {place(index)}: {column} is {short(value)}; expected a word of at most 200 letters")
    return text


def with_size_classes(rows: Rows, size: NDArray[np.float64], edges: tuple[float, ...]) -> Rows:
    """Return the rows with marks that say between which `edges` the size of each event lies; missing sizes stay so.

    >>> labels = with_size_classes(Rows("", np.zeros(3), np.zeros((3, 2)), str), np.array([5.0, 7.0, 6.5]), (6.5,))
    >>> labels.labels, labels.mark.tolist()
    (('<6.5', '>=6.5'), [0, 1, 1])
    """
    between = [f"{low:g}-{high:g}" for low, high in pairwise(edges)]
    codes = np.where(np.isfinite(size), np.searchsorted(edges, size, side="right"), -1).astype(np.int64)
    return replace(rows, mark=codes, labels=(f"<{edges[0]:g}", *between, f">={edges[-1]:g}"), ordered=True)


def to_events(rows: Rows, options: EventReadOptions) -> EventSequences:
    """Check `rows` and gather them into sequences, in order of first appearance.

    Raises:
        UserError: a value is missing, negative, out of order or out of range; it names file, row, column and value.
    """
    rows = _without_missing(rows, options)
    if not len(rows.time):
        raise UserError(f"{rows.where}: no events; expected at least one")
    coordinates = _coordinates(rows, options)
    if coordinates == "degrees":
        _require_degrees(rows)
    order, sequence, offsets, ids = _grouped(rows)
    rows = replace(
        rows,
        time=rows.time[order],
        location=rows.location[order],
        mark=None if rows.mark is None else rows.mark[order],
        kept=order if rows.kept is None else rows.kept[order],
    )
    _require_order(rows, offsets, ids)
    time, unit, origin = _relative(rows, sequence, offsets, options)
    mark, names = _numbered(rows)
    events = EventSequences(
        time=time,
        location=rows.location,
        offsets=offsets,
        mark=mark,
        mark_names=names,
        sequence_id=ids,
        time_unit=unit,
        coordinates=coordinates,
        origin=origin,
    )
    return events.windows(options.window) if options.window else events


def _without_missing(rows: Rows, options: EventReadOptions) -> Rows:
    """Drop rows with a missing or non-finite value, or refuse the first of them."""
    stamps = rows.time.dtype.kind == "M"
    bad = [np.isnat(rows.time) if stamps else ~np.isfinite(rows.time), *~np.isfinite(rows.location).T]
    if rows.mark is not None:
        bad.append(rows.mark < 0)
    anywhere = np.logical_or.reduce(bad)
    if not anywhere.any():
        return rows
    if options.missing == "error":
        row = int(np.flatnonzero(anywhere)[0])
        column = next(index for index, column in enumerate(bad) if column[row])
        found = "missing"
        if (column < 3 and not stamps) or column in (1, 2):
            value = (rows.time if column == 0 else rows.location[:, column - 1])[row]
            found = "missing or not a number" if np.isnan(value) else f"{value}"
        more = f" (one of {int(anywhere.sum()):,} such rows)" if anywhere.sum() > 1 else ""
        raise UserError(
            f"{rows.where}: {rows.name_row(row)}: {rows.columns[column]} is {found}{more}; expected a finite value; "
            "mend it or pass --data.missing drop"
        )
    kept = np.flatnonzero(~anywhere)
    _log.warning("%s: %d of %d rows dropped for a missing value", rows.where, int(anywhere.sum()), len(anywhere))
    return replace(
        rows,
        time=rows.time[kept],
        location=rows.location[kept],
        mark=None if rows.mark is None else rows.mark[kept],
        sequence=None if rows.sequence is None else rows.sequence[kept],
        kept=kept if rows.kept is None else rows.kept[kept],
    )


def _coordinates(rows: Rows, options: EventReadOptions) -> Literal["planar", "degrees"]:
    if options.coordinates != "auto":
        return options.coordinates
    if rows.coordinates:
        return rows.coordinates
    return "degrees" if rows.columns[2].strip().lower() in ("lat", "latitude") else "planar"


def _require_degrees(rows: Rows) -> None:
    for axis, (limit, word) in enumerate(((360.0, "longitude"), (90.0, "latitude"))):
        beyond = np.flatnonzero(np.abs(rows.location[:, axis]) > limit)
        if beyond.size:
            row = int(beyond[0])
            other = abs(rows.location[row, 1 - axis])
            swapped = " (are the two swapped?)" if axis == 1 and other <= 90.0 else ""
            raise UserError(
                f"{rows.where}: {rows.name_row(row)}: {rows.columns[1 + axis]} is {rows.location[row, axis]:g}; "
                f"expected a {word} of at most {limit:g} degrees{swapped}"
            )


def _grouped(rows: Rows) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], tuple[str, ...]]:
    """Return the order that puts sequences one after another, the sequence of each row, offsets and ids."""
    count = len(rows.time)
    if rows.sequence is None:
        offsets = np.array([0, count], dtype=np.int64)
        return np.arange(count, dtype=np.int64), np.zeros(count, dtype=np.int64), offsets, rows.ids[:1]
    codes = rows.sequence
    if rows.all_ids:
        ids = rows.ids  # a file of our own: keep sequences without events in their place
    else:
        seen, first = np.unique(codes, return_index=True)
        by_appearance = seen[np.argsort(first, kind="stable")]
        table = np.full(len(rows.ids), -1, dtype=np.int64)
        table[by_appearance] = np.arange(len(seen))
        codes, ids = table[codes], tuple(rows.ids[code] for code in by_appearance)
    order = np.argsort(codes, kind="stable").astype(np.int64)
    lengths = np.bincount(codes, minlength=len(ids))
    return order, codes[order], np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), ids


def _require_order(rows: Rows, offsets: NDArray[np.int64], ids: tuple[str, ...]) -> None:
    falls = rows.time[1:] < rows.time[:-1]
    falls[offsets[1:-1][(offsets[1:-1] > 0) & (offsets[1:-1] < len(rows.time))] - 1] = False
    if falls.any():
        row = int(np.flatnonzero(falls)[0]) + 1
        sequence = ids[int(np.searchsorted(offsets, row, side="right")) - 1]
        in_sequence = f" of sequence {short(sequence)}" if len(ids) > 1 else ""
        raise UserError(
            f"{rows.where}: {rows.name_row(row)}{in_sequence}: {rows.columns[0]} is {_value(rows.time[row])} after "
            f"{_value(rows.time[row - 1])}; expected times in order within a sequence"
        )
    if rows.time.dtype.kind == "f" and (rows.time < 0.0).any():
        row = int(np.flatnonzero(rows.time < 0.0)[0])
        raise UserError(
            f"{rows.where}: {rows.name_row(row)}: {rows.columns[0]} is {_value(rows.time[row])}; expected time since "
            "the start of the sequence, 0 or more"
        )


def _value(value: Any) -> str:
    return str(value) if isinstance(value, np.datetime64) else f"{float(value)!r}"


def _relative(
    rows: Rows, sequence: NDArray[np.int64], offsets: NDArray[np.int64], options: EventReadOptions
) -> tuple[NDArray[np.float64], str, NDArray[np.datetime64] | None]:
    """Return times as numbers, their unit and the absolute time of zero."""
    if rows.time.dtype.kind != "M":
        return rows.time, options.time_unit or rows.time_unit or "units", rows.origin
    unit = options.time_unit or "days"
    if unit not in CALENDAR_UNITS:
        raise UserError(
            f"{rows.where}: data.time-unit is {short(unit)}; expected one of {', '.join(CALENDAR_UNITS)} to count "
            "timestamps in"
        )
    origin = rows.time[offsets[:-1]]
    elapsed = (rows.time - origin[sequence]).astype(np.int64).astype(np.float64)
    return elapsed / CALENDAR_UNITS[unit], unit, origin


def _numbered(rows: Rows) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
    if rows.mark is None:
        return None, ()
    if rows.ordered:
        return rows.mark, rows.labels
    seen = np.unique(rows.mark)
    names = in_order({rows.labels[code] for code in seen})
    number = {name: index for index, name in enumerate(names)}
    table = np.array([number.get(label, -1) for label in rows.labels], dtype=np.int64)
    return table[rows.mark], names
