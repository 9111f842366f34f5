"""A field that winds carry around the globe while it fades and is stirred anew: its best forecast is known.

Every row r of a grid that closes in longitude turns by `wind[r]` cells a step; what is left is multiplied by `memory`,
and fresh weather, smooth in space, of variance 1 - memory² is added, so that the field keeps its variance 1:

    u(t+1, r, x) = memory · u(t, r, x - wind[r]) + sqrt(1 - memory²) · fresh(t+1, r, x)

The best forecast in the mean square, h steps ahead, is memory^h · u(t, r, x - h · wind[r]); its error variance is
1 - memory^(2h). Turning by a part of a cell is exact, by the phases of the row's Fourier series.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64
from numpy import ndarray

from stcore.errors import UserError
from stcore.grids import GridSeries
from stcore.sampling import derive_seed

START = np.datetime64("2000-01-01T00", "us")
STEP = np.timedelta64(1, "h")


@dataclass(frozen=True, kw_only=True)
class Advection:
    """A world of winds."""

    height: int = 16
    """Rows, from south to north."""
    width: int = 32
    """Columns, around the globe."""
    strongest: float = 1.5
    """Wind over the equator in cells a step; towards the poles it falls to none and turns."""
    memory: float = 0.95
    """Share of the field that is left after a step."""
    smooth: float = 2.0
    """Length in cells over which fresh weather is alike."""
    mean: float = 280.0
    """Mean of the field."""
    spread: float = 10.0
    """Deviation of the field."""
    unit: str = "K"

    def __post_init__(self) -> None:
        if self.height < 2 or self.width < 2:
            raise UserError(f"advection: {self.height} x {self.width} cells; expected at least 2 x 2")
        if not 0.0 <= self.memory < 1.0:
            raise UserError(f"advection: memory {self.memory:g}; expected a share from 0 to below 1")

    @property
    def latitude(self) -> Float64[ndarray, "height"]:
        """Degrees of the rows' middles."""
        side = 180.0 / self.height
        return -90.0 + side * (np.arange(self.height) + 0.5)

    @property
    def longitude(self) -> Float64[ndarray, "width"]:
        """Degrees of the columns."""
        return 360.0 / self.width * np.arange(self.width)

    @property
    def wind(self) -> Float64[ndarray, "height"]:
        """Cells a step to the east, row by row: west winds in the middle, east winds near the poles."""
        return self.strongest * np.cos(1.5 * np.deg2rad(self.latitude))

    def series(self, frames: int, *, seed: int) -> GridSeries:
        """Return a stretch of weather, an hour a frame, that began long before."""
        rng = np.random.default_rng(derive_seed(seed, "advection"))
        field = self._fresh(rng)
        values = np.empty((frames, 1, self.height, self.width), dtype=np.float32)
        stirring = np.sqrt(1.0 - self.memory**2)
        for at in range(frames):  # each frame is made of the one before
            values[at, 0] = self.mean + self.spread * field
            field = self.memory * self.turned(field, 1) + stirring * self._fresh(rng)
        times = START + np.arange(frames) * STEP
        return GridSeries(values=values, times=times, channels=("field",), units=(self.unit,), y=self.latitude,
                          x=self.longitude, axis_names=("latitude", "longitude"))  # fmt: skip

    def best_forecast(
        self, last: Float[ndarray, "*batch height width"], horizon: int
    ) -> Float64[ndarray, "*batch horizon height width"]:
        """Return the conditional means of the frames after `last`."""
        off = (np.asarray(last, dtype=np.float64) - self.mean) / self.spread
        ahead = [self.memory**step * self.turned(off, step) for step in range(1, horizon + 1)]
        return self.mean + self.spread * np.stack(ahead, axis=-3)

    def least_rmse(self, step: int) -> float:
        """Return the error of the best forecast `step` frames ahead."""
        return self.spread * float(np.sqrt(1.0 - self.memory ** (2 * step)))

    def turned(
        self, field: Float[ndarray, "*batch height width"], steps: int
    ) -> Float64[ndarray, "*batch height width"]:
        """Return a field after the winds have blown for some steps."""
        waves = np.fft.rfft(field, axis=-1)
        number = np.arange(waves.shape[-1])
        phase = np.exp(-2j * np.pi * number * self.wind[:, None] * steps / self.width)
        if self.width % 2 == 0:
            phase[:, -1] = phase[:, -1].real  # the shortest wave has no direction
        return np.fft.irfft(waves * phase, n=self.width, axis=-1)

    def _fresh(self, rng: np.random.Generator) -> Float64[ndarray, "height width"]:
        """Draw smooth noise of variance 1, the same everywhere."""
        rows, columns = _kernel(self.height, self.smooth, closed=False), _kernel(self.width, self.smooth, closed=True)
        return rows @ rng.standard_normal((self.height, self.width)) @ columns.T


def _kernel(cells: int, smooth: float, *, closed: bool) -> Float64[ndarray, "cells cells"]:
    """Return Gaussian weights between cells along an axis, whose rows have length 1."""
    away = np.abs(np.arange(cells)[:, None] - np.arange(cells))
    if closed:
        away = np.minimum(away, cells - away)
    weights = np.exp(-((away / smooth) ** 2))
    return weights / np.linalg.norm(weights, axis=1, keepdims=True)
