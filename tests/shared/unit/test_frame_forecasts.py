"""A forecaster of frames whatever its network, its scores, and its forecasts as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stcore.errors import UserError
from stcore.frame_drawing import step_in_words
from stcore.frame_forecasting import TrainedForecaster, forecast_series
from stcore.frame_reports import FrameScores, Report, score_windows, spread_ids
from stcore.frame_scaling import Scaling
from stcore.grids import GridSeries
from stcore.latitudes import are_degrees, latitudes, north_up
from stcore.readers.netcdf_writing import write_netcdf
from stcore.windows import find_windows

GLOBE: dict[str, Any] = {"y": np.array([-60.0, 0.0, 60.0]), "x": np.array([0.0, 90.0, 180.0, 270.0]),
                         "axis_names": ("lat", "lon")}  # fmt: skip


class Drift(nn.Module):
    """Goes on by the last difference; scaled, as networks see it."""

    def __init__(self) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))

    def forward(self, history: Tensor, horizon: int) -> Tensor:
        last, step = history[:, -1:], history[:, -1:] - history[:, -2:-1]
        return torch.cat([last + (lead + 1) * step for lead in range(horizon)], dim=1)


def ramp(frames: int = 10, *, clips: int = 1, **options: Any) -> GridSeries:
    """Values that rise by 1 a frame."""
    values = np.tile(np.arange(frames, dtype=np.float32), clips)[:, None, None, None] + np.zeros(
        (1, 1, 3, 4), np.float32
    )
    clip = np.repeat(np.arange(clips), frames)
    start = np.datetime64("2020-01-01T00", "us") + np.arange(frames) * np.timedelta64(6, "h")
    return GridSeries(values=values, clip=clip, times=np.tile(start, clips), channels=("t",), units=("K",), **options)


def forecaster(series: GridSeries) -> TrainedForecaster:
    return TrainedForecaster(
        Drift(), Scaling.fit(series, "standard"), (1, 3, 4), history=2, horizon=3, batch=4, facts={}
    )


def test_forecasts_follow_the_end_of_every_clip_with_times() -> None:
    series = ramp(clips=2)
    found = forecast_series(forecaster(series), series, at="last", horizon=3, stride=1)
    assert found.shape == (6, 1, 3, 4)
    np.testing.assert_allclose(found.frames(range(3))[:, 0, 0, 0], [10, 11, 12], rtol=1e-5)
    assert found.times is not None
    assert found.times[0] == np.datetime64("2020-01-03T12")
    assert found.clip_names == ("0@8", "1@8")


def test_forecasts_from_every_window_keep_their_stride() -> None:
    series = ramp()
    found = forecast_series(forecaster(series), series, at="every", horizon=1, stride=4)
    np.testing.assert_allclose(found.frames(range(3))[:, 0, 0, 0], [2, 6, 10], rtol=1e-5)


@pytest.mark.parametrize(("frames", "message"), [
    (np.zeros((1, 1, 3, 4)), "frames: 1 of them; expected at least 2"),
    (np.zeros((4, 1, 3, 5)), "with 1 x 3 x 4 at the end"),
    (np.full((4, 3, 4), np.inf), "frames: values that are not finite"),
])  # fmt: skip
def test_frames_of_another_kind_are_refused(frames: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        forecaster(ramp()).predict(frames)
    with pytest.raises(UserError, match=r"mine: frames 1 x 3 x 5 .* expected 1 x 3 x 4"):
        forecaster(ramp()).check(GridSeries(values=np.zeros((4, 1, 3, 5), np.float32)), "mine")


def test_scores_in_units_and_on_the_unit_scale_agree() -> None:
    measure = Scaling(torch.zeros(1, 1, 1), torch.full((1, 1, 1), 10.0))
    scores = FrameScores(measure)
    truth = torch.zeros(2, 3, 1, 3, 4)
    error = torch.tensor([1.0, 2.0, 3.0])[None, :, None, None, None].expand_as(truth)
    mask = torch.ones_like(truth, dtype=torch.bool)
    mask[..., 0, 0] = False
    scores.add(truth + error, truth, mask)
    assert scores.by_lead() == {"mae": pytest.approx([1, 2, 3]), "rmse": pytest.approx([1, 2, 3])}
    assert scores.in_units() == {"mae": pytest.approx(2.0), "rmse": pytest.approx((14 / 3) ** 0.5)}
    assert scores.by_channel(("t",))["t"]["mae"] == pytest.approx(2.0)
    # 11 cells of a frame count, on the scale [0, 1].
    assert scores.metrics.compute()["per_lead_time"]["mse"] == pytest.approx([0.11, 0.44, 0.99])


def test_windows_are_scored_beside_rivals_and_shown_to_observers() -> None:
    series = ramp()
    seen: list[tuple[str, int]] = []
    windows = find_windows(series, history=2, horizon=3)
    scores = score_windows(
        forecaster(series), windows, spread_ids(len(windows), 0), name="drift", measure=Scaling.fit(series, "auto"),
        rivals={"zero": lambda history, ids: torch.zeros(len(history), 3, 1, 3, 4)},
        observe=lambda who, ids, frames, truth: seen.append((who, len(ids))),
    )  # fmt: skip
    assert scores["drift"].in_units()["rmse"] == pytest.approx(0.0, abs=1e-4)
    assert scores["zero"].by_lead()["mae"] == pytest.approx([4.5, 5.5, 6.5])
    assert seen == [("drift", 4), ("zero", 4), ("drift", 2), ("zero", 2)]
    report = Report(
        {who: score.metrics.compute() for who, score in scores.items()},
        {who: score.in_units() for who, score in scores.items()}, {"protocol": "all windows.", "units": ["K"]},
        by_lead={who: score.by_lead() for who, score in scores.items()}, shown_by_lead=("mse", "rmse"),
        more={"drift": {"acc": 0.5}}, remarks=("that is all",),
    )  # fmt: skip
    text = report.text()
    assert text.startswith("all windows.\n\n")
    assert "rmse per cell (K) at lead time" in text
    assert text.endswith("that is all")
    assert report.value("mae", "zero") > report.value("mae")
    assert report.data()["more"] == {"drift": {"acc": 0.5}}


def test_only_coordinates_in_degrees_are_latitudes() -> None:
    globe = ramp(**GLOBE)
    assert are_degrees(globe)
    np.testing.assert_array_equal(latitudes(globe), GLOBE["y"])
    assert latitudes(ramp(y=GLOBE["y"], x=GLOBE["x"])) is latitudes(ramp()) is None
    rows = np.arange(3)[:, None]
    assert north_up(rows, globe).tolist() == [[2], [1], [0]]
    assert (
        north_up(rows, ramp(**{**GLOBE, "y": -GLOBE["y"]})).tolist() == north_up(rows, ramp()).tolist() == rows.tolist()
    )


def test_netcdf_holds_what_others_know(tmp_path: Path) -> None:
    import xarray as xr

    globe = ramp(**GLOBE)
    write_netcdf(globe, tmp_path / "one.nc")
    with xr.open_dataset(tmp_path / "one.nc") as written:
        assert written["t"].dims == ("time", "lat", "lon")
        assert written["lat"].attrs["units"] == "degrees_north"
        assert written["t"].attrs["units"] == "K"
        np.testing.assert_array_equal(written["t"].values[:, 0, 0], np.arange(10))
        assert written["time"].values[1] == np.datetime64("2020-01-01T06")
    back = GridSeries.read(tmp_path / "one.nc")
    np.testing.assert_array_equal(back.frames(range(10)), globe.frames(range(10)))
    assert are_degrees(back)
    write_netcdf(ramp(clips=2), tmp_path / "two.nc")
    with xr.open_dataset(tmp_path / "two.nc") as written:
        assert dict(written.sizes) == {"forecast": 2, "lead": 10, "y": 3, "x": 4}
    uneven = GridSeries(values=np.zeros((5, 1, 3, 4), np.float32), clip=np.array([0, 0, 0, 1, 1]))
    with pytest.raises(UserError, match="clips of 2 to 3 frames; expected one length"):
        write_netcdf(uneven, tmp_path / "three.nc")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["one.nc", "two.nc"]


def test_steps_are_said_shortly() -> None:
    assert step_in_words(ramp()) == (6.0, "h")
    assert step_in_words(GridSeries(values=np.zeros((2, 1, 2, 2), np.float32))) == (1.0, "")
