"""Scores, windows and scales of weather fields as the originals have them, from their recordings alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from svq_recordings import Recording, of_kind, open_recording

from stcore.metrics.weather import WeatherMetrics, WeatherReport, latitude_weights
from stcore.readers.grid_options import GridReadOptions
from stcore.readers.grids import read_grid_parts
from stcore.readers.weatherbench import FOLDERS, SETS, WeatherSet
from stcore.splits import Parts
from stcore.weather_paper import PaperPart, paper_parts, paper_windows


def report(recording: Recording, batch: int) -> WeatherReport:
    mean, std = recording.input("in/mean").double(), recording.input("in/std").double()
    forecast, truth = (recording.input(f"in/{name}").double() * std + mean for name in ("pred", "true"))
    metrics = WeatherMetrics(
        recording.input("in/latitude").numpy(),
        recording.input("in/climatology"),
        groups=recording.config["channel_names"] or (),
        spatial_norm=recording.config["spatial_norm"],
    )
    for first in range(0, len(truth), batch):
        metrics.update(forecast[first : first + batch], truth[first : first + batch])
    return metrics.compute()


@pytest.mark.parametrize("name", of_kind("metrics_weather"))
def test_weather_scores_are_those_of_the_recording(name: str) -> None:
    recording = open_recording(name)
    weights = latitude_weights(recording.input("in/latitude").numpy())
    recording.check("in/latitude_weights", torch.from_numpy(weights))
    found = report(recording, batch=2)
    weighted = {
        "lat_weighted_rmse": found["per_channel"]["rmse_weighted"],
        "lat_weighted_rmse_by_lead": found["per_lead_time"]["rmse_weighted"],
        "lat_weighted_acc": found["per_channel"]["acc"],
    }
    for key in recording.under("out/"):
        figure = key.removeprefix("out/")
        value: Any = weighted[figure] if figure in weighted else [found["overall"][figure]]
        recording.check(key, torch.tensor(value, dtype=torch.float64))


@pytest.mark.parametrize("name", of_kind("metrics_weather"))
def test_weather_scores_do_not_depend_on_the_batch_to_the_bit(name: str) -> None:
    recording = open_recording(name)
    assert report(recording, batch=1) == report(recording, batch=2) == report(recording, batch=10**6)


def weather_of(recording: Recording) -> WeatherSet:
    inputs, outputs = recording.config["idx_in"], recording.config["idx_out"]
    name = recording.config["data_name"]
    chosen = SETS.get(name, SETS["t2m"])
    assert list(chosen.paper_inputs) == inputs and list(chosen.paper_outputs) == outputs
    assert chosen.hours == recording.config["step"]
    return chosen


def publish(recording: Recording, folder: Path) -> None:
    """Write the recorded hours as files of the publisher: of the last training year and of the first test year."""
    place = folder / "weather_5_625deg" / FOLDERS["t2m"]
    place.mkdir(parents=True)
    train, test = (recording.input(f"in/raw_{part}").numpy() for part in ("train", "test"))
    starts = {2015: np.datetime64("2016-01-01") - np.timedelta64(len(train), "h"), 2017: np.datetime64("2017-01-01")}
    lat, lon = (np.linspace(-87.1875, 87.1875, train.shape[1]), np.arange(train.shape[2]) * 360.0 / train.shape[2])
    for year, values in ((2015, train), (2017, test)):
        times = starts[year].astype("datetime64[ns]") + np.arange(len(values)) * np.timedelta64(1, "h")
        data = xr.Dataset({"t2m": (("time", "lat", "lon"), values, {"units": "K"})},
                          coords={"time": times, "lat": lat, "lon": lon})  # fmt: skip
        data.to_netcdf(place / f"2m_temperature_{year}_5.625deg.nc", engine="h5netcdf")


def parts_of(recording: Recording, folder: Path) -> Parts[PaperPart]:
    publish(recording, folder)
    options = GridReadOptions(source=(str(folder),), format="weatherbench", variable=("t2m",), protocol="paper")
    return paper_parts(read_grid_parts(options), weather_of(recording))


@pytest.mark.parametrize("name", of_kind("weather_windows"))
def test_windows_and_scales_of_the_publication(name: str, tmp_path: Path) -> None:
    recording = open_recording(name)
    parts = parts_of(recording, tmp_path)
    rows, columns = recording.config["subgrid_stride"]
    for part in ("train", "test"):
        mine = parts.named()[part]
        recording.check(f"out/{part}_valid_index", torch.from_numpy(mine.anchors))
        recording.check(f"out/{part}_denorm_mean", torch.from_numpy(mine.report_mean).reshape(1, -1, 1, 1))
        recording.check(f"out/{part}_denorm_std", torch.from_numpy(mine.report_std).reshape(1, -1, 1, 1))
        history, future = mine.load(np.array([len(mine) - 1]))
        for key, frames in (("x", history), ("y", future)):
            recording.check(f"out/{part}_last_{key}_subgrid", torch.from_numpy(frames[0, :, :, ::rows, ::columns]))
    np.testing.assert_array_equal(parts.val.anchors, parts.test.anchors)


@pytest.mark.parametrize("name", of_kind("weather_windows"))
def test_reported_values_are_off_by_the_ratio_of_deviations(name: str, tmp_path: Path) -> None:
    parts = parts_of(open_recording(name), tmp_path)
    test = parts.test
    history, _ = test.load(np.array([0]))
    raw, _ = test.windows.load(np.array([0]))
    expected = (raw - test.mean) / test.std * parts.train.std + parts.train.mean
    np.testing.assert_allclose(test.to_units(history), expected, rtol=1e-6)
    assert abs(float(test.report_std[0] / test.std[0]) - 1.0) > 1e-4


@pytest.mark.parametrize("name", of_kind("weather_windows"))
def test_one_good_window_of_each_part_is_lost(name: str, tmp_path: Path) -> None:
    recording = open_recording(name)
    parts = parts_of(recording, tmp_path)
    inputs, outputs = recording.config["idx_in"], recording.config["idx_out"]
    frames = parts.train.windows.series.num_frames
    assert frames == len(recording.input("in/raw_train")) - 1
    good = frames - (outputs[-1] - inputs[0] + 1) + 1
    assert len(parts.train) == good - 1
    again = paper_windows(parts.train.windows.series, inputs=inputs, outputs=outputs)
    np.testing.assert_array_equal(again.starts, parts.train.windows.starts)
