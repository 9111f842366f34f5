"""Persistence, the mean frame, climatology, damped persistence and the frame a period before, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stcore import baselines_grids
from stcore.baselines_grids import (
    Climatology,
    DampedPersistence,
    FrameForecaster,
    MeanFrame,
    Persistence,
    SeasonalNaive,
    TimedForecaster,
    moment_codes,
    usual_cycles,
)
from stcore.errors import UserError
from stcore.grids import GridSeries

RNG = np.random.default_rng(0)


def test_persistence_repeats_the_last_frame():
    history = torch.from_numpy(RNG.random((3, 4, 2, 5, 6), dtype=np.float32))
    forecast = Persistence().predict(history, 7)
    assert forecast.shape == (3, 7, 2, 5, 6)
    for lead in range(7):
        assert torch.equal(forecast[:, lead], history[:, -1])


def test_mean_frame_is_the_mean_over_time_however_it_is_read(monkeypatch):
    series = GridSeries(values=RNG.integers(0, 256, (11, 2, 5, 6), dtype=np.uint8))
    whole = MeanFrame.fit(series)
    np.testing.assert_allclose(whole.frame, series.frames(range(11)).mean(0), rtol=1e-6)
    monkeypatch.setattr(baselines_grids, "_BLOCK", 4)
    assert torch.equal(MeanFrame.fit(series).frame, whole.frame)
    forecast = whole.predict(torch.zeros(3, 1, 2, 5, 6), 4)
    assert forecast.shape == (3, 4, 2, 5, 6) and torch.equal(forecast[2, 3], whole.frame)


def test_cells_without_data_are_left_out_of_the_mean():
    values = np.array([[1.0, 5.0, 3.0], [3.0, np.nan, 9.0]]).reshape(2, 1, 1, 3)
    mask = np.array([[True, True, False]])
    frame = MeanFrame.fit(GridSeries(values=values, mask=mask)).frame
    assert frame.flatten().tolist() == [2.0, 5.0, 3.0]  # the hidden cell gets the mean of 1, 3 and 5


def test_mean_frame_has_the_type_of_the_history():
    mean = MeanFrame(torch.full((1, 2, 2), 0.5))
    assert mean.predict(torch.zeros(1, 1, 1, 2, 2, dtype=torch.float64), 2).dtype == torch.float64


def test_both_are_forecasters():
    assert isinstance(Persistence(), FrameForecaster) and isinstance(MeanFrame(torch.zeros(1, 1, 1)), FrameForecaster)


def test_nothing_to_average_is_refused():
    with pytest.raises(UserError, match="training part: no frames"):
        MeanFrame.fit(GridSeries(values=np.zeros((0, 1, 2, 2))))
    values = np.zeros((3, 2, 2, 2))
    values[:, 1] = np.nan
    with pytest.raises(UserError, match="no data in channel 2"):
        MeanFrame.fit(GridSeries(values=values))


HOUR = np.timedelta64(1, "h")


def hourly(count: int, values: np.ndarray | None = None, start: str = "2020-01-01", **more: object) -> GridSeries:
    times = np.datetime64(start, "us") + np.arange(count) * HOUR
    frames = RNG.normal(size=(count, 2, 3, 4)).astype(np.float32) if values is None else values
    return GridSeries(values=frames, times=times, **more)


def test_persistence_takes_the_last_value_that_is_known():
    history = torch.tensor([1.0, 2.0, float("nan")]).reshape(1, 3, 1, 1, 1).repeat(1, 1, 1, 1, 2)
    history[0, :, 0, 0, 1] = float("nan")
    forecast = Persistence().predict(history, 2)
    assert forecast[0, :, 0, 0, 0].tolist() == [2.0, 2.0] and bool(forecast[..., 1].isnan().all())


def test_climatology_is_the_mean_by_time_of_day():
    series = hourly(100)
    usual = Climatology.fit(series)
    assert usual.by == ("hour",)
    frames = series.frames(range(100))
    ahead = series.times[48:55][None]
    forecast = usual.predict(torch.zeros(1, 4, 2, 3, 4), 3, times=ahead)
    for lead, hour in enumerate((4, 5, 6)):
        np.testing.assert_allclose(forecast[0, lead], frames[hour::24].mean(axis=0), rtol=1e-5)


def test_climatology_over_years_is_told_apart_by_month_too():
    times = np.datetime64("2019-01-01", "us") + np.arange(4 * 800) * np.timedelta64(6, "h")
    months = times.astype("datetime64[M]").astype(int) % 12
    hour = (times - times.astype("datetime64[D]")).astype("timedelta64[h]").astype(int)
    values = (10.0 * months + hour / 6).astype(np.float32).reshape(-1, 1, 1, 1)
    series = GridSeries(values=values, times=times)
    usual = Climatology.fit(series)
    assert usual.by == ("hour", "month")
    at = np.array([["2024-03-31T18", "2024-12-01T06"]], "M8[us]")
    assert usual.at(at, (1, 2)).flatten().tolist() == [23.0, 111.0]


def test_monthly_data_are_told_apart_by_month_and_yearly_not_at_all():
    months = (np.datetime64("2000-01") + np.arange(36)).astype("M8[us]")
    monthly = GridSeries(values=np.tile(np.arange(12.0), 3).reshape(36, 1, 1, 1), times=months)
    usual = Climatology.fit(monthly)
    assert usual.by == ("month",)
    assert usual.at(np.array(["2031-05-01"], "M8[us]"), (1,)).item() == 4.0
    years = (np.datetime64("2000") + np.arange(9)).astype("M8[us]")
    assert usual_cycles(GridSeries(values=np.zeros((9, 1, 1, 1)), times=years)) == ()


def test_a_day_of_the_year_counts_the_days_around_it_across_new_year():
    days = np.datetime64("2001-01-01", "us") + np.arange(730) * np.timedelta64(1, "D")
    values = (np.arange(730) % 365).astype(np.float32).reshape(-1, 1, 1, 1)
    usual = Climatology.fit(GridSeries(values=values, times=days), by=("day",), window_days=1)
    at = np.array(["2003-01-01", "2003-06-10"], "M8[us]")
    # Day 366 exists in leap years only, so that New Year's Eve is two days from New Year's Day.
    assert usual.at(at, (2,)).flatten().tolist() == [0.5, 160.0]
    wide = Climatology.fit(GridSeries(values=values, times=days), by=("day",), window_days=2)
    assert wide.at(at[:1], (1,)).item() == pytest.approx((0 + 1 + 2 + 364) / 4)


def test_moments_are_numbered_by_weekday_and_hour():
    times = np.array(["2024-05-06T07:30", "2024-05-13T07:30", "2024-05-07T07:30"], "M8[us]")  # two Mondays, a Tuesday
    codes = moment_codes(times, ("weekday", "hour"))
    assert codes[0] == codes[1] == 7.5 * 3600 and codes[2] == codes[0] + 86_400


def test_a_moment_never_seen_gets_the_mean_of_all_and_gaps_are_left_out():
    values = RNG.normal(size=(10, 1, 2, 2)).astype(np.float32)
    values[3, 0, 0, 0] = np.nan
    mask = np.isfinite(values)
    series = GridSeries(values=values, mask=mask, times=np.datetime64("2020-01-01", "us") + np.arange(10) * HOUR)
    usual = Climatology.fit(series)
    unseen = usual.at(np.array(["2020-01-01T20"], "M8[us]"), (1,))[0, 0]
    np.testing.assert_allclose(unseen, np.nanmean(values, axis=0)[0], rtol=1e-5)
    lost = usual.at(np.array(["2020-01-01T03"], "M8[us]"), (1,))[0, 0]
    assert lost[0, 0] == unseen[0, 0] and lost[1, 1] == values[3, 0, 1, 1]


def test_without_times_the_climatology_is_the_mean_frame():
    series = GridSeries(values=RNG.normal(size=(9, 1, 2, 2)).astype(np.float32))
    usual = Climatology.fit(series)
    mean = MeanFrame.fit(series).frame
    assert usual.by == () and torch.equal(usual.predict(torch.zeros(2, 1, 1, 2, 2), 3)[1, 2], mean)
    with pytest.raises(UserError, match="by hour: the training part has no times"):
        Climatology.fit(series, by=("hour",))
    with pytest.raises(UserError, match="frames without times"):
        Climatology.fit(hourly(30)).predict(torch.zeros(1, 1, 2, 3, 4), 1)


def autoregressive(count: int, share: float) -> np.ndarray:
    noise = RNG.normal(size=(count, 1, 8, 8))
    for at in range(1, count):
        noise[at] += share * noise[at - 1]
    return noise.astype(np.float32)


def test_damping_of_a_red_process_is_its_share_to_the_power_of_the_lead():
    series = GridSeries(values=autoregressive(600, 0.8))
    damped = DampedPersistence.fit(series, leads=4)
    np.testing.assert_allclose(damped.damping.flatten(), [0.8, 0.64, 0.512, 0.4096], atol=0.03)
    spaced = DampedPersistence.fit(series, leads=(2, 4))
    assert torch.equal(spaced.damping, damped.damping[[1, 3]])


@pytest.mark.parametrize("per", ["channel", "cell"])
def test_damping_is_least_squares_however_it_is_read(per, monkeypatch):
    series = hourly(90)
    usual = Climatology.fit(series)
    off = series.frames(range(90)) - usual.at(series.times, (90,)).numpy()
    damped = DampedPersistence.fit(series, leads=3, climatology=usual, per=per)
    axes = (0,) if per == "cell" else (0, 2, 3)
    for lead in (1, 2, 3):
        expected = (off[:-lead] * off[lead:]).sum(axis=axes) / (off[:-lead] ** 2).sum(axis=axes)
        np.testing.assert_allclose(damped.damping[lead - 1].squeeze(), expected, rtol=1e-4, atol=1e-6)
    pieces = [(7, np.arange(first, min(first + 10, 90))) for first in range(0, 84, 7)] + [(6, np.arange(84, 90))]
    monkeypatch.setattr(baselines_grids, "_stretches", lambda *_: iter(pieces))
    again = DampedPersistence.fit(series, leads=3, climatology=usual, per=per)
    np.testing.assert_allclose(again.damping, damped.damping, rtol=1e-4, atol=1e-6)


def test_damped_persistence_adds_the_damped_deviation():
    series = hourly(60)
    damped = DampedPersistence.fit(series, leads=2)
    times = series.times[10:15][None]
    history = torch.from_numpy(series.frames(range(10, 13)))[None]
    forecast = damped.predict(history, 2, times=times)
    now, then = damped.climatology.at(times[:, 2], (1,)), damped.climatology.at(times[:, 4], (1,))
    expected = then + damped.damping[1] * (history[:, 2] - now)
    torch.testing.assert_close(forecast[:, 1], expected)
    gone = damped.predict(torch.full_like(history, float("nan")), 2, times=times)
    torch.testing.assert_close(gone[:, 1], then)
    with pytest.raises(UserError, match="horizon 3; expected at most 2"):
        damped.predict(history, 3, times=times)


def test_damping_does_not_look_across_gaps_or_at_hidden_cells():
    times = np.concatenate([np.arange(20), np.arange(100, 120)]) * HOUR + np.datetime64("2020-01-01", "us")
    values = autoregressive(40, 0.5)
    series = GridSeries(values=values, times=times)
    usual = Climatology.fit(series, by=())
    off = values - usual.at(None, (40,)).numpy()
    pairs = [at for at in range(39) if at != 19]
    expected = sum((off[at] * off[at + 1]).sum() for at in pairs) / sum((off[at] ** 2).sum() for at in pairs)
    found = DampedPersistence.fit(series, leads=1, climatology=usual)
    assert found.damping.item() == pytest.approx(expected, rel=1e-4)
    with pytest.raises(UserError, match=r"longest stretch has 20 frames.*more than 30"):
        DampedPersistence.fit(series, leads=(30,), climatology=usual)


def test_the_frame_of_yesterday_or_the_last_known_one():
    series = hourly(60)
    naive = SeasonalNaive(series, np.timedelta64(24, "h"))
    times = series.times[20:32][None]
    history = torch.from_numpy(series.frames(range(20, 26)))[None]
    forecast = naive.predict(history, 6, times=times)
    np.testing.assert_array_equal(forecast[0, :, 0, 0, 0], series.frames(range(2, 8))[:, 0, 0, 0])
    early = naive.predict(history, 6, times=times - 21 * HOUR)
    np.testing.assert_array_equal(early[0, 0], series.frames([25])[0])
    far = SeasonalNaive(series, np.timedelta64(2, "h")).predict(history, 6, times=times)
    np.testing.assert_array_equal(far[0, :, 1, 1, 1], series.frames([24, 25, 24, 25, 24, 25])[:, 1, 1, 1])
    with pytest.raises(UserError, match="without times"):
        naive.predict(history, 6)


def test_all_take_times():
    series = hourly(30)
    history, times = torch.zeros(2, 3, 2, 3, 4), series.times[:10].reshape(2, 5)
    for one in (Persistence(), MeanFrame.fit(series), Climatology.fit(series), DampedPersistence.fit(series, leads=2)):
        assert isinstance(one, TimedForecaster)
        assert one.predict(history, 2, times=times).shape == (2, 2, 2, 3, 4)
