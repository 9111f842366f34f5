"""Laws of the container, of its files and of the scalers, for any events."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stcore.events import EventSequences, concatenate
from stcore.scaling import LogTransform, MinMaxScaler, StandardScaler
from stcore.splits import cut

FINITE = st.floats(-1e9, 1e9, allow_subnormal=False)
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=6)


@st.composite
def event_sequences(draw: st.DrawFn) -> EventSequences:
    lengths = draw(st.lists(st.integers(0, 5), min_size=1, max_size=5).filter(any))
    count = sum(lengths)
    times = [np.sort(draw(arrays(np.float64, size, elements=st.floats(0.0, 1e9)))) for size in lengths]
    names = draw(st.lists(WORDS.filter(_is_name), min_size=0, max_size=4, unique=True))
    fields: dict[str, Any] = {}
    if names:
        fields = {
            "mark": draw(arrays(np.int64, count, elements=st.integers(0, len(names) - 1))),
            "mark_names": tuple(names),
        }
    if draw(st.booleans()):
        fields["origin"] = draw(arrays(np.int64, len(lengths), elements=st.integers(-(10**14), 10**14))).astype(
            "M8[us]"
        )
        fields["time_unit"] = "hours"
    return EventSequences(
        time=np.concatenate(times), location=draw(arrays(np.float64, (count, 2), elements=FINITE)),
        offsets=np.cumsum([0, *lengths]), **fields,
    )  # fmt: skip


def _is_name(word: str) -> bool:
    """Return whether a CSV cell of this word is the same word again: no number, nothing that means missing."""
    from stcore.readers.tables import _MISSING, _is_number

    return not _is_number(word) and word not in _MISSING and '"' not in word


def same(one: EventSequences, two: EventSequences) -> bool:
    arrays_equal = all(
        np.array_equal(getattr(one, name), getattr(two, name))
        for name in ("time", "location", "offsets", "mark", "origin")
    )
    return arrays_equal and all(
        getattr(one, name) == getattr(two, name) for name in ("mark_names", "sequence_id", "time_unit", "coordinates")
    )


@settings(max_examples=60, deadline=None)
@given(event_sequences(), st.sampled_from([".csv", ".parquet", ".npz"]))
def test_reading_undoes_writing(events: EventSequences, ending: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"events{ending}"
        events.write(path)
        assert same(EventSequences.read(path), events)


@settings(max_examples=60, deadline=None)
@given(event_sequences())
def test_gaps_sum_to_times_and_selecting_all_changes_nothing(events: EventSequences) -> None:
    for start, end in zip(events.offsets[:-1], events.offsets[1:], strict=True):
        np.testing.assert_allclose(np.cumsum(events.gaps()[start:end]), events.time[start:end], rtol=1e-12)
    assert same(events.select(range(events.num_sequences)), events)
    halves = [events.select(range(1)), events.select(range(1, events.num_sequences))]
    assert same(concatenate(halves), events)
    assert all(isinstance(sentence, str) for sentence in events.check())


@settings(max_examples=60, deadline=None)
@given(event_sequences(), st.floats(1e-3, 1e9))
def test_windows_keep_every_event_inside_its_window(events: EventSequences, length: float) -> None:
    windows = events.windows(length)
    assert windows.num_events == events.num_events and (windows.lengths > 0).all()
    assert np.array_equal(windows.location, events.location)
    assert (windows.time >= 0.0).all() and (windows.time <= length * (1 + 1e-9) + 1e-6).all()


@given(st.integers(3, 500), st.floats(0.1, 0.8), st.floats(0.1, 0.9))
def test_parts_are_in_order_and_never_far_from_their_share(count: int, train: float, rest: float) -> None:
    shares = (train, (1.0 - train) * rest, (1.0 - train) * (1.0 - rest))
    parts = cut(count, shares, where="x", things="things").named()
    assert [index for part in parts.values() for index in part] == list(range(count))
    assert all(len(part) >= 1 for part in parts.values())
    assert all(abs(len(part) - share * count) < 3.0 for part, share in zip(parts.values(), shares, strict=True))


ROWS = arrays(np.float64, st.tuples(st.integers(1, 8), st.just(3)), elements=FINITE)


@given(ROWS)
def test_scalers_undo_themselves(rows: Any) -> None:
    for scaler in (MinMaxScaler.fit(rows), StandardScaler.fit(rows)):
        size = np.abs(rows).max() + 1e-300
        np.testing.assert_allclose(scaler.inverse(scaler.transform(rows)), rows, rtol=1e-12, atol=1e-9 * size)
        tensor = torch.from_numpy(rows)
        assert np.array_equal(scaler.transform(tensor).numpy(), scaler.transform(rows))


@given(ROWS)
def test_the_fitted_rows_lie_in_the_unit_interval(rows: Any) -> None:
    scaled = MinMaxScaler.fit(rows).transform(rows)
    assert scaled.min() >= 0.0 and scaled.max() <= 1.0


@given(arrays(np.float64, 5, elements=st.floats(1e-4, 1e9)))
def test_the_logarithm_is_undone_above_its_floor(values: Any) -> None:
    transform = LogTransform(1e-4)
    np.testing.assert_allclose(transform.inverse(transform.transform(values)), values, rtol=1e-12)
