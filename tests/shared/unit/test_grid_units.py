"""Units that values contradict, calendars that are left out on purpose, and which frames of a large source are seen."""

from __future__ import annotations

import doctest
import logging
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from stcore import coordinates, frame_stores, grid_checks
from stcore.errors import UserError
from stcore.frame_stores import spread
from stcore.grids import GridSeries
from stcore.readers.grid_assembly import RawGrid, assemble
from stcore.readers.grid_options import GridReadOptions
from stcore.readers.grid_units import require_plausible_units
from stcore.readers.grids import read_grid

RNG = np.random.default_rng(6)


def named(name: str, unit: str, level: float) -> GridSeries:
    values = (level + RNG.normal(0.0, 1.0, (9, 1, 4, 5))).astype(np.float32)
    return GridSeries(values=values, channels=(name,), units=(unit,))


@pytest.mark.parametrize(
    ("name", "unit", "level"),
    [("t2m", "K", 15.0), ("sst", "degC", 290.0), ("air temperature", "°C", 280.0), ("t_500", "K", -20.0),
     ("msl", "Pa", 1013.0), ("sp", "hPa", 98_000.0), ("tcc", "(0 - 1)", 60.0), ("r_850", "fraction", 70.0)],
)  # fmt: skip
def test_a_unit_that_values_contradict_is_refused(name: str, unit: str, level: float) -> None:
    with pytest.raises(UserError, match=r"a.nc: channel .* has unit .* and a median of .*; expected .*--data.units"):
        require_plausible_units(named(name, unit, level), "a.nc")


@pytest.mark.parametrize(
    ("name", "unit", "level"),
    [("t2m", "K", 250.0), ("t_50", "K", 205.0), ("sst", "degree_C", 15.0), ("t2m_anomaly", "K", 0.5), ("u10", "K", 5.0),
     ("t2m", "", 15.0), ("t2m", "K", 2000.0), ("msl", "Pa", 101_300.0), ("sp", "hPa", 900.0), ("tcc", "(0 - 1)", 1.0),
     ("r", "%", 60.0), ("precipitation", "mm", 3.0)],
)  # fmt: skip
def test_a_unit_that_may_be_right_is_left_alone(name: str, unit: str, level: float) -> None:
    require_plausible_units(named(name, unit, level), "a.nc")


def test_cells_that_are_missing_do_not_count_and_flags_win(tmp_path: Path) -> None:
    values = (280.0 + RNG.normal(0.0, 1.0, (30, 8, 9))).astype(np.float32)
    values[:, :, :6] = np.nan
    data = xr.Dataset({"t2m": (("time", "lat", "lon"), values, {"units": "degC"})})
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with pytest.raises(UserError, match=r"unit 'degC' and a median of 2[78]"):
        read_grid(str(tmp_path / "a.nc"), GridReadOptions(missing="mask"))
    assert read_grid(str(tmp_path / "a.nc"), GridReadOptions(missing="mask", units=("K",))).units == ("K",)


def test_moments_of_another_calendar_are_left_out_only_when_asked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    time = ("time", np.arange(30), {"units": "days since 2001-01-01", "calendar": "360_day"})
    data = xr.Dataset({"z": (("time", "lat", "lon"), np.zeros((30, 8, 9), np.float32))}, coords={"time": time})
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with pytest.raises(UserError, match=r"calendar '360_day'.*--data.calendar ignore"):
        read_grid(str(tmp_path / "a.nc"), GridReadOptions())
    with caplog.at_level(logging.WARNING):
        series = read_grid(str(tmp_path / "a.nc"), GridReadOptions(calendar="ignore"))
    assert series.times is None and series.num_frames == 30 and "times left out" in caplog.text


def test_frames_to_look_at_are_stretches_spread_over_all() -> None:
    for count, wanted in ((1000, 100), (1000, 7), (50, 49), (10**6, 4096), (5, 2)):
        rows = spread(count, wanted)
        assert rows[0] == 0 and rows[-1] == count - 1 and (np.diff(rows) > 0).all()
        assert len(rows) <= max(wanted, 2) and len(rows) >= min(count, wanted) // 2
    assert (np.diff(spread(1000, 100)) == 1).mean() > 0.8
    np.testing.assert_array_equal(spread(9, 9), np.arange(9))


def test_a_large_source_is_looked_at_in_part_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    values = RNG.random((400, 1, 8, 9), dtype=np.float32)
    values[399, 0, 2, 3] = np.nan
    raw = RawGrid(where="a.nc", values=values, look_bytes=32 * 8 * 9 * 4)
    with caplog.at_level(logging.WARNING), pytest.raises(UserError, match="frame 399, row 2, column 3: nan"):
        assemble(raw, GridReadOptions())
    assert "looked at 32 of 400 frames" in caplog.text


def test_a_look_at_a_part_still_sees_what_does_not_move(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid_checks, "LOOK_BYTES", 64 * 8 * 9 * 4)
    values = RNG.random((500, 1, 8, 9), dtype=np.float32)
    values[1] = values[0]
    seen = grid_checks.survey(GridSeries(values=values))
    assert seen.sampled and seen.num_frames == 64 and seen.frozen == 1 and seen.pairs == 60


@pytest.mark.parametrize("module", [coordinates, frame_stores])
def test_examples_in_docstrings_hold(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]
