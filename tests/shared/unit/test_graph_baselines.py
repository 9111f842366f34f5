"""Naive forecasts on nodes, their errors per horizon, and the figures that the data's own table gives."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from stcore.baselines_graphs import HistoricalAverage, NodeForecaster, Persistence, RidgeOnAverage, targets
from stcore.errors import UserError
from stcore.graph_windows import few_shot, window_starts
from stcore.graphs import Adjacency, GraphSeries
from stcore.metrics.horizons import HorizonErrors
from stcore.readers.graph_options import GraphReadOptions

RANDOM = np.random.default_rng(0)


def series_of(values: np.ndarray, step_seconds: int = 6 * 3600) -> GraphSeries:
    """Return a series of channel 0, four steps a day by default."""
    return GraphSeries(values=values[:, :, None], adjacency=Adjacency.empty(values.shape[1]), step_seconds=step_seconds,
                       name="town")  # fmt: skip


def test_persistence_takes_the_last_reading_there_is() -> None:
    values = np.arange(20.0).reshape(10, 2)
    values[4, 0] = np.nan
    values[:3, 1] = np.nan
    forecast = Persistence().predict(series_of(values), np.array([2, 0]), 3, 2)
    assert forecast.tolist()[0] == [[6.0, 9.0], [6.0, 9.0]] and np.isnan(forecast[1, :, 1]).all()


def test_the_historical_average_is_the_mean_of_the_time_of_day() -> None:
    values = RANDOM.normal(size=(56, 3))
    values[4:12, 1] = np.nan
    series = series_of(values)
    average = HistoricalAverage.fit(series)
    np.testing.assert_allclose(average.means, np.nanmean(values.reshape(14, 4, 3), axis=0), atol=1e-6)
    forecast = average.predict(series, np.array([1, 5]), 4, 2)
    np.testing.assert_array_equal(forecast[0], average.means[[1, 2]])
    weekly = HistoricalAverage.fit(series, weekly=True)
    np.testing.assert_allclose(weekly.means, np.nanmean(values.reshape(2, 28, 3), axis=0), atol=1e-6)
    part = HistoricalAverage.fit(series.slice(0, 3))  # the fourth time of day was never seen
    np.testing.assert_allclose(part.means[3], values[:3].mean(axis=0), atol=1e-6)
    values[:, 2] = np.nan  # a node without a reading takes what the others have at that time
    lost = HistoricalAverage.fit(series_of(values)).means
    np.testing.assert_allclose(lost[:, 2], np.nanmean(values[:, :2].reshape(14, 4, 2), axis=(0, 2)), atol=1e-6)
    with pytest.raises(UserError, match="town: no reading in the training part of 56 steps"):
        HistoricalAverage.fit(series_of(np.full((56, 2), np.nan)))


def test_the_ridge_solves_its_normal_equations_node_by_node() -> None:
    values = np.cumsum(RANDOM.normal(size=(80, 2)), axis=0)
    series = series_of(values)
    model = RidgeOnAverage.fit(series, 5, 3, ridge=0.2)
    off = values - model.average.means[np.arange(80) % 4]
    starts = np.arange(80 - 7)
    for node in range(2):
        x = np.stack([off[starts + lag, node] for lag in range(5)], axis=1)
        y = np.stack([off[starts + 5 + lead, node] for lead in range(3)], axis=1)
        penalty = np.sqrt(0.2 * len(starts) * x.var()) * np.eye(5)
        expected = np.linalg.lstsq(np.concatenate([x, penalty]), np.concatenate([y, np.zeros((5, 3))]), rcond=None)[0]
        np.testing.assert_allclose(model.maps[node], expected, atol=1e-6)
        ahead = model.predict(series, np.array([10]), 5, 3)[0, :, node]
        usual = model.average.means[(np.arange(15, 18)) % 4, node]
        np.testing.assert_allclose(ahead, usual + off[10:15, node] @ expected, atol=1e-4)
    for history, horizon in ((4, 3), (5, 4)):
        with pytest.raises(UserError, match=r"ridge: .* expected 5 in and at most 3 out"):
            model.predict(series, np.array([0]), history, horizon)
    with pytest.raises(UserError, match="town: training part of 7 steps; expected at least 8"):
        RidgeOnAverage.fit(series.slice(0, 7), 5, 3)


def test_a_process_that_only_remembers_is_forecast_as_it_should_be() -> None:
    values = np.zeros((4000, 1))
    for step in range(1, 4000):
        values[step] = 0.8 * values[step - 1] + RANDOM.normal()
    model = RidgeOnAverage.fit(series_of(values), 3, 2, ridge=1e-6)
    np.testing.assert_allclose(model.maps[0, :, 0], [0.0, 0.0, 0.8], atol=0.06)
    np.testing.assert_allclose(model.maps[0, :, 1], [0.0, 0.0, 0.64], atol=0.08)


def test_errors_are_summed_over_batches_with_missing_targets_left_out() -> None:
    truth, forecast = RANDOM.normal(size=(50, 4, 3)), RANDOM.normal(size=(50, 4, 3))
    truth[RANDOM.uniform(size=truth.shape) < 0.3] = np.nan
    truth[:, :, 2] = np.where(np.isnan(truth[:, :, 2]), np.nan, 0.0)
    errors = HorizonErrors()
    for start in range(0, 50, 7):
        errors.add(forecast[start : start + 7], truth[start : start + 7])
    off = forecast - truth
    np.testing.assert_allclose(errors.mae(), np.nanmean(np.abs(off), axis=(0, 2)))
    np.testing.assert_allclose(errors.rmse(), np.sqrt(np.nanmean(off**2, axis=(0, 2))))
    np.testing.assert_allclose(errors.mse(), np.nanmean(off**2, axis=(0, 2)))
    np.testing.assert_allclose(errors.mae_per_node(), np.nanmean(np.abs(off), axis=(0, 1)))
    np.testing.assert_allclose(errors.rmse_per_node(), np.sqrt(np.nanmean(off**2, axis=(0, 1))))
    np.testing.assert_allclose(errors.mae_per_horizon_and_node(), np.nanmean(np.abs(off), axis=0))
    share = np.where(truth == 0.0, np.nan, np.abs(off) / np.abs(np.where(truth == 0.0, np.nan, truth)))
    np.testing.assert_allclose(errors.mape_nonzero(), np.nanmean(share, axis=(0, 2)))
    assert errors.counts.sum() == np.isfinite(truth).sum() == errors.summary()["targets"]
    assert errors.summary()["mae"] == pytest.approx(np.nanmean(np.abs(off)))
    assert errors.summary()["rmse_per_horizon"] == errors.rmse().tolist()


def test_errors_with_a_mask_without_any_target_and_with_a_lost_forecast() -> None:
    errors = HorizonErrors(smallest=1.0)
    with pytest.raises(UserError, match="no window was scored"):
        errors.mae()
    truth = np.array([[[1.0, 4.0], [2.0, 8.0]]])
    mask = np.array([[[True, True], [False, False]]])
    errors.add(truth + 1.0, truth, mask=mask)
    assert errors.mae()[0] == 1.0 and np.isnan(errors.mae()[1]) and errors.mape_nonzero()[0] == 0.25
    forecast = truth.copy()
    forecast[0, 1, 0] = np.inf
    with pytest.raises(UserError, match="forecast: window 0, 2 steps ahead, node 0 is inf"):
        errors.add(forecast, truth)


TABLE = {
    "metr_la_week": (387, 3, 3.63, 6.45, 4.00),
    "beijing_subway": (455, 3, 62.4, 18.90, 18.52),
    "shenzhen_speed_40": (579, 3, 4.52, 3.70, 3.78),
    "melbourne_pedestrian": (1183, 7, 247.0, 126.9, 112.0),
}
"""Windows, days, and mean errors of persistence, historical average and ridge, as the data's BASELINES.md has them."""


