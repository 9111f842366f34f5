"""Forecasts of frames that know next to nothing: what any model has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from numpy import ndarray
from torch import Tensor

from stcore.errors import UserError

_BLOCK = 256


@runtime_checkable
class FrameForecaster(Protocol):
    """Anything that continues a history of frames."""

    def predict(
        self, history: Float[Tensor, "batch time channel height width"], horizon: int
    ) -> Float[Tensor, "batch horizon channel height width"]: ...


@runtime_checkable
class FrameSource(Protocol):
    """Frames by number, as a `GridSeries` gives them: NaN where there is no data."""

    @property
    def num_frames(self) -> int: ...

    def frames(self, ids: Int64[ndarray, "frame"], /) -> Float32[ndarray, "frame channel height width"]: ...


@dataclass(frozen=True)
class Persistence:
    """The last frame of the history stays as it is."""

    def predict(
        self, history: Float[Tensor, "batch time channel height width"], horizon: int
    ) -> Float[Tensor, "batch horizon channel height width"]:
        """Repeat the last frame."""
        return history[:, -1:].expand(-1, horizon, -1, -1, -1)


@dataclass(frozen=True, eq=False)
class MeanFrame:
    """The mean of all training frames, whatever the history."""

    frame: Float32[Tensor, "channel height width"]

    @classmethod
    def fit(cls, train: FrameSource) -> MeanFrame:
        """Average the frames of the training part, cell by cell over the frames with data there.

        A cell without data in any frame gets the mean of its channel.

        Raises:
            UserError: no frames, or none with data.
        """
        if train.num_frames == 0:
            raise UserError("training part: no frames; expected at least one to average")
        total, count = np.float64(0.0), np.float64(0.0)
        for first in range(0, train.num_frames, _BLOCK):
            ids = np.arange(first, min(first + _BLOCK, train.num_frames))
            frames = train.frames(ids).astype(np.float64)
            counted = np.isfinite(frames)
            total = total + np.where(counted, frames, 0.0).sum(axis=0)
            count = count + counted.sum(axis=0)
        channels = count.sum(axis=(1, 2), keepdims=True)
        if not channels.all():
            raise UserError(f"training part: no data in channel {int(channels.argmin()) + 1}; "
                            "expected at least one cell with a value")  # fmt: skip
        overall = total.sum(axis=(1, 2), keepdims=True) / channels
        mean = np.where(count > 0, total / np.maximum(count, 1.0), overall)
        return cls(torch.from_numpy(mean.astype(np.float32)))

    def predict(
        self, history: Float[Tensor, "batch time channel height width"], horizon: int
    ) -> Float[Tensor, "batch horizon channel height width"]:
        """Repeat the mean frame."""
        return self.frame.to(history).expand(len(history), horizon, *self.frame.shape)
