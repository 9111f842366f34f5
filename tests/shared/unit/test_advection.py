"""The world of winds: its law holds, its field is stationary, its best forecast has the error it is said to have."""

from __future__ import annotations

import numpy as np
import pytest

from stcore.errors import UserError
from stcore.generate.advection import Advection

WORLD = Advection(height=8, width=24, memory=0.9)


def test_winds_turn_rows_by_whole_cells_exactly() -> None:
    still = Advection(height=4, width=10, strongest=0.0)
    field = np.random.default_rng(0).normal(size=(4, 10))
    np.testing.assert_allclose(still.turned(field, 3), field, atol=1e-12)
    whole = Advection(height=3, width=9, strongest=2.0)  # the equator lies in the middle row
    assert whole.wind[1] == 2.0
    field = np.random.default_rng(0).normal(size=(3, 9))
    np.testing.assert_allclose(whole.turned(field, 2)[1], np.roll(field[1], 4), atol=1e-12)


def test_the_field_is_stationary_and_repeats_by_seed() -> None:
    series = WORLD.series(400, seed=3)
    values = series.frames(range(400)).astype(np.float64)
    assert values.mean() == pytest.approx(280.0, abs=1.0)
    assert values.std() == pytest.approx(10.0, rel=0.08)
    assert values[:50].std() == pytest.approx(values[-50:].std(), rel=0.25)
    np.testing.assert_array_equal(WORLD.series(5, seed=3).frames(range(5)), series.frames(range(5)))
    assert not np.array_equal(WORLD.series(5, seed=4).frames(range(5)), series.frames(range(5)))
    assert series.times is not None
    assert series.times[1] - series.times[0] == np.timedelta64(1, "h")
    assert np.abs(series.y).max() < 90


def test_the_best_forecast_has_the_error_of_the_law() -> None:
    values = WORLD.series(600, seed=1).frames(range(600))[:, 0].astype(np.float64)
    forecast = WORLD.best_forecast(values[:-4], 4)
    for step in (1, 4):
        error = forecast[:, step - 1] - values[step : len(values) - 4 + step]
        assert np.sqrt((error**2).mean()) == pytest.approx(WORLD.least_rmse(step), rel=0.05)
    stays = np.sqrt(((values[:-4] - values[4:]) ** 2).mean())
    assert stays > 1.2 * WORLD.least_rmse(4)


def test_impossible_worlds_are_refused() -> None:
    with pytest.raises(UserError, match="memory 1; expected a share from 0 to below 1"):
        Advection(memory=1.0)
    with pytest.raises(UserError, match="1 x 8 cells"):
        Advection(height=1, width=8)
