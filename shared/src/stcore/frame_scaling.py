"""What maps the values of frames to what a model sees, channel by channel; fitted on the training part alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from stcore.errors import UserError
from stcore.frame_stores import batches
from stcore.grids import GridSeries


@dataclass(frozen=True, eq=False)
class Scaling:
    """Subtract `low` and divide by `span`, channel by channel."""

    low: Float[Tensor, "channel 1 1"]
    span: Float[Tensor, "channel 1 1"]

    @classmethod
    def fit(cls, train: GridSeries, kind: str) -> Scaling:
        """Take the declared range of the training part, or what its values say.

        Args:
            train: the training part.
            kind: `range` (declared) or `fit` (found) to [0, 1]; `standard`: mean and deviation to 0 and 1; `auto`: the
                declared range where there is one, else the found one; `none`.

        Raises:
            UserError: the declared range is asked for and there is none, or a channel has one value only.
        """
        channels = train.num_channels
        if kind == "none":
            return cls(torch.zeros(channels, 1, 1), torch.ones(channels, 1, 1))
        if kind == "range" or (kind == "auto" and train.value_range is not None):
            if train.value_range is None:
                raise UserError("data.scaling: 'range' without a declared range; expected one; pass --data.value-range")
            low, high = train.value_range
            return cls(torch.full((channels, 1, 1), low), torch.full((channels, 1, 1), high - low))
        low, span = _moments(train) if kind == "standard" else _extremes(train)
        for name, width in zip(train.channels, span, strict=True):
            if not width > 0.0:
                raise UserError(f"training part: channel {name} has one value only; expected one that varies; pass "
                                "--data.scaling none, or --data.value-range")  # fmt: skip
        return cls(*(torch.tensor(part, dtype=torch.float32)[:, None, None] for part in (low, span)))

    def transform(self, frames: Float[Tensor, "*batch channel height width"]) -> Tensor:
        """Map values to the model's scale; missing cells become 0."""
        return ((frames - self.low.to(frames)) / self.span.to(frames)).nan_to_num(nan=0.0)

    def inverse(self, frames: Float[Tensor, "*batch channel height width"]) -> Tensor:
        """Undo `transform`."""
        return frames * self.span.to(frames) + self.low.to(frames)

    def constants(self) -> dict[str, Tensor]:
        """Return the tensors that a checkpoint keeps."""
        return {"scaling/low": self.low, "scaling/span": self.span}

    @classmethod
    def restore(cls, constants: Mapping[str, Tensor]) -> Scaling:
        """Rebuild what `constants` kept."""
        return cls(constants["scaling/low"], constants["scaling/span"])


def _extremes(series: GridSeries) -> tuple[ndarray, ndarray]:
    low, high = np.full(series.num_channels, np.inf), np.full(series.num_channels, -np.inf)
    for frames in _blocks(series):
        flat = np.moveaxis(frames, 1, 0).reshape(series.num_channels, -1)
        low, high = np.fmin(low, np.fmin.reduce(flat, axis=1)), np.fmax(high, np.fmax.reduce(flat, axis=1))
    return low, high - low


def _moments(series: GridSeries) -> tuple[ndarray, ndarray]:
    """Return mean and deviation of each channel, over two passes: sums of squares alone would lose digits."""
    total = np.zeros(series.num_channels)
    count = np.zeros(series.num_channels)
    for frames in _blocks(series):
        total += np.nansum(frames, axis=(0, 2, 3), dtype=np.float64)
        count += np.isfinite(frames).sum(axis=(0, 2, 3))
    mean = total / np.maximum(count, 1)
    squares = np.zeros(series.num_channels)
    for frames in _blocks(series):
        squares += np.nansum((frames - mean[:, None, None]) ** 2, axis=(0, 2, 3), dtype=np.float64)
    return mean, np.sqrt(squares / np.maximum(count, 1))


def _blocks(series: GridSeries) -> Iterator[ndarray]:
    return (series.frames(ids) for ids in batches(series.num_frames, 4 * int(np.prod(series.shape[1:]))))
