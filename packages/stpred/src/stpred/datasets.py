"""The original's data sets as torch datasets: folders `<root>/<split>/example000001…`, inputs and labels.

For modules of one's own and `Trainer`; `stpred train` reads the same folders through the core. Scales are the
original's (github.com/dreaming-coder/Spatiotemporal-Prediction, `resources/`); listings are sorted, roots are given.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from stcore.catalog import DATA_VARIABLE
from stcore.errors import UserError
from stcore.grids import GridSeries
from stcore.readers.grid_options import GridFormat, GridReadOptions
from stcore.readers.grids import read_grid

Split = Literal["train", "validation", "test"]


class _Examples(Dataset[tuple[Tensor, Tensor]]):
    """Examples of one split.

    Args:
        dataset: the split: `train`, `validation` or `test`.
        root: folder that holds the splits; None takes the one of this data set under $STCORE_DATA.

    Raises:
        UserError: there is no such folder, or its files are not those of this data set.
    """

    folder: ClassVar[str]
    format: ClassVar[GridFormat]
    history: ClassVar[int]
    highest: ClassVar[float]

    def __init__(self, dataset: Split = "train", *, root: Path | str | None = None) -> None:
        if dataset not in ("train", "validation", "test"):
            raise UserError(f"dataset: {dataset!r}; expected train, validation or test")
        base = Path(root) if root is not None else Path(os.environ.get(DATA_VARIABLE, "."), self.folder)
        if not (base / dataset).is_dir():
            raise UserError(f"{base / dataset}: no such folder; expected one with example000001 and so on; pass root")
        options = GridReadOptions(source=(str(base / dataset),), format=self.format)
        self.series: GridSeries = read_grid(options.source[0], options)
        edges = np.searchsorted(self.series.clip_numbers, np.arange(self.series.num_clips + 1))
        self._edges = [int(edge) for edge in edges]

    def __len__(self) -> int:
        return self.series.num_clips

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return inputs and labels of an example, each (time, channel, height, width)."""
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        frames = self.series.frames(range(self._edges[index], self._edges[index + 1]))
        both = torch.from_numpy(frames / np.float32(self.highest))
        return both[: self.history], both[self.history :]


class MovingMNISTDataset(_Examples):
    """Files `exampleNNNNNN.npz` with `inputs` and `labels` (10, 1, 64, 64) in [0, 1]."""

    folder, format, history, highest = "MovingMNIST", "moving-mnist", 10, 1.0


class KTHDataset(_Examples):
    """Folders `exampleNNNNNN` of pictures, as grey values in [0, 1]: ten inputs, the rest labels."""

    folder, format, history, highest = "KTH", "kth-examples", 10, 255.0


class TaxiBJDataset(_Examples):
    """Files `exampleNNNNNN.npy` of counts (8, 2, 32, 32), divided by 1292: four inputs, four labels."""

    folder, format, history, highest = "TaxiBJ", "taxibj", 4, 1292.0
