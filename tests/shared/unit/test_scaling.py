"""Scalers keep dtype and kind, undo themselves and survive a checkpoint."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stcore.errors import UserError
from stcore.scaling import LogTransform, MinMaxScaler, StandardScaler

VALUES = np.array([[1.0, 10.0, 5.0], [3.0, 30.0, 5.0], [2.0, 40.0, 5.0]])


def test_min_max_maps_the_fitted_range_to_the_unit_interval_and_keeps_what_lies_outside() -> None:
    scaler = MinMaxScaler.fit(VALUES)
    assert scaler.transform(VALUES).tolist() == [[0.0, 0.0, 0.0], [1.0, 2 / 3, 0.0], [0.5, 1.0, 0.0]]
    assert scaler.transform(np.array([[5.0, -20.0, 6.0]])).tolist() == [[2.0, -1.0, 1.0]]


def test_standard_gives_mean_0_and_deviation_1_and_maps_a_constant_column_to_0() -> None:
    scaled = StandardScaler.fit(VALUES).transform(VALUES)
    np.testing.assert_allclose(scaled.mean(axis=0), 0.0, atol=1e-15)
    np.testing.assert_allclose(scaled.std(axis=0), [1.0, 1.0, 0.0], atol=1e-15)
    assert StandardScaler.fit(np.full((7, 1), 0.1)).std[0] == 0.0


def test_log_takes_small_values_at_its_floor() -> None:
    values = np.array([0.0, 1e-9, 1e-4, 1.0])
    assert LogTransform(1e-4).transform(values).tolist() == [np.log(1e-4)] * 3 + [0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scaler", [MinMaxScaler.fit(VALUES), StandardScaler.fit(VALUES), LogTransform(0.01)])
def test_tensors_and_arrays_agree_and_keep_their_dtype(
    scaler: MinMaxScaler | StandardScaler | LogTransform, dtype: torch.dtype
) -> None:
    tensor = torch.tensor(VALUES, dtype=dtype)
    scaled = scaler.transform(tensor)
    assert scaled.dtype == dtype and scaler.transform(tensor.numpy()).dtype == tensor.numpy().dtype
    np.testing.assert_allclose(scaled.numpy(), scaler.transform(tensor.numpy()), rtol=1e-6)
    np.testing.assert_allclose(scaler.inverse(scaled).numpy(), VALUES, rtol=1e-6)


@pytest.mark.parametrize("scaler", [MinMaxScaler.fit(VALUES), StandardScaler.fit(VALUES), LogTransform(0.01)])
def test_state_rebuilds_the_scaler(scaler: MinMaxScaler | StandardScaler | LogTransform) -> None:
    again = type(scaler).from_state(scaler.state())
    assert np.array_equal(again.transform(VALUES), scaler.transform(VALUES))


@pytest.mark.parametrize("kind", [MinMaxScaler, StandardScaler, LogTransform])
def test_fitting_refuses_what_has_no_statistics(kind: type[MinMaxScaler | StandardScaler | LogTransform]) -> None:
    with pytest.raises(UserError, match=r"row 1, column 0 is nan; expected finite"):
        kind.fit(np.array([[1.0], [np.nan]]))
    with pytest.raises(UserError, match="expected rows and columns, at least one row"):
        kind.fit(np.zeros((0, 2)))


def test_impossible_constants_are_refused() -> None:
    with pytest.raises(UserError, match="expected finite low <= high"):
        MinMaxScaler(np.array([1.0]), np.array([0.0]))
    with pytest.raises(UserError, match="std >= 0"):
        StandardScaler(np.array([1.0]), np.array([-1.0]))
    with pytest.raises(UserError, match="expected a number above 0"):
        LogTransform(0.0)
