"""Degrees in the order of any file become one order, and come back as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from stcore.coordinates import in_common_order, in_file_order, joined_longitudes
from stcore.grids import GridSeries
from stcore.readers.grid_options import GridReadOptions
from stcore.readers.grids import read_grid, read_grid_parts

RNG = np.random.default_rng(2)


def on_globe(lat: Any, lon: Any, **more: Any) -> GridSeries:
    values = RNG.normal(size=(12, 1, len(lat), len(lon))).astype(np.float32)
    return GridSeries(values=values, y=np.asarray(lat), x=np.asarray(lon), axis_names=("lat", "lon"), **more)


@pytest.mark.parametrize(
    ("degrees", "order", "joined"),
    [
        ([0, 90, 180, 270], [0, 1, 2, 3], [0, 90, 180, 270]),
        ([-180, -90, 0, 90], [2, 3, 0, 1], [0, 90, 180, 270]),
        ([350, 355, 0, 5], [0, 1, 2, 3], [-10, -5, 0, 5]),
        ([0, 5, 350, 355], [2, 3, 0, 1], [-10, -5, 0, 5]),
        ([170, 175, -180, -175], [0, 1, 2, 3], [170, 175, 180, 185]),
        ([230, 240, 250], [0, 1, 2], [-130, -120, -110]),
        ([-10, -5, 0, 5], [0, 1, 2, 3], [-10, -5, 0, 5]),
        ([5, 0, -5, -10], [3, 2, 1, 0], [-10, -5, 0, 5]),
    ],
)
def test_longitudes_join_without_a_jump(degrees: list[float], order: list[int], joined: list[float]) -> None:
    found, values = joined_longitudes(np.array(degrees, dtype=float))
    assert found.tolist() == order and values.tolist() == joined
    again, same = joined_longitudes(values)
    assert again.tolist() == list(range(len(order))) and same.tolist() == joined


def test_rows_are_turned_without_reading_and_masks_with_them() -> None:
    series = on_globe(np.linspace(60, -60, 5), np.arange(-180, 180, 60), mask=RNG.random((5, 6)) > 0.4)
    common = in_common_order(series)
    np.testing.assert_array_equal(common.y, np.linspace(-60, 60, 5))
    np.testing.assert_array_equal(common.x, np.arange(0, 360, 60))
    expected = np.roll(series.frames([3, 7])[:, :, ::-1], -3, axis=-1)
    np.testing.assert_array_equal(common.frames([3, 7]), expected)
    np.testing.assert_array_equal(common.select([3, 7]).frames([0, 1]), expected)
    back = in_file_order(common.frames([3, 7]), common.turned)
    np.testing.assert_array_equal(back, series.frames([3, 7]))
    assert common.turned is not None
    np.testing.assert_array_equal(common.turned.y, series.y)
    np.testing.assert_array_equal(common.turned.x, series.x)


def test_what_is_in_order_or_in_no_degrees_stays_as_it_is() -> None:
    plain = on_globe(np.linspace(-60, 60, 5), np.arange(0, 360, 60))
    assert in_common_order(plain) is plain and in_file_order(plain.frames([0]), None).shape == (1, 1, 5, 6)
    metres = GridSeries(values=np.zeros((3, 1, 4, 4)), y=np.array([3.0, 2, 1, 0]), x=np.array([400.0, 300, 200, 100]))
    assert in_common_order(metres) is metres


@pytest.mark.parametrize("falling", [False, True])
@pytest.mark.parametrize("west", [False, True])
def test_files_in_any_order_are_read_as_one(falling: bool, west: bool, tmp_path: Path) -> None:
    lat, lon = np.linspace(-60, 60, 8), np.arange(0.0, 360.0, 30.0)
    values = RNG.normal(size=(30, 8, 12)).astype(np.float32)
    data = xr.Dataset({"z": (("time", "lat", "lon"), values)},
                      coords={"time": np.datetime64("2020-01-01", "ns") + np.arange(30) * np.timedelta64(1, "h"),
                              "lat": lat, "lon": lon})  # fmt: skip
    if falling:
        data = data.isel(lat=slice(None, None, -1))
    if west:
        data = data.assign_coords(lon=(data.lon + 180.0) % 360.0 - 180.0).sortby("lon")
    data.to_netcdf(tmp_path / "z.nc", engine="h5netcdf")
    parts = read_grid_parts(GridReadOptions(source=(str(tmp_path / "z.nc"),), order="common", split=(0.6, 0.2, 0.2)))
    np.testing.assert_array_equal(parts.train.y, lat)
    np.testing.assert_array_equal(parts.train.x, lon)
    np.testing.assert_array_equal(parts.val.frames([1])[0, 0], values[19])
    stored = read_grid(str(tmp_path / "z.nc"), GridReadOptions(order="common"))
    stored.write(tmp_path / "z.zarr")
    again = read_grid(str(tmp_path / "z.zarr"), GridReadOptions(order="common"))
    assert again.turned is None and again.axis_names == ("lat", "lon")
    np.testing.assert_array_equal(again.frames([19])[0, 0], values[19])
    as_is = read_grid(str(tmp_path / "z.nc"), GridReadOptions())
    np.testing.assert_array_equal(as_is.frames([4])[0, 0], data.z.values[4])


def test_an_npz_keeps_the_names_of_its_axes(tmp_path: Path) -> None:
    on_globe([50.0, 40.0], [0.0, 10.0]).write(tmp_path / "a.npz")
    again = read_grid(str(tmp_path / "a.npz"), GridReadOptions(order="common"))
    assert again.axis_names == ("lat", "lon") and again.y is not None and again.y.tolist() == [40.0, 50.0]
