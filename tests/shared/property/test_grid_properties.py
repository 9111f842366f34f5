"""Series survive writing and reading, windows stay within clips and steps, and mutated files are read or refused."""

from __future__ import annotations

import io
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stcore.errors import UserError
from stcore.grids import GridSeries
from stcore.readers.grid_options import GridReadOptions
from stcore.readers.grids import read_grid
from stcore.windows import find_windows

TYPES = (np.uint8, np.int16, np.float32, np.float64, np.float16)


def counted(few: int) -> list[Any]:
    return [few, pytest.param(5000, marks=pytest.mark.campaign)]


def quiet(count: int) -> settings:
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
    return settings(max_examples=count, deadline=None, suppress_health_check=checks, database=None, derandomize=True)


@st.composite
def series_of_frames(draw: st.DrawFn) -> GridSeries:
    """Draw a small series of any type, with or without clips, times, mask and coordinates."""
    count, channels = draw(st.integers(1, 20)), draw(st.integers(1, 3))
    height, width = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    clip = np.cumsum(random.random(count) < draw(st.sampled_from([0.0, 0.3])))
    steps = random.choice([1, 1, 1, 5], count) if draw(st.booleans()) else np.ones(count, np.int64)
    mask = random.random((height, width) if draw(st.booleans()) else (count, channels, height, width)) < 0.8
    return GridSeries(
        values=(100 * random.random((count, channels, height, width))).astype(draw(st.sampled_from(TYPES))),
        times=np.datetime64("2024-05-01", "us") + np.cumsum(steps) * np.timedelta64(1, "h"),
        clip=clip - clip[0],
        mask=mask if draw(st.booleans()) and mask.any() else None,
        y=random.random(height) if draw(st.booleans()) else None,
        value_range=(0.0, 100.0) if draw(st.booleans()) else None,
    )


@quiet(60)
@given(series_of_frames())
def test_writing_and_reading_give_the_same_series(series: GridSeries) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.npz"
        series.write(path)
        read = read_grid(str(path), GridReadOptions())
    assert read.values.dtype == series.values.dtype
    np.testing.assert_array_equal(read.raw(range(len(series))), series.raw(range(len(series))))
    for name in ("times", "clip", "mask", "y"):
        np.testing.assert_array_equal(getattr(read, name), getattr(series, name))
    assert (read.value_range, read.channels, read.clip_names) == (
        series.value_range,
        series.channels,
        series.clip_names,
    )


@quiet(150)
@given(series_of_frames(), st.integers(1, 5), st.integers(0, 4), st.integers(1, 3))
def test_windows_are_all_those_within_a_run_and_no_others(
    series: GridSeries, history: int, horizon: int, stride: int
) -> None:
    length = history + horizon
    runs = series.runs()
    assert [frame for run in runs for frame in run] == list(range(len(series)))
    want = [start for run in runs for start in range(run.start, run.stop - length + 1, stride)]
    if not want:
        with pytest.raises(UserError, match=f"expected at least {length} frames"):
            find_windows(series, history=history, horizon=horizon, stride=stride)
        return
    windows = find_windows(series, history=history, horizon=horizon, stride=stride)
    assert windows.starts.tolist() == want
    every = np.arange(len(windows))[::-1]
    rows = windows.rows(every)
    assert series.times is not None
    assert (np.ptp(series.clip_numbers[rows], axis=1) == 0).all()
    steps = np.diff(series.times[rows], axis=1)
    assert not steps.size or (steps == steps[0, 0]).all()
    past, future = windows.load(every)
    assert past.shape[1] == history and future.shape[1] == horizon
    both = series.frames(rows.reshape(-1)).reshape(*rows.shape, *series.shape[1:])
    np.testing.assert_array_equal(np.concatenate([past, future], axis=1), both)


@quiet(100)
@given(series_of_frames(), st.data())
def test_selecting_twice_is_selecting_once(series: GridSeries, data: st.DataObject) -> None:
    first = np.array(sorted(data.draw(st.sets(st.integers(0, len(series) - 1), min_size=1))))
    second = np.array(sorted(data.draw(st.sets(st.integers(0, len(first) - 1), min_size=1))))
    twice, once = series.select(first).select(second), series.select(first[second])
    np.testing.assert_array_equal(twice.frames(range(len(once))), once.frames(range(len(once))))
    np.testing.assert_array_equal(twice.clip_numbers, once.clip_numbers)
    assert twice.clip_names == once.clip_names


