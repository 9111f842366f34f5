"""Frames less the usual ones of their time of day and season: what is left to learn where seasons rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float32, Int64
from numpy import ndarray
from numpy.typing import NDArray
from torch import Tensor

from stcore.baselines_grids import Climatology, Cycle, usual_cycles
from stcore.frame_stores import Integers, Shape, read_frames
from stcore.grids import GridSeries

SHORTEST = np.timedelta64(3, "D")
"""Training part of which usual frames are taken by time of day."""


def usual_frames(train: GridSeries) -> Climatology:
    """Return the usual frames, by time of day only where the training part has seen every time several times."""
    brief = train.times is not None and train.times.max() - train.times.min() < SHORTEST
    return Climatology.fit(train, by=[cycle for cycle in usual_cycles(train) if not (brief and cycle == "hour")])


@dataclass(frozen=True, eq=False)
class AnomalyFrames:
    """Another store less a usual frame for each of its frames."""

    values: Any
    usual: Float32[ndarray, "kind channel height width"]
    kinds: Int64[ndarray, "frame"]
    """Which usual frame is taken off each frame."""

    @property
    def shape(self) -> Shape:
        return self.values.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float32)

    def read(self, ids: Integers) -> NDArray[Any]:
        return read_frames(self.values, ids).astype(np.float32) - self.usual[self.kinds[ids]]


def anomalies(series: GridSeries, usual: Climatology) -> GridSeries:
    """Return a series less its usual frames, without reading it.

    Args:
        series: the frames; with times, where usual frames are told apart by time.
        usual: the usual frames, of the training part.

    Raises:
        UserError: times are needed and there are none.
    """
    kinds = usual.kinds(series.times, (series.num_frames,))
    return replace(series, values=AnomalyFrames(series.values, usual.frames.numpy(), kinds), value_range=None)


def pack_usual(usual: Climatology) -> dict[str, Tensor]:
    """Return the tensors that a checkpoint keeps of usual frames; what they are told apart by is for its facts."""
    return {"usual/keys": torch.from_numpy(usual.keys), "usual/frames": usual.frames}


def unpack_usual(constants: Mapping[str, Tensor], by: Sequence[str]) -> Climatology | None:
    """Rebuild the usual frames of a checkpoint; None where it has none."""
    if "usual/frames" not in constants:
        return None
    return Climatology(by=cast("tuple[Cycle, ...]", tuple(by)), keys=constants["usual/keys"].numpy(),
                       frames=constants["usual/frames"])  # fmt: skip
