"""Scalers: fitted on the training part, computed in the dtype and on the device of their input, exactly undone.

A scaler works column by column on the last axis of NumPy arrays and of torch tensors alike. `state()` holds all of
it as arrays, fit for a checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from stcore.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

Values = TypeVar("Values", NDArray[Any], "Tensor")
Columns = NDArray[np.float64]


def _like(values: NDArray[Any] | Tensor, constants: Columns) -> Any:
    """Return `constants` as what `values` is: array or tensor, same dtype, same device."""
    if isinstance(values, np.ndarray):
        return constants.astype(values.dtype) if values.dtype.kind == "f" else constants
    return values.new_tensor(constants)


def _columns(values: Any) -> Columns:
    array = np.array(values, dtype=np.float64, ndmin=1)
    array.setflags(write=False)
    return array


def _checked(rows: NDArray[np.float64], scaler: str) -> NDArray[np.float64]:
    array = np.asarray(rows, dtype=np.float64)
    if array.ndim != 2 or not len(array):
        raise UserError(f"{scaler}: values of shape {array.shape}; expected rows and columns, at least one row")
    if not np.isfinite(array).all():
        row, column = np.argwhere(~np.isfinite(array))[0]
        raise UserError(f"{scaler}: row {row}, column {column} is {array[row, column]}; expected finite numbers")
    return array


@dataclass(frozen=True, eq=False)
class MinMaxScaler:
    """Map each column from [low, high] to [0, 1]; values outside stay outside. A constant column maps to 0."""

    low: Columns
    high: Columns

    def __post_init__(self) -> None:
        object.__setattr__(self, "low", _columns(self.low))
        object.__setattr__(self, "high", _columns(self.high))
        if self.low.shape != self.high.shape or not (np.isfinite(self.low) & (self.low <= self.high)).all():
            raise UserError(f"min-max scaler: low {self.low}, high {self.high}; expected finite low <= high per column")

    @classmethod
    def fit(cls, values: NDArray[np.float64]) -> MinMaxScaler:
        """Take the smallest and largest value of each column of `values` (row, column).

        >>> MinMaxScaler.fit(np.array([[0.0, 5.0], [4.0, 5.0]])).transform(np.array([[1.0, 5.0]]))
        array([[0.25, 0.  ]])
        """
        rows = _checked(values, "min-max scaler")
        return cls(rows.min(axis=0), rows.max(axis=0))

    @property
    def span(self) -> Columns:
        """Width of each column; 1 where the column is constant, so that nothing is divided by 0."""
        return np.where(self.high > self.low, self.high - self.low, 1.0)

    def transform(self, values: Values) -> Values:
        """Map to the unit interval."""
        return cast("Values", (values - _like(values, self.low)) / _like(values, self.span))

    def inverse(self, values: Values) -> Values:
        """Undo `transform`."""
        return cast("Values", values * _like(values, self.span) + _like(values, self.low))

    def state(self) -> dict[str, Columns]:
        """Return everything that was fitted, as arrays."""
        return {"low": self.low, "high": self.high}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> MinMaxScaler:
        """Rebuild what `state` came from."""
        return cls(_columns(state["low"]), _columns(state["high"]))


@dataclass(frozen=True, eq=False)
class StandardScaler:
    """Map each column to mean 0 and standard deviation 1. A constant column maps to 0."""

    mean: Columns
    std: Columns

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", _columns(self.mean))
        object.__setattr__(self, "std", _columns(self.std))
        if self.mean.shape != self.std.shape or not (np.isfinite(self.mean) & (self.std >= 0.0)).all():
            raise UserError(f"standard scaler: mean {self.mean}, std {self.std}; expected finite means and std >= 0")

    @classmethod
    def fit(cls, values: NDArray[np.float64]) -> StandardScaler:
        """Take mean and (population) standard deviation of each column of `values` (row, column)."""
        rows = _checked(values, "standard scaler")
        constant = rows.min(axis=0) == rows.max(axis=0)  # rounding would give a constant column a tiny deviation
        return cls(np.where(constant, rows[0], rows.mean(axis=0)), np.where(constant, 0.0, rows.std(axis=0)))

    @property
    def span(self) -> Columns:
        """Standard deviation; 1 where it is 0."""
        return np.where(self.std > 0.0, self.std, 1.0)

    def transform(self, values: Values) -> Values:
        """Map to mean 0 and standard deviation 1."""
        return cast("Values", (values - _like(values, self.mean)) / _like(values, self.span))

    def inverse(self, values: Values) -> Values:
        """Undo `transform`."""
        return cast("Values", values * _like(values, self.span) + _like(values, self.mean))

    def state(self) -> dict[str, Columns]:
        """Return everything that was fitted, as arrays."""
        return {"mean": self.mean, "std": self.std}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> StandardScaler:
        """Rebuild what `state` came from."""
        return cls(_columns(state["mean"]), _columns(state["std"]))


@dataclass(frozen=True)
class LogTransform:
    """Natural logarithm of max(value, floor). Undone exactly above the floor; below it, the floor comes back."""

    floor: float = 1e-4

    def __post_init__(self) -> None:
        if not 0.0 < self.floor < float("inf"):
            raise UserError(f"log transform: floor {self.floor}; expected a number above 0")

    @classmethod
    def fit(cls, values: NDArray[np.float64]) -> LogTransform:
        """Nothing is fitted: the floor is a choice, not a statistic."""
        _checked(values, "log transform")
        return cls()

    def transform(self, values: Values) -> Values:
        """Take the logarithm."""
        if isinstance(values, np.ndarray):
            return np.log(np.maximum(values, self.floor))
        return values.clamp(min=self.floor).log()

    def inverse(self, values: Values) -> Values:
        """Take the exponential."""
        return np.exp(values) if isinstance(values, np.ndarray) else values.exp()

    def state(self) -> dict[str, Columns]:
        """Return the floor as an array."""
        return {"floor": _columns(self.floor)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> LogTransform:
        """Rebuild what `state` came from."""
        return cls(float(_columns(state["floor"])[0]))
