"""Conversion to a chunked store: the same frames, whole or not at all, going on where it was killed, small memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from stcore.errors import UserError
from stcore.grids import GridSeries
from stcore.readers import grid_assembly, grid_store
from stcore.readers.grid_options import GridReadOptions
from stcore.readers.grid_store import NOTE, to_store
from stcore.readers.grids import read_grid

RNG = np.random.default_rng(1)
COUNT = 70


class Counted:
    """A store that tells which frames were asked for, and breaks at one of them."""

    def __init__(self, values: np.ndarray, fails_at: int = -1) -> None:
        self.values, self.fails_at, self.asked = values, fails_at, []
        self.shape, self.dtype = values.shape, values.dtype

    def read(self, ids: np.ndarray) -> np.ndarray:
        self.asked.append(np.asarray(ids))
        if self.fails_at in ids.tolist() and len(ids) > 2:
            raise OSError(5, "the source broke")
        return self.values[ids]


def series_of(values: Any = None, **more: Any) -> GridSeries:
    frames = RNG.normal(size=(COUNT, 2, 6, 8)).astype(np.float32) if values is None else values
    times = np.datetime64("2020-01-01", "us") + np.arange(COUNT) * np.timedelta64(1, "h")
    return GridSeries(values=frames, times=times, channels=("a", "b"), units=("K", "1"), axis_names=("lat", "lon"),
                      y=np.linspace(50, 58, 6), x=np.arange(8.0), **more)  # fmt: skip


def small_blocks(monkeypatch: pytest.MonkeyPatch, frames: int = 8) -> None:
    monkeypatch.setattr(grid_store, "BLOCK_BYTES", frames * 2 * 6 * 8 * 4)
    monkeypatch.setattr(grid_store, "CHUNK_FRAMES", 4)


def test_a_store_gives_the_same_series(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_blocks(monkeypatch)
    series = series_of(clip=np.repeat([0, 1], 35), value_range=(-9.0, 9.0), known_step=np.timedelta64(1, "h"))
    told: list[tuple[int, int]] = []
    path = to_store(series, tmp_path / "a.zarr", progress=lambda done, total: told.append((done, total)))
    assert told == [(done, COUNT) for done in [*range(8, 65, 8), 70]]
    again = read_grid(str(path), GridReadOptions())
    np.testing.assert_array_equal(again.frames(range(COUNT)), series.frames(range(COUNT)))
    for name in ("channels", "units", "clip_names", "value_range", "known_step", "axis_names"):
        assert getattr(again, name) == getattr(series, name), name
    for name in ("times", "y", "x", "clip"):
        np.testing.assert_array_equal(getattr(again, name), getattr(series, name))
    assert zarr.open_group(str(path), mode="r")["values"].chunks == (4, 2, 6, 8)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.zarr"] and not (path / NOTE).exists()


@pytest.mark.parametrize("moving", [False, True])
def test_masks_travel_along(moving: bool, tmp_path: Path) -> None:
    values = RNG.normal(size=(COUNT, 2, 6, 8)).astype(np.float32)
    mask = RNG.random(values.shape if moving else values.shape[2:]) > 0.3
    values[~np.broadcast_to(mask, values.shape)] = np.nan
    again = read_grid(str(to_store(series_of(values, mask=mask), tmp_path / "a.zarr")), GridReadOptions())
    np.testing.assert_array_equal(again.mask, mask)
    np.testing.assert_array_equal(again.frames([3, 50]), values[[3, 50]])


def test_a_broken_conversion_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_blocks(monkeypatch)
    values = RNG.normal(size=(COUNT, 2, 6, 8)).astype(np.float32)
    with pytest.raises(UserError, match=r"a.zarr: cannot be written \(26,880 bytes needed\): the source broke"):
        to_store(series_of(Counted(values, fails_at=42)), tmp_path / "a.zarr")
    assert not (tmp_path / "a.zarr").exists() and (tmp_path / ".a.zarr.partial" / NOTE).is_file()
    source = Counted(values)
    to_store(series_of(source), tmp_path / "a.zarr")
    read = np.concatenate([ids for ids in source.asked if len(ids) > 2])
    assert read.tolist() == list(range(40, COUNT))
    np.testing.assert_array_equal(read_grid(str(tmp_path / "a.zarr"), GridReadOptions()).frames(range(COUNT)), values)


def test_another_series_begins_anew_and_nothing_stays_without_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_blocks(monkeypatch)
    values = RNG.normal(size=(COUNT, 2, 6, 8)).astype(np.float32)
    with pytest.raises(UserError, match="cannot be written"):
        to_store(series_of(Counted(values, fails_at=42)), tmp_path / "a.zarr")
    other = Counted(values + 1.0)
    to_store(series_of(other), tmp_path / "a.zarr")
    assert np.concatenate([ids for ids in other.asked if len(ids) > 2]).tolist() == list(range(COUNT))
    with pytest.raises(UserError, match="cannot be written"):
        to_store(series_of(Counted(values, fails_at=42)), tmp_path / "b.zarr", resume=False)
    assert [one.name for one in tmp_path.iterdir()] == ["a.zarr"]


def test_a_killed_conversion_leaves_no_store_and_goes_on(tmp_path: Path) -> None:
    code = textwrap.dedent("""
        import os, signal, sys
        import numpy as np
        from stcore.grids import GridSeries
        from stcore.readers import grid_store
        grid_store.BLOCK_BYTES = 8 * 256
        values = np.arange(40 * 64, dtype=np.float32).reshape(40, 1, 8, 8)
        die = lambda done, total: os.kill(os.getpid(), signal.SIGKILL) if done >= 16 else None
        grid_store.to_store(GridSeries(values=values), sys.argv[1], chunk_frames=4, progress=die)
    """)
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.zarr")], check=False, timeout=120)
    assert ended.returncode == -9 and not (tmp_path / "a.zarr").exists()
    values = np.arange(40 * 64, dtype=np.float32).reshape(40, 1, 8, 8)
    source = Counted(values)
    to_store(GridSeries(values=source), tmp_path / "a.zarr", chunk_frames=4)
    assert min(ids.min() for ids in source.asked if len(ids) > 2) == 16
    np.testing.assert_array_equal(read_grid(str(tmp_path / "a.zarr"), GridReadOptions()).frames(range(40)), values)


def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        to_store(series_of(Counted(np.zeros((COUNT, 2, 6, 8)), fails_at=42)), tmp_path / "a.zarr")
    note = tmp_path / ".a.zarr.partial" / NOTE
    note.write_text(note.read_text().replace(str(os.getpid()), str(os.getppid())))
    with pytest.raises(UserError, match=r"process \d+ is writing it; expected to be alone"):
        to_store(series_of(), tmp_path / "a.zarr")


def test_a_value_that_is_not_finite_is_named(tmp_path: Path) -> None:
    values = np.zeros((COUNT, 2, 6, 8), np.float32)
    values[41, 1, 2, 3] = np.inf
    with pytest.raises(UserError, match="frame 41, channel b, row 2, column 3: inf; expected finite"):
        to_store(series_of(values), tmp_path / "a.zarr")


def test_a_store_is_not_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = to_store(series_of(), tmp_path / "a.zarr")
    monkeypatch.setattr(grid_assembly, "batches", lambda *_: pytest.fail("frames were looked at"))
    assert read_grid(str(path), GridReadOptions()).num_frames == COUNT


def test_a_store_that_lost_a_chunk_is_refused(tmp_path: Path) -> None:
    path = to_store(series_of(), tmp_path / "a.zarr", chunk_frames=10)
    (path / "values" / "3.0.0.0").unlink()
    with pytest.raises(UserError, match="array values has 6 of 7 chunks; expected all"):
        read_grid(str(path), GridReadOptions())


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.npz", "ending '.npz'; expected .zarr"), ("no/a.zarr", "no folder"), ("there.zarr", "is there already")],
)
def test_a_wrong_place_is_refused(name: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "there.zarr").mkdir()
    with pytest.raises(UserError, match=expected):
        to_store(series_of(), tmp_path / name)
    assert not list(tmp_path.glob(".*"))


def test_memory_stays_small_while_a_large_series_is_written_and_read(tmp_path: Path) -> None:
    code = textwrap.dedent("""
        import resource, sys
        import numpy as np
        from stcore.grids import GridSeries
        from stcore.readers.grid_options import GridReadOptions
        from stcore.readers.grids import read_grid
        from stcore.readers.grid_store import to_store
        from stcore.windows import find_windows
        class Made:
            shape, dtype = (1500, 1, 180, 360), np.dtype(np.float32)
            def read(self, ids):
                return np.broadcast_to(ids.astype(np.float32)[:, None, None, None], (len(ids), 1, 180, 360)).copy()
        to_store(GridSeries(values=np.zeros((2, 1, 8, 8), np.float32)), sys.argv[1] + "/small.zarr")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        to_store(GridSeries(values=Made()), sys.argv[1] + "/large.zarr")
        windows = find_windows(read_grid(sys.argv[1] + "/large.zarr", GridReadOptions()), history=12, horizon=12)
        for start in (0, 700, len(windows) - 1):
            history, future = windows.load(np.array([start]))
            assert (history[0, :, 0, 5, 7] == np.arange(start, start + 12)).all() and future.max() == start + 23
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """)
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=300, capture_output=True)
    shutil.rmtree(tmp_path / "large.zarr")
    assert int(ended.stdout) < 200 * 1024  # kB, of 389 MB
