"""Held-back parts as the published scores of WeatherBench saw them.

There a part is scaled by its own mean and deviation. Forecasts and truth of the sets of one variable were then turned
back by the statistics of the training part: as if the part had these from the start. Those of the 6-hourly sets were
turned back by the part's own: as if the model had been trained behind that scaling.

Source: OpenSTL, `openstl/datasets/dataloader_weather.py`, and the denormalisation in its experiments.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stcore.frame_scaling import Scaling
from stcore.frame_stores import Integers, Shape, read_frames
from stcore.grids import GridSeries
from svq.data import paper_set
from svq.predict import Forecaster


@dataclass(frozen=True, eq=False)
class RescaledFrames:
    """Another store whose channels are given another mean and deviation."""

    values: Any
    factor: NDArray[np.float64]
    """(channel, 1, 1)."""
    offset: NDArray[np.float64]

    @property
    def shape(self) -> Shape:
        return self.values.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float32)

    def read(self, ids: Integers) -> NDArray[Any]:
        return (read_frames(self.values, ids) * self.factor + self.offset).astype(np.float32)


def as_published(forecaster: Forecaster, series: GridSeries) -> tuple[Forecaster, GridSeries]:
    """Return forecaster and part as the published scores had them; unchanged where nothing was published so."""
    data = forecaster.config.data
    published = paper_set(data)
    if published is None:
        return forecaster, series
    own, train = Scaling.fit(series, data.scaling), forecaster.scaling
    if published.hours > 1:
        return forecaster.with_scaling(own), series
    factor = (train.span / own.span).double().numpy()
    offset = train.low.double().numpy() - own.low.double().numpy() * factor
    return forecaster, replace(series, values=RescaledFrames(series.values, factor, offset))
