"""Sequences of events in time and space: the container that every reader makes and every point-process method takes.

Flat arrays and offsets (no padding), in the units of the world. Time is counted from the origin of each sequence,
the start of its observation window, so that the first gap of a sequence is the time of its first event.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from stcore.errors import UserError
from stcore.splits import Parts, cut

if TYPE_CHECKING:
    from stcore.readers.options import EventReadOptions

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Stamps = NDArray[np.datetime64]


CALENDAR_UNITS = {
    "microseconds": 1.0,
    "milliseconds": 1e3,
    "seconds": 1e6,
    "minutes": 60e6,
    "hours": 3600e6,
    "days": 86400e6,
    "weeks": 7 * 86400e6,
    "years": 365.25 * 86400e6,
}
"""Units of time that timestamps can be counted in, and the microseconds in one."""


def microseconds(unit: str) -> float:
    """Return the microseconds in one `unit` of time.

    Raises:
        UserError: `unit` is none of the calendar's.

    >>> microseconds("hours")
    3600000000.0
    """
    if unit not in CALENDAR_UNITS:
        raise UserError(f"time unit {unit[:60]!r}: not of the calendar; expected one of {', '.join(CALENDAR_UNITS)}")
    return CALENDAR_UNITS[unit]


def _frozen(values: Any, kind: str, dtype: Any, shape: tuple[int | None, ...]) -> NDArray[Any]:
    """Return a read-only array of `dtype`, or say what is wrong with `values`."""
    given = np.asarray(values)
    whole = np.dtype(dtype).kind == "i"
    if given.dtype.kind not in ("iu" if whole else "M" if np.dtype(dtype).kind == "M" else "iuf") and given.size:
        raise UserError(
            f"events: {kind} of type {given.dtype}; expected {'integers' if whole else np.dtype(dtype).name}"
        )
    if given.ndim != len(shape) or any(want not in (None, size) for want, size in zip(shape, given.shape, strict=True)):
        wanted = " x ".join("any" if size is None else str(size) for size in shape)
        raise UserError(f"events: {kind} of shape {given.shape}; expected {wanted}")
    if given.dtype == np.dtype(dtype) and not given.flags.writeable and given.flags.c_contiguous:
        return given
    array = np.array(given, dtype=dtype, order="C")
    array.setflags(write=False)
    return array


@dataclass(frozen=True, eq=False)
class EventSequences:
    """Events (time, place, optional mark) in ordered sequences; validated, read-only.

    >>> events = EventSequences(time=[0.5, 2.0, 1.0], location=np.zeros((3, 2)), offsets=[0, 2, 3])
    >>> events.num_sequences, events.gaps().tolist()
    (2, [0.5, 1.5, 1.0])
    """

    time: Floats
    """Time of each event since the origin of its sequence, in `time_unit`; not negative, never decreasing."""
    location: Floats
    """First and second coordinate of each event (event, 2): x, y or longitude, latitude."""
    offsets: Integers
    """Sequence i is the slice offsets[i]:offsets[i + 1] of the other arrays."""
    mark: Integers | None = None
    """Index of each event's mark in `mark_names`; none when the events carry no marks."""
    mark_names: tuple[str, ...] = ()
    """Names of the marks, seen or not; empty when the events carry no marks."""
    sequence_id: tuple[str, ...] = ()
    """Name of each sequence, all different; given as 0, 1, … when empty."""
    time_unit: str = "units"
    """Unit of time: days, hours, seconds, …"""
    coordinates: Literal["planar", "degrees"] = "planar"
    """Whether locations are longitude and latitude in degrees, or plane coordinates."""
    origin: Stamps | None = None
    """Absolute time (UTC where a zone was given) of time 0 of each sequence, to the microsecond, where it is known."""

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        set_(self, "time", _frozen(self.time, "time", np.float64, (None,)))
        set_(self, "location", _frozen(self.location, "location", np.float64, (self.num_events, 2)))
        set_(self, "offsets", _frozen(self.offsets, "offsets", np.int64, (None,)))
        if self.mark is not None:
            set_(self, "mark", _frozen(self.mark, "mark", np.int64, (self.num_events,)))
        if not len(self.offsets) or self.offsets[0] != 0 or self.offsets[-1] != self.num_events:
            found = f"from {self.offsets[0]} to {self.offsets[-1]}" if len(self.offsets) else "none"
            raise UserError(f"events: offsets {found}; expected from 0 to the number of events, {self.num_events}")
        if (falls := np.flatnonzero(np.diff(self.offsets) < 0)).size:
            raise UserError(f"events: offsets fall after sequence {falls[0]}; expected them to rise or stay")
        if self.origin is not None:
            set_(self, "origin", _frozen(self.origin, "origin", "datetime64[us]", (self.num_sequences,)))
        set_(self, "sequence_id", tuple(self.sequence_id) or tuple(map(str, range(self.num_sequences))))
        set_(self, "mark_names", tuple(self.mark_names))
        self._check_names()
        self._check_values()

    def _check_names(self) -> None:
        if len(self.sequence_id) != self.num_sequences:
            raise UserError(f"events: {len(self.sequence_id)} sequence ids; expected {self.num_sequences}")
        for kind, names in (("sequence id", self.sequence_id), ("mark name", self.mark_names)):
            if len(set(names)) != len(names):
                twice = next(name for index, name in enumerate(names) if name in names[:index])
                raise UserError(f"events: {kind} {twice!r} occurs twice; expected different ones")
        if self.marked != (self.mark is not None):
            raise UserError(f"events: {len(self.mark_names)} mark names; expected names exactly where there are marks")
        if self.coordinates not in ("planar", "degrees"):
            raise UserError(f"events: coordinates {self.coordinates!r}; expected planar or degrees")
        if not self.time_unit:
            raise UserError("events: empty time unit; expected a word such as days")

    def _check_values(self) -> None:
        finite = np.isfinite(self.time) & np.isfinite(self.location).all(axis=1)
        self._refuse_where(~finite, "a time or coordinate that is not finite", "finite numbers")
        self._refuse_where(self.time < 0.0, "a negative time", "time since the start of the sequence, 0 or more")
        falls = np.diff(self.time, prepend=0.0) < 0.0
        falls[self.offsets[:-1][self.lengths > 0]] = False
        self._refuse_where(falls, "a time before that of the event before it", "times in order")
        if self.mark is not None:
            outside = (self.mark < 0) | (self.mark >= len(self.mark_names))
            self._refuse_where(outside, "a mark without a name", f"0 to {len(self.mark_names) - 1}")
        if self.coordinates == "degrees":
            longitude, latitude = np.abs(self.location).T
            self._refuse_where(latitude > 90.0, "a latitude beyond 90", "longitude first, then latitude, in degrees")
            self._refuse_where(
                longitude > 360.0, "a longitude beyond 360", "longitude first, then latitude, in degrees"
            )

    def _refuse_where(self, bad: NDArray[np.bool_], found: str, expected: str) -> None:
        if bad.any():
            sequence, event = self.position(int(np.flatnonzero(bad)[0]))
            raise UserError(
                f"events: sequence {self.sequence_id[sequence]!r}, event {event}: {found} (one of {bad.sum():,}); "
                f"expected {expected}"
            )

    @property
    def num_sequences(self) -> int:
        return len(self.offsets) - 1

    @property
    def num_events(self) -> int:
        return len(self.time)

    @property
    def lengths(self) -> Integers:
        """Number of events of each sequence."""
        return np.diff(self.offsets)

    @property
    def marked(self) -> bool:
        return bool(self.mark_names)

    @property
    def num_marks(self) -> int:
        """Number of marks that have a name; 1 for events without marks."""
        return max(1, len(self.mark_names))

    def position(self, event: int) -> tuple[int, int]:
        """Return sequence and place in the sequence (both from 0) of flat event number `event`."""
        sequence = int(np.searchsorted(self.offsets, event, side="right")) - 1
        return sequence, event - int(self.offsets[sequence])

    def sequence_of_event(self) -> Integers:
        """Return the index of the sequence of each event."""
        return np.repeat(np.arange(self.num_sequences, dtype=np.int64), self.lengths)

    def gaps(self) -> Floats:
        """Return the time since the event before, in `time_unit`; for a first event, since the start of the window."""
        gaps = np.diff(self.time, prepend=0.0)
        first = self.offsets[:-1][self.lengths > 0]
        gaps[first] = self.time[first]
        return gaps

    def select(self, indices: Sequence[int] | Integers | range) -> EventSequences:
        """Return the sequences `indices` (no repeats), in that order; names of marks stay as they are."""
        chosen = np.asarray(indices, dtype=np.int64).reshape(-1)
        if chosen.size and (chosen.min() < 0 or chosen.max() >= self.num_sequences):
            raise UserError(
                f"events: sequence {chosen.min()} to {chosen.max()}; expected 0 to {self.num_sequences - 1}"
            )
        lengths = self.lengths[chosen]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        rows = np.arange(offsets[-1]) + np.repeat(self.offsets[chosen] - offsets[:-1], lengths)
        return replace(
            self,
            time=self.time[rows],
            location=self.location[rows],
            offsets=offsets,
            mark=None if self.mark is None else self.mark[rows],
            sequence_id=tuple(self.sequence_id[index] for index in chosen),
            origin=None if self.origin is None else self.origin[chosen],
        )

    def with_mark_names(self, names: Sequence[str]) -> EventSequences:
        """Return the same events with marks numbered by `names`, which must hold every mark that occurs.

        Raises:
            UserError: a mark occurs that `names` lacks, or one side has marks and the other has none.
        """
        if bool(names) != self.marked:
            have = {True: "marks", False: "no marks"}
            raise UserError(f"events: {have[self.marked]}; expected {have[bool(names)]}")
        if self.mark is None or tuple(names) == self.mark_names:
            return self
        number = {name: index for index, name in enumerate(names)}
        table = np.array([number.get(name, -1) for name in self.mark_names], dtype=np.int64)
        mark = table[self.mark]
        if (mark < 0).any():
            unknown = self.mark_names[self.mark[int(np.flatnonzero(mark < 0)[0])]]
            known = ", ".join(list(names)[:8]) + (", …" if len(names) > 8 else "")
            raise UserError(f"events: mark {unknown!r} ({(mark < 0).sum():,} unknown marks); expected one of {known}")
        return replace(self, mark=mark, mark_names=tuple(names))

    def windows(self, length: float) -> EventSequences:
        """Cut each sequence into consecutive windows of `length` (in `time_unit`), each counted from its own start.

        Windows do not overlap; those without events are left out. Window k of sequence s is named `s@k`.
        """
        if not 0.0 < length < float("inf"):
            raise UserError(f"data.window: {length}; expected a length of time above 0")
        index = np.floor(self.time / length)
        if index.size and index.max() >= 2**53:
            raise UserError(f"data.window: {length}; expected longer windows for times up to {self.time.max():g}")
        sequence = self.sequence_of_event()
        new = np.ones(self.num_events, dtype=np.bool_)
        new[1:] = (np.diff(sequence) != 0) | (np.diff(index) != 0)
        starts = np.flatnonzero(new)
        start_time = index[starts] * length
        lengths = np.diff(starts, append=self.num_events)
        origin = None
        if self.origin is not None:
            shift = np.round(start_time * microseconds(self.time_unit)).astype("timedelta64[us]")
            origin = self.origin[sequence[starts]] + shift
        return replace(
            self,
            time=np.maximum(self.time - np.repeat(start_time, lengths), 0.0),
            offsets=np.append(starts, self.num_events),
            sequence_id=tuple(f"{self.sequence_id[sequence[row]]}@{int(index[row])}" for row in starts),
            origin=origin,
        )

    def split(self, shares: tuple[float, float, float]) -> Parts[EventSequences]:
        """Cut the sequences, in their order, into train, val and test of about these `shares`.

        Raises:
            UserError: fewer sequences than parts.
        """
        return cut(self.num_sequences, shares, where="events", things="sequences").map(self.select)

    def check(self) -> list[str]:
        """Return everything odd about these events, one sentence each; an empty list when nothing is."""
        from stcore.event_checks import oddities

        return oddities(self)

    def describe(self) -> dict[str, Any]:
        """Return counts, lengths, spans and mark shares, as plain values fit for JSON."""
        lengths, gaps = self.lengths, self.gaps()
        facts: dict[str, Any] = {
            "sequences": self.num_sequences,
            "events": self.num_events,
            "predicted_events": int(np.maximum(lengths - 1, 0).sum()),
            "time_unit": self.time_unit,
            "coordinates": self.coordinates,
        }
        if self.num_events:
            names = ("longitude", "latitude") if self.coordinates == "degrees" else ("x", "y")
            facts["length"] = _spread(lengths)
            facts["time"] = _spread(self.time)
            facts["gap"] = _spread(gaps)
            facts |= {name: _spread(column) for name, column in zip(names, self.location.T, strict=True)}
        if self.mark is not None:
            counts = np.bincount(self.mark, minlength=self.num_marks)
            shares = counts / max(1, self.num_events)
            facts["marks"] = dict(zip(self.mark_names, counts.tolist(), strict=True))
            facts["mark_shares"] = dict(zip(self.mark_names, shares.tolist(), strict=True))
        if self.origin is not None and self.num_sequences:
            facts["origin"] = {"first": str(self.origin.min()), "last": str(self.origin.max())}
        return facts

    @classmethod
    def read(cls, source: str | Path, options: EventReadOptions | None = None) -> EventSequences:
        """Read a file, a folder or a named data set (see `stcore.readers`)."""
        from stcore.readers import read_events
        from stcore.readers.options import EventReadOptions

        return read_events(str(source), options or EventReadOptions())

    def write(self, path: str | Path) -> None:
        """Write a .parquet, .csv or .npz file that `read` turns back into the same events.

        Raises:
            UserError: another ending, or the file cannot be written.
        """
        from stcore.readers.writing import write_events

        write_events(self, Path(path))


