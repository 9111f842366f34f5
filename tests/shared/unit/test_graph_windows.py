"""Windows, few-shot days and parts by the clock: nothing crosses a gap, a closed night or a border."""

from __future__ import annotations

import os
from itertools import pairwise

import numpy as np
import pytest

from stcore.errors import UserError
from stcore.graph_windows import SplitKind, few_shot, require_windows, split_graph, window_starts
from stcore.graphs import Adjacency, GraphSeries

MONDAY = np.datetime64("2024-01-01T00:00:00", "s")
HOUR = np.timedelta64(3600, "s")


def series_of(times: np.ndarray | None = None, steps: int = 0, step_seconds: int | None = None) -> GraphSeries:
    """One node whose readings are the numbers of the steps."""
    count = steps if times is None else len(times)
    return GraphSeries(values=np.arange(float(count)).reshape(count, 1, 1), adjacency=Adjacency.empty(1), times=times,
                       step_seconds=step_seconds, name="town")  # fmt: skip


def hours(*days: int, first: int = 0, last: int = 24) -> np.ndarray:
    """Return the hours of these days from `first` to before `last`."""
    return np.concatenate([MONDAY + HOUR * (24 * day + np.arange(first, last)) for day in days])


@pytest.mark.parametrize("seed", range(20))
def test_windows_are_all_that_lie_within_one_run(seed: int) -> None:
    rng = np.random.default_rng(seed)
    kept = np.flatnonzero(rng.uniform(size=200) < 0.9)
    history, horizon, stride = (int(rng.integers(1, 6)) for _ in range(3))
    series = series_of(MONDAY + HOUR * kept)
    length = history + horizon
    whole = [start for start in range(len(kept) - length + 1) if kept[start + length - 1] - kept[start] == length - 1]
    assert window_starts(series, history, horizon).tolist() == whole
    thinned = window_starts(series, history, horizon, stride)
    assert set(thinned.tolist()) <= set(whole)
    edges = [0, *(np.flatnonzero(np.diff(kept) > 1) + 1), len(kept)]
    count = sum(len(range(start, stop - length + 1, stride)) for start, stop in pairwise(edges))
    assert len(thinned) == count


def test_windows_of_closed_nights_stay_within_a_day() -> None:
    series = series_of(hours(0, 1, 2, first=5, last=23))
    starts = window_starts(series, 12, 6)
    assert starts.tolist() == [0, 18, 36]  # a day of 18 hours holds one window of 12 + 6
    assert window_starts(series, 12, 7).size == 0
    with pytest.raises(UserError, match=r"town: target of 54 steps, 18 at most without a gap; expected at least 19"):
        require_windows(series, 12, 7, what="target")
    np.testing.assert_array_equal(require_windows(series, 12, 6), starts)
    for changed, name in (((0, 6, 1), "history"), ((12, 0, 1), "horizon"), ((12, 6, 0), "stride")):
        with pytest.raises(UserError, match=f"windows: {name} 0; expected at least 1"):
            window_starts(series, *changed)


def test_few_shot_days_are_counted_by_the_clock_whatever_the_step() -> None:
    for seconds in (300, 600, 3600):
        part = series_of(steps=10 * 86_400 // seconds, step_seconds=seconds)
        assert len(few_shot(part, 3)) == 3 * 86_400 // seconds
        assert few_shot(part, 3).values[-1, 0, 0] == len(part) - 1
    dated = series_of(hours(*range(10)))
    assert len(few_shot(dated, 7)) == 7 * 24 and few_shot(dated, 7).first_step == 72
    # A part that ends in the middle of a day still gives whole days, counted back from its end.
    assert len(few_shot(dated.slice(0, 7 * 24 + 5), 2)) == 48


def test_days_without_a_step_are_no_days() -> None:
    weekdays = series_of(hours(0, 1, 2, 3, 4, 7, 8, first=5, last=23))
    chosen = few_shot(weekdays, 3)
    assert chosen.times is not None and len(chosen) == 3 * 18
    assert str(chosen.times[0]) == "2024-01-05T05:00:00"  # Friday, then Monday and Tuesday
    gap = series_of(hours(0, 1, 2, 6, 7))
    assert len(few_shot(gap, 3)) == 72 and few_shot(gap, 5).first_step == 0


def test_fewer_days_than_asked_for_are_refused() -> None:
    for part, held in ((series_of(steps=60, step_seconds=3600), 2), (series_of(hours(0, 1, 2)), 3),
                       (series_of(hours(0, 1, 2)[5:]), 2), (series_of(hours(0, 2, first=5, last=23)), 2)):  # fmt: skip
        with pytest.raises(UserError, match=rf"town: {len(part)} steps hold {held} days; expected at least 4"):
            few_shot(part, 4)
    with pytest.raises(UserError, match="days: 0; expected at least 1"):
        few_shot(series_of(hours(0)), 0)
    with pytest.raises(UserError, match=r"town: time step not known.*--data.step"):
        few_shot(series_of(steps=50), 1)


def test_the_three_ways_to_split() -> None:
    series = series_of(steps=1000, step_seconds=3600)
    parts = split_graph(series, "gpd")
    assert [(int(p.values[0, 0, 0]), len(p)) for p in parts.named().values()] == [(300, 630), (930, 70), (0, 300)]
    forward = split_graph(series, "chronological")
    assert [(int(p.values[0, 0, 0]), len(p)) for p in forward.named().values()] == [(0, 700), (700, 100), (800, 200)]
    odd = split_graph(series_of(steps=2016, step_seconds=300), "legacy")
    assert [len(part) for part in odd.named().values()] == [2016 - 604, 0, 604]
    assert odd.train.first_step == 604 and odd.test.first_step == 0


@pytest.mark.parametrize("kind", ["gpd", "chronological"])
@pytest.mark.parametrize("steps", [18, 40, 365, 2016, 2700])
def test_parts_cover_the_series_once_and_are_shares_of_rows_where_no_time_is_missing(
    kind: SplitKind, steps: int
) -> None:
    dated = split_graph(series_of(MONDAY + HOUR * np.arange(steps)), kind)
    plain = split_graph(series_of(steps=steps, step_seconds=3600), kind)
    for one, other in zip(dated.named().values(), plain.named().values(), strict=True):
        np.testing.assert_array_equal(one.values, other.values)
    seen = np.concatenate([part.values.reshape(-1) for part in plain.named().values()])
    assert sorted(seen.tolist()) == list(range(steps))


def test_parts_are_cut_by_the_clock_where_time_is_missing() -> None:
    series = series_of(hours(*range(3), *range(8, 10)))  # ten days of which five are there
    with pytest.raises(UserError, match="town: 120 steps; expected enough for train, val and test; val has none"):
        split_graph(series, "chronological")
    test = split_graph(series, "gpd").test
    assert len(test) == 72 and test.times is not None and str(test.times[-1]) == "2024-01-03T23:00:00"


def test_a_series_too_short_for_three_parts_is_refused() -> None:
    with pytest.raises(UserError, match="town: 2 steps; expected enough for train, val and test"):
        split_graph(series_of(steps=2, step_seconds=300), "gpd")


@pytest.mark.skipif(not os.environ.get("STCORE_DATA"), reason="STCORE_DATA is not set: no published data here")
def test_the_subway_is_cut_at_nights() -> None:
    series = GraphSeries.read("beijing_subway")
    parts = split_graph(series, "chronological")
    for part in parts.named().values():
        assert len(part) % 108 == 0
    assert len(window_starts(parts.test, 12, 6)) == 5 * (108 - 17) and len(few_shot(parts.train, 3)) == 3 * 108
