"""One long catalogue: sizes become marks, windows become sequences, and the parts follow one another in time."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from stcore.catalog import find, is_here
from stcore.errors import UserError
from stcore.events import EventSequences
from stcore.readers import read_event_parts, read_events
from stcore.readers.options import EventReadOptions
from stcore.splits import Parts


def _absolute(events: EventSequences) -> np.ndarray:
    """Return the absolute time of every event."""
    assert events.origin is not None
    elapsed = np.round(events.time * 86400e6).astype("timedelta64[us]")
    return events.origin[events.sequence_of_event()] + elapsed


def _assert_apart(parts: Parts[EventSequences], *, window: float, events: int) -> None:
    """Check that windows and parts do not overlap, that they are in order, and that no event is lost."""
    named = list(parts.named().values())
    assert sum(part.num_events for part in named) == events
    for part in named:
        assert part.num_events > 0 and part.time.max() <= window
        assert part.origin is not None and (np.diff(part.origin) >= np.timedelta64(round(window * 86400e6), "us")).all()
    for early, late in pairwise(named):
        assert early.origin is not None and late.origin is not None
        end = early.origin.max() + np.timedelta64(round(window * 86400e6), "us")
        assert _absolute(early).max() < end <= late.origin.min() <= _absolute(late).min()


def _catalogue(path: Path, events: int = 3000) -> Path:
    rng = np.random.default_rng(0)
    minutes = np.sort(rng.integers(0, 900 * 1440, events)).astype("timedelta64[m]")
    stamps = np.datetime64("2001-02-03T00:00") + minutes
    sizes = np.round(5.0 - np.log10(rng.random(events)), 1)
    rows = [f"{stamp},{rng.uniform(-60, 60):.3f},{rng.uniform(-180, 180):.3f},{size}"
            for stamp, size in zip(stamps, sizes, strict=True)]  # fmt: skip
    path.write_text("\n".join(["When,Latitude,Longitude,Magnitude", *rows]) + "\n")
    return path


def test_a_catalogue_becomes_windows_in_parts_that_do_not_overlap(tmp_path: Path) -> None:
    path = _catalogue(tmp_path / "quakes.csv")
    options = EventReadOptions(source=(str(path),), time_column="When", mark_column="Magnitude", mark_edges=(5.5, 6.5),
                               window=30.0)  # fmt: skip
    parts = read_event_parts(options)
    _assert_apart(parts, window=30.0, events=3000)
    assert parts.train.num_sequences == 24 and parts.val.num_sequences == parts.test.num_sequences == 3
    assert parts.test.mark_names == ("<5.5", "5.5-6.5", ">=6.5")


def test_sizes_are_cut_at_the_edges_and_classes_that_nobody_is_in_stay(tmp_path: Path) -> None:
    (tmp_path / "sizes.csv").write_text("time,x,y,size\n0,1,1,4.9\n1,2,2,5\n2,3,3,7.25\n")
    options = EventReadOptions(mark_column="size", mark_edges=(5.0, 6.0, 7.0))
    events = read_events(str(tmp_path / "sizes.csv"), options)
    assert events.mark_names == ("<5", "5-6", "6-7", ">=7")
    assert events.mark is not None and events.mark.tolist() == [0, 1, 3]


def test_missing_sizes_are_named_or_dropped(tmp_path: Path) -> None:
    (tmp_path / "sizes.csv").write_text("time,x,y,size\n0,1,1,4.9\n1,2,2,\n2,3,3,7\n")
    options = EventReadOptions(mark_column="size", mark_edges=(5.0,))
    with pytest.raises(UserError, match=r"row 3: size is missing"):
        read_events(str(tmp_path / "sizes.csv"), options)
    kept = read_events(
        str(tmp_path / "sizes.csv"), EventReadOptions(mark_column="size", mark_edges=(5.0,), missing="drop")
    )
    assert kept.mark is not None and kept.mark.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("options", "said"),
    [({"mark_column": "size", "mark_edges": (6.0, 5.0)}, "each above the one before"),
     ({"mark_column": "size", "mark_edges": (5.0, float("inf"))}, "finite numbers"),
     ({"mark_edges": (5.0,)}, "without data.mark-column"),
     ({"mark_column": "none", "mark_edges": (5.0,)}, "without data.mark-column")],
)  # fmt: skip
def test_wrong_edges_are_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        EventReadOptions(**options)  # pyright: ignore[reportArgumentType]


def test_sizes_are_for_tables_only(tmp_path: Path) -> None:
    (tmp_path / "events.json").write_text("[[[0, 1, 1, 1]]]")
    with pytest.raises(UserError, match=r"events.json: data.mark-edges for .json"):
        read_events(str(tmp_path / "events.json"), EventReadOptions(mark_column="mark", mark_edges=(0.5,)))


@pytest.mark.skipif(not os.environ.get("STCORE_DATA") or not is_here(find("world_quakes")),
                    reason="needs world_quakes under STCORE_DATA")  # fmt: skip
def test_the_catalogue_of_the_world_is_cut_by_time() -> None:
    options = EventReadOptions(source=("world_quakes",), mark_column="Magnitude", mark_edges=(6.0, 7.0))
    parts = read_event_parts(options)
    _assert_apart(parts, window=60.0, events=23_412)
    assert parts.train.mark_names == ("<6", "6-7", ">=7") and parts.train.coordinates == "degrees"