def _spread(values: NDArray[Any]) -> dict[str, float]:
    return {"min": float(values.min()), "mean": float(values.mean()), "max": float(values.max())}


def concatenate(parts: Sequence[EventSequences]) -> EventSequences:
    """Join sequences that share unit, coordinates and marks; where ids repeat, the number of the part goes before them.

    Raises:
        UserError: nothing to join, or units, coordinates or the names of marks differ.
    """
    if not parts:
        raise UserError("events: nothing to join; expected at least one set of sequences")
    first = parts[0]
    for other in parts[1:]:
        for name in ("time_unit", "coordinates", "mark_names"):
            if getattr(other, name) != getattr(first, name):
                raise UserError(f"events: {name} {getattr(other, name)!r}; expected {getattr(first, name)!r} as before")
    ids = [name for part in parts for name in part.sequence_id]
    if len(set(ids)) != len(ids):
        ids = [f"{number}/{name}" for number, part in enumerate(parts) for name in part.sequence_id]
    ends = np.cumsum([0, *(part.num_events for part in parts)])
    offsets = [part.offsets[1:] + end for part, end in zip(parts, ends[:-1], strict=True)]
    marks = [part.mark for part in parts if part.mark is not None]
    origins = [part.origin for part in parts if part.origin is not None]
    return replace(
        first,
        time=np.concatenate([part.time for part in parts]),
        location=np.concatenate([part.location for part in parts]),
        offsets=np.concatenate([np.zeros(1, dtype=np.int64), *offsets]),
        mark=np.concatenate(marks) if first.marked else None,
        sequence_id=tuple(ids),
        origin=np.concatenate(origins) if len(origins) == len(parts) else None,
    )