@pytest.mark.skipif(not os.environ.get("STCORE_DATA"), reason="STCORE_DATA is not set: no published data here")
@pytest.mark.parametrize("name", TABLE)
def test_the_table_of_the_data_is_reproduced(name: str) -> None:
    windows, days, *expected = TABLE[name]
    series = GraphSeries.read(name)
    if name == "melbourne_pedestrian":  # as the table: the last 6 000 hours, negative counts as they are
        path = Path(os.environ["STCORE_DATA"], name, f"{name}.npz")
        series = GraphSeries.read(path, GraphReadOptions(adjacency="none", dead="keep")).slice(-6000, None)
    count = series.num_steps
    train, test = series.slice(0, int(0.7 * count)), series.slice(int(0.8 * count), None)
    steps = days * (108 if name == "beijing_subway" else series.steps_per_day)
    last = train.slice(-steps, None)
    if name != "beijing_subway":  # whose training part ends within a day that is shorter than 24 hours
        np.testing.assert_array_equal(few_shot(train, days).values, last.values)
    starts = window_starts(test, 12, 6)
    assert len(starts) == windows
    models: list[NodeForecaster] = [Persistence(), HistoricalAverage.fit(last), RidgeOnAverage.fit(last, 12, 6)]
    for model, wanted in zip(models, expected, strict=True):
        errors = HorizonErrors()
        errors.add(model.predict(test, starts, 12, 6), targets(test, starts, 12, 6))
        assert errors.mae().mean() == pytest.approx(wanted, abs=0.011 if wanted < 100 else 0.6)
