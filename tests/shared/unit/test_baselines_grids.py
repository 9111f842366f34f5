"""Persistence and the mean frame, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stcore import baselines_grids
from stcore.baselines_grids import FrameForecaster, MeanFrame, Persistence
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
