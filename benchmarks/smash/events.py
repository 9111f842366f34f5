"""The Earthquake events as both sides of a comparison take them: scaled by the training part, ragged."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

SMALLEST_GAP = 1e-4


@dataclass(frozen=True)
class Constants:
    """Extremes of the log-gap and the coordinates over the training part."""

    low: Float[NDArray[np.float64], "3"]
    high: Float[NDArray[np.float64], "3"]


def earthquake_file() -> Path:
    """Return the arrays of the Earthquake set below `$STCORE_DATA`.

    Raises:
        SystemExit: they are not there.
    """
    path = Path(os.environ.get("STCORE_DATA", "")) / "smash_earthquake" / "smash_earthquake.npz"
    if not path.is_file():
        raise SystemExit("STCORE_DATA: no smash_earthquake/smash_earthquake.npz; expected the folder of the data sets")
    return path


def read_part(part: str) -> list[Float[NDArray[np.float64], "event 5"]]:
    """Return the sequences of `train`, `val` or `test`: columns time, log-gap, 1-based mark, longitude, latitude."""
    with np.load(earthquake_file()) as arrays:
        time, mark = arrays[f"{part}_time"], arrays[f"{part}_mark"]
        location, offsets = arrays[f"{part}_loc"], arrays[f"{part}_offset"]
    gap = np.diff(time, prepend=0.0)
    gap[offsets[:-1]] = time[offsets[:-1]]
    columns = np.column_stack([time, np.log(np.maximum(gap, SMALLEST_GAP)), mark + 1.0, location])
    return np.split(columns, offsets[1:-1])


def fit_constants(sequences: list[Float[NDArray[np.float64], "event 5"]]) -> Constants:
    """Return the extremes of gap and location over the given sequences."""
    everything = np.concatenate(sequences)[:, [1, 3, 4]]
    return Constants(everything.min(0), everything.max(0))


def scale(
    sequences: list[Float[NDArray[np.float64], "event 5"]], constants: Constants
) -> list[Float[Tensor, "event 5"]]:
    """Map gap and location to [0, 1] over the training part; time and mark stay."""
    low = np.array([0.0, constants.low[0], 0.0, *constants.low[1:]])
    high = np.array([1.0, constants.high[0], 1.0, *constants.high[1:]])
    return [torch.from_numpy(((sequence - low) / (high - low)).astype(np.float32)) for sequence in sequences]
