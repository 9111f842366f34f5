"""The container of events: what it computes, what it refuses, what it finds odd."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from stcore.errors import UserError
from stcore.event_checks import overlaps
from stcore.events import EventSequences, concatenate, microseconds, unite_marks
from stcore.splits import Parts


def make(**changes: Any) -> EventSequences:
    """Three sequences of 3, 1 and 2 events with two marks."""
    fields: dict[str, Any] = {
        "time": [0.5, 1.0, 4.0, 2.0, 0.0, 3.0],
        "location": [[0.0, 1.0], [1.0, 2.0], [2.0, 0.5], [3.0, 1.0], [0.5, 1.5], [2.5, 2.5]],
        "offsets": [0, 3, 4, 6],
        "mark": [0, 1, 0, 0, 1, 1],
        "mark_names": ("red", "blue"),
    }
    return EventSequences(**{**fields, **changes})


def test_counts_gaps_and_positions() -> None:
    events = make()
    assert (events.num_sequences, events.num_events, events.num_marks, events.marked) == (3, 6, 2, True)
    assert events.lengths.tolist() == [3, 1, 2]
    assert events.gaps().tolist() == [0.5, 0.5, 3.0, 2.0, 0.0, 3.0]
    assert events.sequence_id == ("0", "1", "2")
    assert [events.position(i) for i in range(6)] == [(0, 0), (0, 1), (0, 2), (1, 0), (2, 0), (2, 1)]
    assert make(mark=None, mark_names=()).num_marks == 1


def test_empty_sequences_are_allowed_anywhere() -> None:
    events = make(offsets=[0, 0, 3, 3, 4, 6, 6])
    assert events.lengths.tolist() == [0, 3, 0, 1, 2, 0]
    assert events.gaps().tolist() == make().gaps().tolist()
    assert events.position(3) == (3, 0)


def test_arrays_are_read_only_copies() -> None:
    time = np.array([0.5, 1.0, 4.0, 2.0, 0.0, 3.0])
    events = make(time=time)
    time[0] = 9.0
    assert events.time[0] == 0.5
    with pytest.raises(ValueError, match="read-only"):
        events.location[0, 0] = 1.0


def test_select_takes_sequences_in_the_given_order() -> None:
    chosen = make().select([2, 0])
    assert chosen.time.tolist() == [0.0, 3.0, 0.5, 1.0, 4.0]
    assert chosen.sequence_id == ("2", "0") and chosen.mark_names == ("red", "blue")
    assert chosen.mark is not None and chosen.mark.tolist() == [1, 1, 0, 1, 0]
    assert make().select([]).num_sequences == 0


def test_concatenate_undoes_split() -> None:
    events = make()
    parts = events.split((0.4, 0.3, 0.3))
    whole = concatenate([parts.train, parts.val, parts.test])
    assert whole.sequence_id == events.sequence_id
    for name in ("time", "location", "offsets", "mark"):
        assert np.array_equal(getattr(whole, name), getattr(events, name))
    assert concatenate([events, events]).sequence_id == ("0/0", "0/1", "0/2", "1/0", "1/1", "1/2")


def test_windows_count_from_their_own_start() -> None:
    origin = np.array(["2024-01-01", "2024-02-01", "2024-03-01"], dtype="datetime64[us]")
    windows = make(origin=origin, time_unit="days").windows(2.0)
    assert windows.time.tolist() == [0.5, 1.0, 0.0, 0.0, 0.0, 1.0]
    assert windows.offsets.tolist() == [0, 2, 3, 4, 5, 6]
    assert windows.sequence_id == ("0@0", "0@2", "1@1", "2@0", "2@1")
    assert windows.origin is not None and [str(day)[:10] for day in windows.origin] == [
        "2024-01-01", "2024-01-05", "2024-02-03", "2024-03-01", "2024-03-03",
    ]  # fmt: skip


def test_marks_are_renumbered_by_name() -> None:
    events = make().with_mark_names(("blue", "green", "red"))
    assert events.mark is not None and events.mark.tolist() == [2, 0, 2, 2, 0, 0]
    with pytest.raises(UserError, match=r"mark 'blue' \(3 unknown marks\); expected one of red, green"):
        make().with_mark_names(("red", "green"))
    with pytest.raises(UserError, match="no marks; expected marks"):
        make(mark=None, mark_names=()).with_mark_names(("red",))


def test_marks_of_all_parts_get_one_numbering() -> None:
    one = make(mark=[0] * 6, mark_names=("10",))
    two = make(mark=[0, 1, 0, 0, 1, 1], mark_names=("9", "2"))
    parts = unite_marks(Parts(one, two, one.select([])))
    assert {part.mark_names for part in parts.named().values()} == {("2", "9", "10")}
    assert parts.val.mark is not None and parts.val.mark.tolist() == [1, 0, 1, 1, 0, 0]
    with pytest.raises(UserError, match="only train has marks; expected marks in all parts or in none"):
        unite_marks(Parts(one, make(mark=None, mark_names=()), one.select([])))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"time": [0.5, 0.4, 4.0, 2.0, 0.0, 3.0]}, "sequence '0', event 1: a time before"),
        ({"time": [-0.5, 1.0, 4.0, 2.0, 0.0, 3.0]}, "sequence '0', event 0: a negative time"),
        ({"time": [0.5, 1.0, np.nan, 2.0, 0.0, 3.0]}, "sequence '0', event 2: a time or coordinate that is not finite"),
        ({"time": [[0.5] * 6]}, "time of shape"),
        ({"time": ["a"] * 6}, "time of type"),
        ({"location": np.zeros((6, 3))}, "location of shape"),
        ({"location": np.zeros((5, 2))}, "location of shape"),
        ({"location": np.zeros((6, 2), complex)}, "location of type complex128"),
        ({"offsets": [0, 3, 5]}, "offsets from 0 to 5; expected from 0 to the number of events, 6"),
        ({"offsets": [0, 4, 3, 6]}, "offsets fall after sequence 1"),
        ({"offsets": []}, "offsets none"),
        ({"offsets": [0.0, 6.0]}, "offsets of type float64; expected integers"),
        ({"mark": [0, 1, 2, 0, 0, 0]}, "sequence '0', event 2: a mark without a name"),
        ({"mark": [0.5] * 6}, "mark of type float64; expected integers"),
        ({"mark": None}, "2 mark names; expected names exactly where there are marks"),
        ({"mark_names": ("red", "red")}, "mark name 'red' occurs twice"),
        ({"sequence_id": ("a", "b", "a")}, "sequence id 'a' occurs twice"),
        ({"sequence_id": ("a", "b")}, "2 sequence ids; expected 3"),
        ({"time_unit": ""}, "empty time unit"),
        ({"coordinates": "polar"}, "coordinates 'polar'"),
        ({"origin": np.array(["2024-01-01"], "datetime64[us]")}, "origin of shape"),
        ({"coordinates": "degrees", "location": [[0.0, 91.0]] * 6}, "a latitude beyond 90 .one of 6."),
        ({"coordinates": "degrees", "location": [[361.0, 0.0]] * 6}, "a longitude beyond 360"),
    ],
)
def test_wrong_events_are_refused_with_their_place(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        make(**changes)
    assert "expected" in str(caught.value) and "\n" not in str(caught.value)


def test_wrong_requests_are_refused() -> None:
    for request in (lambda: make().select([3]), lambda: make().windows(0.0), lambda: concatenate([]),
                    lambda: concatenate([make(), make(time_unit="days")]), lambda: microseconds("fortnights"),
                    lambda: make().select([0]).split((0.8, 0.1, 0.1))):  # fmt: skip
        with pytest.raises(UserError, match="expected"):
            request()


def test_describe_is_plain_and_complete() -> None:
    facts = make(time_unit="days").describe()
    assert facts["sequences"] == 3 and facts["events"] == 6 and facts["predicted_events"] == 3
    assert facts["length"] == {"min": 1.0, "mean": 2.0, "max": 3.0}
    assert facts["time"]["max"] == 4.0 and facts["x"]["max"] == 3.0
    assert facts["marks"] == {"red": 3, "blue": 3} and facts["mark_shares"] == {"red": 0.5, "blue": 0.5}


def clean(*, sequences: int = 20, length: int = 30, **changes: Any) -> EventSequences:
    """Events with nothing odd."""
    draw = np.random.default_rng(3)
    gaps = 0.05 + draw.exponential(size=(sequences, length))
    return EventSequences(
        **{
            "time": gaps.cumsum(axis=1).ravel(),
            "location": draw.normal(size=(sequences * length, 2)),
            "offsets": np.arange(0, sequences * length + 1, length),
            "mark": draw.integers(0, 3, sequences * length),
            "mark_names": ("a", "b", "c"),
            **changes,
        }
    )


def test_nothing_odd_is_found_in_ordinary_events() -> None:
    assert clean().check() == []


def changed(name: str, rows: slice | int, value: Any) -> dict[str, Any]:
    array = np.array(getattr(clean(), name))
    array[rows] = value
    return {name: array}


@pytest.mark.parametrize(
    ("events", "sentence"),
    [
        (clean(**changed("time", slice(1, 3), clean().time[0])), r"2 of 580 \(0.34 %\) gaps are zero"),
        (clean(**changed("time", 0, 0.0)), "1 of 20 .* sequences have an event at time 0"),
        (make(), r"1 of 3 .* one event, so nothing to predict: 1"),
        (make(offsets=[0, 3, 3, 6], time=[0.0, 1, 2, 0, 1, 2]), "sequences have no event: 1"),
        (clean(mark_names=("a", "b", "c", "d")), "1 of 4 marks never occur: d"),
        (clean(mark_names=("a", "b", "c", "d"), **changed("mark", 5, 3)), r"1 of 4 marks are rare: d \(1 events\)"),
        (clean(mark=np.zeros(600, dtype=np.int64), mark_names=("a",)), "all events carry the mark a"),
        (clean(location=np.column_stack([np.ones(600), clean().location[:, 1]])), "x is constant at 1"),
        (clean(location=clean().location + 1e7), "x spans .* single precision blurs it"),
        (clean(location=np.add(clean().location, [35.0, 139.0])), "latitude and longitude are swapped"),
        (clean(location=np.zeros((600, 2)), coordinates="degrees"), r"600 of 600 .* at exactly 0, 0 degrees"),
        (clean(location=clean().location * 100.0 * [1, 0.1], coordinates="degrees"), "both -180 and 180"),
        (
            clean(location=np.add(clean().location, [200.0, 0.0]), coordinates="degrees"),
            "longitude reaches 20.*, beyond 180",
        ),
        (clean(time=clean().time + 1.7e9), "look like seconds since 1970"),
        (clean(location=np.repeat(clean().location[:60], 10, axis=0)), "lie at only 60 places"),
        (clean(**changed("time", 1, clean().time[0] + 1e-8)), "orders of magnitude"),
    ],
)
def test_oddities_are_named(events: EventSequences, sentence: str) -> None:
    assert any(re.search(sentence, found) for found in events.check())


def test_duplicates_overlaps_and_uneven_lengths_are_named() -> None:
    events = clean()
    twice = replace(events, offsets=np.array([0, 300, 600]), time=np.tile(np.arange(300.0), 2),
                    location=np.tile(events.location[:300], (2, 1)), mark=np.tile(np.array(events.mark)[:300], 2),
                    sequence_id=("a", "b"))  # fmt: skip
    assert any("sequences look like overlapping windows" in found for found in twice.check())
    assert overlaps(Parts(events, events.select([0, 1]), events.select([]))) == [
        "58 of 58 transitions of val also occur in train: the same events were seen before"
    ]
    same = clean(**(changed("time", 1, clean().time[0]) | changed("location", 1, clean().location[0])
                    | changed("mark", 1, np.array(clean().mark)[0])))  # fmt: skip
    assert any("1 of 600" in found and "duplicates" in found for found in same.check())
    uneven = EventSequences(time=np.arange(1.0, 61.0), location=clean().location[:60], offsets=[0, 2, 4, 6, 60])
    assert any("lengths differ much: sequence 3 has 54 events, the median is 2" in found for found in uneven.check())
    assert make().select([]).check() == ["0 sequences and no event: there is nothing to learn from"]