def in_order(names: set[str]) -> tuple[str, ...]:
    """Return names of marks in the order they are numbered in: by value when all are integers, else by letters.

    >>> in_order({"10", "9"}), in_order({"b", "10"})
    (('9', '10'), ('10', 'b'))
    """
    return tuple(sorted(names, key=int) if all(name.isascii() and name.isdigit() for name in names) else sorted(names))


def unite_marks(parts: Parts[EventSequences]) -> Parts[EventSequences]:
    """Number the marks of all parts by the union of their names, so that every mark of any part has a number.

    Raises:
        UserError: one part has marks and another has none.
    """
    filled = [part for part in (parts.train, parts.val, parts.test) if part.num_events]
    if len({part.marked for part in filled}) > 1:
        has = ", ".join(name for name, part in parts.named().items() if part.num_events and part.marked)
        raise UserError(
            f"events: only {has} has marks; expected marks in all parts or in none; pass --data.mark-column none"
        )
    names = [part.mark_names for part in filled]
    if len(set(names)) <= 1:
        united = names[0] if names else ()
    else:
        united = in_order({name for group in names for name in group})
    return parts.map(
        lambda part: (
            part.with_mark_names(united)
            if part.num_events
            else replace(part, mark=np.zeros(0, dtype=np.int64) if united else None, mark_names=united)
        )
    )
