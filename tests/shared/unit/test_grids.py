"""The container of frames: what it refuses, how it hands frames out, where windows lie, and what is said to be odd."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stcore.errors import UserError
from stcore.grids import GridSeries, concatenate
from stcore.time_steps import breaks, step_of, step_words
from stcore.windows import find_windows


def counted(count: int = 12, channels: int = 1, height: int = 9, width: int = 10, dtype: Any = np.uint16) -> GridSeries:
    """Return frames whose every value is the number of the frame."""
    values = np.broadcast_to(np.arange(count).reshape(-1, 1, 1, 1), (count, channels, height, width)).astype(dtype)
    return GridSeries(values=values)


def days(count: int, start: str = "2024-01-01") -> np.ndarray[Any, Any]:
    return np.datetime64(start) + np.arange(count)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"values": np.zeros((3, 4, 5))}, r"shape \(3, 4, 5\); expected four axes"),
        ({"values": np.zeros((3, 1, 4, 5), np.complex64)}, "complex64; expected real numbers"),
        ({"values": "abc"}, "values are a str; expected an array"),
        ({"values": np.zeros((3, 0, 4, 5))}, "expected at least one channel, row and column"),
        ({"times": days(2)}, r"times of shape \(2,\); expected \(3,\)"),
        ({"times": days(3)[[0, 2, 1]]}, "frame 2 has 2024-01-02.*, before 2024-01-03.*expected rising times"),
        ({"times": days(3)[[0, 1, 1]]}, "frame 2 has the same time as the frame before it"),
        ({"clip": [0, 1, 0]}, "clip number 0 at frame 2; expected 0, 1, … in order"),
        ({"clip": [1, 1, 1]}, "clip number 1 at frame 0"),
        ({"channels": ("a",)}, "1 channel names; expected 2"),
        ({"channels": ("a", "a")}, "channel name 'a' occurs twice"),
        ({"units": ("K", "K", "K")}, "3 units; expected one for each of 2 channels"),
        ({"mask": np.zeros((4, 5), np.bool_)}, "mask is False everywhere"),
        ({"mask": np.ones((4, 4), np.bool_)}, r"mask of shape \(4, 4\); expected \(4, 5\)"),
        ({"mask": np.ones((4, 5))}, "mask of type float64; expected True where there is data"),
        ({"y": np.zeros(5)}, r"coordinate y of shape \(5,\); expected \(4,\)"),
        ({"value_range": (1.0, 0.0)}, "expected the lower bound first"),
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        GridSeries(**({"values": np.zeros((3, 2, 4, 5))} | fields))


def test_a_series_is_read_only_and_leaves_the_array_it_was_given_writable() -> None:
    given = np.zeros((3, 1, 4, 5))
    series = GridSeries(values=given)
    assert not series.values.flags.writeable and given.flags.writeable
    given[0] = 1.0  # a view, never a copy
    assert series.frames([0]).max() == 1.0


def test_frames_are_float32_and_missing_cells_are_nan() -> None:
    mask = np.ones((9, 10), np.bool_)
    mask[0, 3] = False
    series = GridSeries(values=counted().values, mask=mask)
    frames = series.frames([7, 2])
    assert frames.dtype == np.float32 and np.isnan(frames[:, :, 0, 3]).all()
    assert np.nanmin(frames[0]) == np.nanmax(frames[0]) == 7.0
    assert series.valid([1]).sum() == 89 and series.raw([1])[0, 0, 0, 3] == 1
    with pytest.raises(UserError, match="frames 3 to 12; expected 0 to 11"):
        series.frames([3, 12])


def test_selecting_keeps_numbers_names_and_times_together() -> None:
    series = GridSeries(values=counted().values, clip=[0] * 5 + [1] * 4 + [2] * 3, clip_names=("a", "b", "c"),
                        times=days(12))  # fmt: skip
    part = series.select([1, 2, 10, 11])
    assert part.frames(range(4))[:, 0, 0, 0].tolist() == [1.0, 2.0, 10.0, 11.0]
    assert part.clip_names == ("a", "c") and part.clip_numbers.tolist() == [0, 0, 1, 1]
    assert part.times is not None and str(part.times[2].astype("M8[D]")) == "2024-01-11"
    again = part.select(slice(1, 3))
    assert again.frames(range(2))[:, 0, 0, 0].tolist() == [2.0, 10.0]
    assert series.select_clips([1]).frames([0])[0, 0, 0, 0] == 5.0
    with pytest.raises(UserError, match="expected rising"):
        series.select([2, 1])


def test_joining_gives_clips_one_after_another() -> None:
    first, second = counted(4), counted(3)
    both = concatenate([first, second])
    assert both.frames(range(7))[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert both.clip_names == ("0/0", "1/0") and both.clip_numbers.tolist() == [0] * 4 + [1] * 3
    with pytest.raises(UserError, match="part 1 has shape"):
        concatenate([first, counted(3, width=4)])


def test_steps_follow_the_calendar() -> None:
    one = np.zeros(5, np.int64)
    months = np.array(["2020-01-01", "2020-02-01", "2020-03-01", "2020-04-01", "2020-05-01"], "M8[us]")
    years = np.array(["1999", "2000", "2001", "2002", "2003"], "M8[Y]").astype("M8[us]")
    hours = np.datetime64("2020-01-01", "us") + np.array([0, 1, 2, 5, 6]) * np.timedelta64(1, "h")
    assert [step_words(step_of(times, one)) for times in (months, years, hours)] == ["1 months", "1 years", "1 hours"]
    assert [breaks(times, one).tolist() for times in (months, years, hours)] == [[], [], [3]]
    assert breaks(hours, np.array([0, 0, 0, 1, 1])).tolist() == []


def test_windows_cross_neither_clips_nor_gaps() -> None:
    times = days(12).astype("M8[us]")
    times[8:] += np.timedelta64(3, "D")
    series = GridSeries(values=counted().values, clip=[0] * 5 + [1] * 7, times=times, clip_names=("a", "b"))
    windows = find_windows(series, history=2, horizon=1)
    assert windows.starts.tolist() == [0, 1, 2, 5, 8, 9]
    assert windows.names(np.array([0, 3, 5])) == ["a@0", "b@0", "b@4"]
    history, future = windows.load(np.array([4, 1]))
    assert history[:, :, 0, 0, 0].tolist() == [[8.0, 9.0], [1.0, 2.0]] and future[:, 0, 0, 0, 0].tolist() == [10.0, 3.0]
    moments = windows.times(np.array([4]))
    assert moments is not None and str(moments[0, 0].astype("M8[D]")) == "2024-01-12"
    assert len(find_windows(series, history=2, horizon=1, stride=2)) == 4
    assert len(find_windows(series, history=5, horizon=0)) == 1
    with pytest.raises(UserError, match=r"b: 12 frames in 2 clips, the longest .* has 5; expected at least 6"):
        find_windows(series, history=4, horizon=2, where="b")
    with pytest.raises(UserError, match=r"data\.stride: 0"):
        find_windows(series, history=1, horizon=1, stride=0)


def test_kth_windows_are_counted_from_the_end_by_class() -> None:
    names = ("boxing/person01_boxing_d1", "running/person01_running_d1")
    series = GridSeries(values=counted(50).values, clip=[0] * 25 + [1] * 25, clip_names=names)
    windows = find_windows(series, history=5, horizon=5, rule="kth")
    assert windows.starts.tolist() == [5, 15, 25, 28, 31, 34, 37, 40]


def test_writing_and_reading_give_the_same_series(tmp_path: Path) -> None:
    mask = np.ones((9, 10), np.bool_)
    mask[2, 2] = False
    series = GridSeries(
        values=counted(6, 2).values, times=days(6), clip=[0, 0, 0, 1, 1, 1], channels=("in", "out"), units=("K",),
        y=np.linspace(50, 58, 9), x=np.arange(10.0), mask=mask, clip_names=("a", "b"), value_range=(0, 9),
        known_step=np.timedelta64(1, "D"),
    )  # fmt: skip
    for ending in (".npz", ".zarr"):
        series.write(tmp_path / f"a{ending}")
        read = GridSeries.read(tmp_path / f"a{ending}")
        assert read.shape == series.shape and read.values.dtype == np.uint16
        np.testing.assert_array_equal(read.frames(range(6)), series.frames(range(6)))
        for name in ("times", "clip", "y", "x", "mask"):
            np.testing.assert_array_equal(getattr(read, name), getattr(series, name))
        for name in ("channels", "units", "clip_names", "value_range", "known_step"):
            assert getattr(read, name) == getattr(series, name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "a.zarr"]
    with pytest.raises(UserError, match=r"ending '\.csv'; expected \.npz or \.zarr"):
        series.write(tmp_path / "a.csv")
    with pytest.raises(UserError, match="is there already"):
        series.write(tmp_path / "a.zarr")


def smooth(count: int, height: int, width: int) -> np.ndarray[Any, Any]:
    place = np.arange(height * width).reshape(1, 1, height, width)
    return np.sin(0.3 * np.arange(count).reshape(-1, 1, 1, 1) + place).astype(np.float32)


def changed(values: np.ndarray[Any, Any], at: Any, value: float) -> np.ndarray[Any, Any]:
    values[at] = value
    return values


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"values": np.full((30, 1, 8, 9), 5.0)}, "channel 0 is constant at 5"),
        ({"values": changed(smooth(30, 8, 9), (3, 0, 1, 2), np.nan)}, "1 of 2,160 .* not finite .* frame 3, "),
        ({"values": 3 * smooth(30, 8, 9), "value_range": (-1, 1)}, "outside the declared range -1 to 1, first"),
        ({"values": smooth(30, 2, 9)}, "frames of 2 x 9 .* are tiny"),
        ({"values": smooth(30, 8, 200)}, "very long: time may be in the place"),
        ({"values": smooth(9, 9, 60)}, "as many frames as rows .* time and space swapped"),
        ({"values": np.repeat(smooth(30, 8, 9), 70, 1)}, "70 channels on 8 x 9"),
        ({"values": np.repeat(smooth(15, 8, 9), 2, 0)}, r"15 of 29 .* frames equal the frame before them"),
        ({"values": smooth(5, 8, 9)}, "only 5 frames in all"),
        ({"values": smooth(30, 8, 9), "times": np.r_[days(20), days(10, "2024-03-01")]}, "41 days pass .* frame 20"),
        ({"values": smooth(30, 8, 9), "times": np.datetime64("2024-01-01", "us") + np.cumsum(
            np.arange(30) % 3 + 1).astype("m8[h]")}, "steps between frames are irregular"),
        ({"values": smooth(30, 8, 9), "y": [3, 2, 1, 0, 9, 8, 7, 6]}, "neither rise nor fall throughout, first at 4"),
        ({"values": smooth(30, 8, 9), "y": np.linspace(100, 140, 8), "x": np.linspace(30, 40, 9)}, "are swapped"),
        ({"values": changed(smooth(30, 8, 9), (slice(None), 0, 0), 0.0)}, "9 of 72 .* cells never change"),
        ({"values": np.round(127.5 + 127.4 * smooth(90, 8, 9))}, "8-bit grey values: declare the range 0 to 255"),
        ({"values": smooth(30, 8, 9), "clip": [0] * 29 + [1]}, "1 of 2 .* clips have a single frame: 1"),
        ({"values": np.concatenate([smooth(30, 8, 9), 1e6 + smooth(30, 8, 9)], 1)}, "scale each by itself"),
    ],
)  # fmt: skip
def test_what_is_odd_is_said_in_words(fields: dict[str, Any], words: str) -> None:
    import re

    found = GridSeries(**fields).check()
    assert any(re.search(words, sentence) for sentence in found), found


def test_nothing_is_odd_about_smooth_moving_frames() -> None:
    assert GridSeries(values=smooth(60, 16, 12), times=days(60)).check() == []


def test_a_description_is_plain_and_right() -> None:
    facts = GridSeries(values=counted(12).values, times=days(12), units=("K",)).describe()
    assert facts["frames"] == 12 and facts["step"] == "1 days" and facts["gaps"] == 0
    assert facts["values"] == {"0": {"min": 0.0, "mean": 5.5, "max": 11.0}}