def bytes_of(write: Any, *what: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    write(buffer, *what, **options)
    return buffer.getvalue()


def files() -> dict[str, tuple[str, tuple[bytes, ...]]]:
    import tempfile

    values = np.linspace(0, 1, 9 * 8 * 10, dtype=np.float32).reshape(9, 8, 10)
    own = GridSeries(values=values[:, None], times=np.datetime64("2024-05-01") + np.arange(9), y=np.arange(8.0),
                     mask=np.arange(80).reshape(8, 10) > 3, known_step=np.timedelta64(1, "D"))  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        own.write(Path(folder) / "a.npz")
        written = (Path(folder) / "a.npz").read_bytes()
    times = np.datetime64("2024-05-01") + np.arange(9)
    beside = {"lat": np.arange(8.0), "lon": np.arange(10), "time": times.astype("U10")}
    windows = np.zeros((4, 2, 2, 6, 6), np.float32)
    archive = dict.fromkeys(("X_train", "Y_train", "X_test", "Y_test"), windows)
    digits = np.arange(20 * 2 * 64 * 64, dtype=np.uint32).astype(np.uint8).reshape(20, 2, 64, 64)
    field = xr.Dataset({"t": (("time", "lat", "lon"), values, {"units": "1"})}, coords={"time": times})
    old = [bytes(field.to_netcdf(engine="scipy", format=form, unlimited_dims=free))
           for form, free in (("NETCDF3_CLASSIC", ["time"]), ("NETCDF3_64BIT", []))]  # fmt: skip
    return {
        "netcdf 3": (".nc", tuple(old)),
        "npy": (".npy", (bytes_of(np.save, values), bytes_of(np.save, digits))),
        "npz": (".npz", (written, bytes_of(np.savez, t2m=values, **beside), bytes_of(np.savez_compressed, a=values),
                         bytes_of(np.savez, flow=values[:, None], step_minutes=30, start="2024-05-01"),
                         bytes_of(np.savez, **archive))),
    }  # fmt: skip


FILES = files()
PIECES = st.sampled_from([b"", b"\x00", b"\xff" * 4, b"nan", b"-", b"(", b"'", b"9" * 12, b"<f8", b"|O", b"\x7f\x80"])


@st.composite
def mutated(draw: st.DrawFn, originals: tuple[bytes, ...]) -> bytes:
    """Draw an original and change it in a few places, often in a header."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 4))):
        if not data:
            break
        at = draw(st.integers(0, min(160, len(data) - 1)) | st.integers(0, len(data) - 1))
        to = min(len(data), at + draw(st.integers(1, 40)))
        match draw(st.sampled_from(["set", "flip", "put", "remove", "double", "cut"])):
            case "set":
                data[at] = draw(st.integers(0, 255))
            case "flip":
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "put":
                data[at:at] = draw(PIECES | st.binary(max_size=8))
            case "remove":
                del data[at:to]
            case "double":
                data[at:at] = data[at:to]
            case _:
                del data[at:]
    return bytes(data)


@pytest.mark.parametrize("count", counted(300))
@pytest.mark.parametrize("kind", FILES)
def test_mutated_arrays_are_read_or_refused(kind: str, count: int, tmp_path: Path) -> None:
    ending, originals = FILES[kind]
    path = tmp_path / f"fuzz{ending}"
    seen = {"read": 0, "refused": 0}

    @quiet(count)
    @given(mutated(originals))
    def run(data: bytes) -> None:
        path.write_bytes(data)
        start = time.process_time()
        try:
            series = read_grid(str(path), GridReadOptions())
            total = series.frames(range(len(series)))[series.valid(range(len(series)))]
        except UserError as error:
            seen["refused"] += 1
            assert "\n" not in str(error) and "expected" in str(error) and len(str(error)) < 900
        else:
            seen["read"] += 1
            assert len(series) >= 1 and np.isfinite(total).all()
        assert time.process_time() - start < 2.0

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run()
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert seen["refused"] > count // 20 and seen["read"] > 0 and sum(seen.values()) >= count // 2
    assert grown < 500 * 2**20
