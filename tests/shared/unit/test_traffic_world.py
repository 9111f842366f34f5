"""The world of traffic: its law is what its data obey, and its best forecast is the best."""

from __future__ import annotations

import numpy as np
import pytest

from stcore.baselines_graphs import HistoricalAverage, NodeForecaster, Persistence, RidgeOnAverage, targets
from stcore.errors import UserError
from stcore.generate.traffic import TrafficCity, TrafficLaw, simulate_cities
from stcore.graph_windows import split_graph, window_starts
from stcore.metrics.horizons import HorizonErrors

CITY = TrafficCity.make(20, seed=3)
SERIES = CITY.series(140, seed=4)


def test_the_best_forecast_has_the_error_that_the_law_says_and_beats_what_knows_less() -> None:
    parts = split_graph(SERIES, "chronological")
    starts = window_starts(parts.test, 12, 6)
    truth = targets(parts.test, starts, 12, 6)
    best = HorizonErrors()
    best.add(CITY.best_forecast(parts.test, starts, 12, 6), truth)
    np.testing.assert_allclose(best.rmse(), CITY.least_rmse(6), rtol=0.03)
    assert (np.diff(CITY.least_rmse(6)) > 0).all() and CITY.least_rmse(1)[0] == pytest.approx(CITY.law.noise)
    naive: list[NodeForecaster] = [Persistence(), HistoricalAverage.fit(parts.train, weekly=True)]
    naive.append(RidgeOnAverage.fit(parts.train, 12, 6, average=HistoricalAverage.fit(parts.train, weekly=True)))
    for model in naive:
        errors = HorizonErrors()
        errors.add(model.predict(parts.test, starts, 12, 6), truth)
        assert (errors.rmse() > best.rmse()).all()


def test_steps_follow_the_law() -> None:
    off = SERIES.values[:, :, 0] - CITY.usual_of(SERIES)
    fresh = off[1:] - off[:-1] @ CITY.transfer.T
    assert fresh.std() == pytest.approx(CITY.law.noise, rel=0.01) and abs(fresh.mean()) < 0.02
    fitted = np.linalg.lstsq(off[:-1], off[1:], rcond=None)[0].T
    np.testing.assert_allclose(fitted, CITY.transfer, atol=0.06)
    np.testing.assert_allclose(off.mean(axis=0), 0.0, atol=0.6)
    assert float(np.abs(np.linalg.eigvals(CITY.transfer)).max()) < 1.0


def test_mornings_are_slow_in_the_outskirts_evenings_in_the_centre_and_weekends_quick() -> None:
    away = np.linalg.norm(CITY.points - CITY.points.mean(axis=0), axis=1)
    outer, inner = int(away.argmax()), int(away.argmin())
    day = CITY.usual[: CITY.law.steps_per_day]
    assert 7 <= int(day[:, outer].argmin()) * CITY.law.step_minutes / 60 <= 9
    assert 16 <= int(day[:, inner].argmin()) * CITY.law.step_minutes / 60 <= 19
    assert (CITY.usual[: 5 * 96].min(axis=0) < CITY.usual[5 * 96 :].min(axis=0)).all()
    assert day[0, outer] > day[0, inner] and SERIES.values.min() > 0.0


def test_networks_are_connected_symmetric_and_have_loops() -> None:
    for seed in range(5):
        dense = TrafficCity.make(30, seed=seed).adjacency.dense()
        np.testing.assert_array_equal(dense, dense.T)
        np.testing.assert_array_equal(np.diag(dense), 1.0)
        assert (np.linalg.matrix_power(dense, 30) > 0).all()


def test_cities_are_drawn_from_their_seed_and_differ() -> None:
    law = TrafficLaw(step_minutes=60)
    cities = simulate_cities(7, nodes=(8, 9, 10, 11), days=(5, 5, 5, 2), law=law)
    again = simulate_cities(7, nodes=(8, 9, 10, 11), days=(5, 5, 5, 2), law=law)
    assert [city.name for city in cities] == ["city-1", "city-2", "city-3", "city-4"]
    assert [city.shape for city in cities] == [(120, 8, 1), (120, 9, 1), (120, 10, 1), (48, 11, 1)]
    for one, other in zip(cities, again, strict=True):
        np.testing.assert_array_equal(one.values, other.values)
        np.testing.assert_array_equal(one.adjacency.dense(), other.adjacency.dense())
    same = simulate_cities(7, 2, nodes=8, days=1, law=law)
    assert not np.array_equal(same[0].values, same[1].values)
    np.testing.assert_array_equal(same[0].adjacency.dense(), cities[0].adjacency.dense())
    assert cities[0].times is not None and cities[0].day_of_week()[0] == 0 and cities[0].units == ("km/h",)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: TrafficLaw(step_minutes=7), "step-minutes: 7"),
        (lambda: TrafficLaw(memory=(0.9, 1.0)), "memory"),
        (lambda: TrafficCity.make(3, seed=0), "nodes: 3; expected at least 4"),
        (lambda: CITY.series(0, seed=0), "days: 0"),
        (lambda: simulate_cities(0, 3, nodes=(8, 9)), "nodes: 2 numbers for 3 cities"),
    ],
)
def test_wrong_worlds_are_refused(make: object, expected: str) -> None:
    assert callable(make)
    with pytest.raises(UserError, match=expected):
        make()
