"""Highest-density regions of the next location: their areas, and their outlines as GeoJSON.

The density is a Gaussian kernel estimate of the samples. A region of level q is where it exceeds the (1 - q)
quantile of its leave-one-out values at the samples, the rule by which evaluation counts coverage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from stcore.metrics.calibration import LevelMap
from stcore.metrics.density import density_on_grid, fit_kernel, leave_one_out

GRID = 96
"""Grid points per axis on which regions are measured and outlined."""
MARGIN = 0.2
"""Share of the samples' extent that the grid goes beyond it on each side."""


@dataclass(frozen=True, eq=False)
class Regions:
    """Regions of a chunk of events on one grid each."""

    levels: tuple[float, ...]
    x: NDArray[np.float64]
    """Grid of each event (event, point)."""
    y: NDArray[np.float64]
    density: NDArray[np.float64]
    """(event, x, y), per square unit of the coordinates."""
    thresholds: NDArray[np.float64]
    """Density at the border of each region (event, level)."""

    @property
    def areas(self) -> NDArray[np.float64]:
        """Area of each region in square units of the coordinates (event, level)."""
        cell = (self.x[:, 1] - self.x[:, 0]) * (self.y[:, 1] - self.y[:, 0])
        inside = self.density[:, None] >= self.thresholds[:, :, None, None]
        return inside.sum(axis=(2, 3)) * cell[:, None]

    def features(self, sequence_id: NDArray[Any], event: NDArray[np.int64]) -> Iterator[dict[str, Any]]:
        """Yield a GeoJSON feature for every event and level; polygons with their holes."""
        for row in range(len(self.density)):
            for level, threshold in zip(self.levels, self.thresholds[row], strict=True):
                yield {
                    "type": "Feature",
                    "properties": {"sequence_id": str(sequence_id[row]), "event": int(event[row]), "level": level},
                    "geometry": {"type": "MultiPolygon", "coordinates": self._polygons(row, float(threshold))},
                }

    def _polygons(self, row: int, threshold: float) -> list[list[list[list[float]]]]:
        from contourpy import FillType, contour_generator

        generator: Any = contour_generator(
            self.x[row], self.y[row], self.density[row].T, fill_type=FillType.OuterOffset
        )
        points, offsets = generator.filled(threshold, np.inf)
        return [
            [ring.round(6).tolist() for ring in np.split(outline, cuts[1:-1])]
            for outline, cuts in zip(points, offsets, strict=True)
        ]


def regions(
    samples: Float[Tensor, "event sample 2"], levels: Sequence[float], *, asked: LevelMap | None = None
) -> Regions:
    """Find the smallest regions that hold the given shares of the sampled locations.

    Args:
        samples: locations, at least three of each event.
        levels: shares inside, in (0, 1).
        asked: which share to take for each level, when levels are calibrated.
    """
    kernel = fit_kernel(samples.double())
    low, high = samples.double().aminmax(dim=1)
    margin = MARGIN * (high - low).clamp_min(1e-9)
    steps = torch.linspace(0.0, 1.0, GRID, dtype=torch.float64)
    axes = torch.lerp((low - margin)[:, :, None], (high + margin)[:, :, None], steps)
    density = density_on_grid(kernel, axes[:, 0], axes[:, 1])
    shares = torch.tensor(list(levels), dtype=torch.float64)
    inside = shares if asked is None else asked(shares)
    thresholds = torch.quantile(leave_one_out(kernel), 1.0 - inside, dim=1).mT
    return Regions(tuple(levels), axes[:, 0].numpy(), axes[:, 1].numpy(), density.numpy(), thresholds.numpy())
