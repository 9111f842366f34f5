"""What is odd about a set of events, in words: not wrong enough to refuse, but worth knowing before training."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from stcore.events import EventSequences
from stcore.splits import Parts

_RARE_EVENTS = 10
_RARE_SHARE = 1e-3


def oddities(events: EventSequences) -> list[str]:
    """Return one sentence for everything odd about `events`, most serious first."""
    if not events.num_events:
        return [f"{events.num_sequences} sequences and no event: there is nothing to learn from"]
    checks: tuple[Callable[[EventSequences], Iterator[str]], ...] = (_lengths, _time, _repeats, _place, _marks)
    return [sentence for check in checks for sentence in check(events)]


def overlaps(parts: Parts[EventSequences]) -> list[str]:
    """Return one sentence for each pair of parts that share transitions: the same gap, mark and place."""
    keys = {name: _transitions(part) for name, part in parts.named().items()}
    taken = {name: _moving(part, keys[name]) for name, part in parts.named().items()}
    found: list[str] = []
    for later, earlier in (("val", "train"), ("test", "train"), ("test", "val")):
        shared = int(np.isin(taken[later], taken[earlier]).sum())
        if shared:
            found.append(
                f"{shared:,} of {len(keys[later]):,} transitions of {later} also occur in {earlier}: "
                "the same events were seen before"
            )
    return found


def _transitions(events: EventSequences) -> NDArray[np.void]:
    """Return gap, mark and place of every event but the first of each sequence, as one comparable item each."""
    mark = np.zeros(events.num_events) if events.mark is None else events.mark.astype(np.float64)
    rows = np.column_stack([events.gaps(), mark, events.location]) + 0.0  # -0 and 0 are the same place
    return _items(rows[_later(events)])


def _later(events: EventSequences) -> NDArray[np.bool_]:
    """Return where an event has one before it in its sequence."""
    later = np.ones(events.num_events, dtype=np.bool_)
    later[events.offsets[:-1][events.lengths > 0]] = False
    return later


def _moving(events: EventSequences, transitions: NDArray[np.void]) -> NDArray[np.void]:
    """Return the transitions with a gap above 0: those without coincide by chance."""
    return transitions[events.gaps()[_later(events)] > 0.0]


def _items(rows: NDArray[np.float64]) -> NDArray[np.void]:
    rows = np.ascontiguousarray(rows)
    return rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).reshape(-1)


def _share(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} ({100.0 * part / max(1, whole):.2g} %)"


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def _lengths(events: EventSequences) -> Iterator[str]:
    lengths, ids = events.lengths, events.sequence_id
    for count, words in ((0, "no event"), (1, "one event, so nothing to predict")):
        if (few := np.flatnonzero(lengths == count)).size:
            yield f"{_share(len(few), len(lengths))} sequences have {words}: {_some([ids[i] for i in few])}"
    median = float(np.median(lengths))
    if lengths.max() > 5.0 * max(1.0, median):
        longest = int(lengths.argmax())
        yield f"lengths differ much: sequence {ids[longest]} has {lengths.max():,} events, the median is {median:g}"


def _time(events: EventSequences) -> Iterator[str]:
    gaps = events.gaps()
    first = ~_later(events)
    later = gaps[~first]
    if zero := int((later == 0.0).sum()):
        yield f"{_share(zero, len(later))} gaps are zero (events at the same time): a logarithm takes them at its floor"
    if at_start := int((events.time[first] == 0.0).sum()):
        yield f"{_share(at_start, int(first.sum()))} sequences have an event at time 0"
    positive = later[later > 0.0]
    if positive.size and (orders := float(np.log10(positive.max()) - np.log10(positive.min()))) > 6.0:
        reach = f"{positive.min():.3g} to {positive.max():.3g} {events.time_unit}"
        yield f"gaps span {orders:.1f} orders of magnitude, {reach}"
    if later.size and later.max() > 0.0 and (start := float(np.median(events.time[first]))) > 100.0 * later.max():
        hint = "; these look like seconds since 1970" if 1e8 < start < 4e9 else ""
        yield (
            f"sequences start at about time {start:.6g}, far above the longest gap {later.max():.3g}: "
            f"times are expected since the start of the sequence{hint}"
        )


def _repeats(events: EventSequences) -> Iterator[str]:
    mark = np.zeros(events.num_events) if events.mark is None else events.mark.astype(np.float64)
    rows = np.column_stack([events.sequence_of_event().astype(np.float64), events.time, mark, events.location]) + 0.0
    if (twice := events.num_events - len(np.unique(_items(rows)))) > 0:
        yield f"{_share(twice, events.num_events)} events are duplicates: same sequence, time, mark and place"
    steps = _transitions(events)
    moving = _moving(events, steps)
    distinct = len(np.unique(moving))
    if distinct < 0.95 * len(moving) and events.num_sequences > 1:
        yield (
            f"only {distinct:,} of {len(moving):,} transitions (gap, mark, place) are distinct: sequences look like "
            "overlapping windows, so a random split would leak"
        )


def _place(events: EventSequences) -> Iterator[str]:
    names = ("longitude", "latitude") if events.coordinates == "degrees" else ("x", "y")
    low, high = events.location.min(axis=0), events.location.max(axis=0)
    for name, bottom, top in zip(names, low, high, strict=True):
        size = max(abs(bottom), abs(top))
        if bottom == top:
            yield f"{name} is constant at {bottom:g}"
        elif (top - bottom) < 1e-4 * size:
            yield f"{name} spans {top - bottom:.3g} around {size:.6g}: single precision blurs it; subtract an offset"
    reach_x, reach_y = np.abs(events.location).max(axis=0)
    if events.coordinates == "planar" and reach_x <= 90.0 < reach_y <= 180.0:
        yield (
            f"x stays within 90 and y reaches {reach_y:g}: if these are degrees, latitude and longitude are swapped "
            "(longitude comes first)"
        )
    if events.coordinates == "degrees":
        if reach_x > 180.0:
            yield f"longitude reaches {reach_x:g}, beyond 180: two ways of counting may be mixed"
        if (at_zero := int((events.location == 0.0).all(axis=1).sum())) > 0:
            yield f"{_share(at_zero, events.num_events)} events lie at exactly 0, 0 degrees: often a missing place"
        if low[0] < -170.0 and high[0] > 170.0:
            yield "longitudes reach both -180 and 180: places that are near on the sphere are far apart here"
    distinct = len(np.unique(_items(events.location + 0.0)))
    if distinct < 0.2 * events.num_events:
        yield f"{events.num_events:,} events lie at only {distinct:,} places: a smooth density cannot be exact"


def _marks(events: EventSequences) -> Iterator[str]:
    if events.mark is None:
        return
    counts = np.bincount(events.mark, minlength=events.num_marks)
    if unseen := [events.mark_names[i] for i in np.flatnonzero(counts == 0)]:
        yield f"{len(unseen)} of {events.num_marks} marks never occur: {_some(unseen)}"
    rare = [i for i in np.flatnonzero(counts) if counts[i] < max(_RARE_EVENTS, _RARE_SHARE * events.num_events)]
    if rare:
        yield f"{len(rare)} of {events.num_marks} marks are rare: " + _some(
            [f"{events.mark_names[i]} ({counts[i]:,} events)" for i in rare]
        )
    if (counts > 0).sum() == 1:
        yield f"all events carry the mark {events.mark_names[int(counts.argmax())]}: it says nothing"
