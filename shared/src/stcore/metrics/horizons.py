"""Point errors of forecasts on nodes, per steps ahead and per node, summed up batch by batch.

A target that is missing (NaN) counts nowhere. RMSE is of all errors together, not a mean of the nodes' RMSEs. The mean
absolute percentage error leaves out targets of 0 too (and those closer to 0 than `smallest`), and says so in its name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64
from numpy import ndarray
from numpy.typing import NDArray

from stcore.errors import UserError

Values = Float[ndarray, "window horizon node"]


@dataclass(kw_only=True)
class HorizonErrors:
    """Sums of errors per horizon and node, in the units of the data.

    >>> errors = HorizonErrors()
    >>> errors.add(np.array([[[1.0], [3.0]]]), np.array([[[2.0], [1.0]]]))
    >>> errors.mae().tolist(), errors.rmse().tolist()
    ([1.0, 2.0], [1.0, 2.0])
    """

    smallest: float = 0.0
    """Targets whose size is at most this are left out of percentage errors."""
    _sums: dict[str, NDArray[np.float64]] = field(default_factory=dict[str, NDArray[np.float64]])

    def add(self, forecast: Values, truth: Values, *, mask: Bool[ndarray, "window horizon node"] | None = None) -> None:
        """Add windows.

        Args:
            forecast: in native units, finite wherever there is a target.
            truth: targets in the same units; NaN where there is none.
            mask: True where a target counts.

        Raises:
            UserError: a forecast for a target is not finite.
        """
        known = np.isfinite(truth) if mask is None else np.isfinite(truth) & mask
        if (lost := known & ~np.isfinite(forecast)).any():
            window, horizon, node = np.argwhere(lost)[0].tolist()
            raise UserError(
                f"forecast: window {window}, {horizon + 1} steps ahead, node {node} is "
                f"{forecast[window, horizon, node]}; expected a finite number"
            )
        error = np.where(known, forecast.astype(np.float64) - truth, 0.0)
        share = known & (np.abs(truth) > self.smallest)
        relative = np.abs(error) / np.where(share, np.abs(truth), 1.0)
        sums = {
            "count": known.sum(axis=0, dtype=np.float64),
            "absolute": np.abs(error).sum(axis=0),
            "square": np.square(error).sum(axis=0),
            "share_count": share.sum(axis=0, dtype=np.float64),
            "share": np.where(share, relative, 0.0).sum(axis=0),
        }
        for name, values in sums.items():
            self._sums[name] = self._sums[name] + values if name in self._sums else values

    @property
    def counts(self) -> Float64[ndarray, "horizon node"]:
        """How many targets were counted."""
        return self._of("count")

    def _of(self, name: str) -> NDArray[np.float64]:
        if name not in self._sums:
            raise UserError("errors: no window was scored; expected at least one")
        return self._sums[name]

    def mae(self) -> Float64[ndarray, "horizon"]:
        """Return the mean absolute error per horizon; NaN where nothing was counted."""
        return _over(self._of("absolute").sum(axis=1), self._of("count").sum(axis=1))

    def mse(self) -> Float64[ndarray, "horizon"]:
        """Return the mean squared error per horizon."""
        return _over(self._of("square").sum(axis=1), self._of("count").sum(axis=1))

    def rmse(self) -> Float64[ndarray, "horizon"]:
        """Return the root of the mean squared error per horizon, all nodes together."""
        return np.sqrt(self.mse())

    def mape_nonzero(self) -> Float64[ndarray, "horizon"]:
        """Return the mean absolute error as a share (1 is 100 %) of targets other than 0, per horizon."""
        return _over(self._of("share").sum(axis=1), self._of("share_count").sum(axis=1))

    def mae_per_node(self) -> Float64[ndarray, "node"]:
        """Return the mean absolute error of each node over all horizons."""
        return _over(self._of("absolute").sum(axis=0), self._of("count").sum(axis=0))

    def rmse_per_node(self) -> Float64[ndarray, "node"]:
        """Return the root of the mean squared error of each node over all horizons."""
        return np.sqrt(_over(self._of("square").sum(axis=0), self._of("count").sum(axis=0)))

    def mae_per_horizon_and_node(self) -> Float64[ndarray, "horizon node"]:
        """Return the mean absolute error of each node at each horizon."""
        return _over(self._of("absolute"), self._of("count"))

    def summary(self) -> dict[str, Any]:
        """Return the errors per horizon and over all targets, as plain values fit for JSON."""
        count = self._of("count").sum()
        return {
            "mae": float(_over(self._of("absolute").sum(), count)),
            "rmse": float(np.sqrt(_over(self._of("square").sum(), count))),
            "mape_nonzero": float(_over(self._of("share").sum(), self._of("share_count").sum())),
            "targets": int(count),
            "mae_per_horizon": self.mae().tolist(),
            "rmse_per_horizon": self.rmse().tolist(),
            "mape_nonzero_per_horizon": self.mape_nonzero().tolist(),
        }


def _over(total: Any, count: Any) -> Any:
    """Divide; NaN where nothing was counted."""
    return np.where(np.asarray(count) > 0, total / np.maximum(count, 1.0), np.nan)
