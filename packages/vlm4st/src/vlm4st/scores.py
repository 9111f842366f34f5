"""Errors of forecasts, summed up batch by batch: exact over all cells, however the batches are cut."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from stcore.errors import UserError


@dataclass(eq=False)
class ErrorSums:
    """Sums of errors by lead time, over the cells with data.

    >>> sums = ErrorSums()
    >>> sums.add(torch.tensor([[[[1.0]], [[2.0]]]]), torch.tensor([[[[0.0]], [[4.0]]]]))
    >>> sums.table()["mae"], sums.table()["mape"], sums.by_lead()["rmse"]
    (1.5, 0.5, [1.0, 2.0])
    """

    floor: float = 1e-6
    """Truths nearer to 0 are left out of the relative error."""
    cells: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    """Cells with data at each lead time."""
    absolute: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    squared: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    relative: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    relative_cells: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))

    def add(
        self,
        forecast: Float[Tensor, "sample horizon row column"],
        truth: Float[Tensor, "sample horizon row column"],
        mask: Bool[Tensor, "sample horizon row column"] | None = None,
    ) -> None:
        """Count forecasts.

        Args:
            forecast: in any units.
            truth: in the same; NaN where there is no data.
            mask: True where cells count; by default wherever there is data.
        """
        known = ~truth.isnan() if mask is None else mask & ~truth.isnan()
        error = torch.where(known, forecast - truth, 0.0).double()
        large = known & (truth.abs() > self.floor)
        share = torch.where(large, error.abs() / torch.where(large, truth, 1.0).abs(), 0.0)
        parts = {"cells": known.double(), "absolute": error.abs(), "squared": error.square(), "relative": share,
                 "relative_cells": large.double()}  # fmt: skip
        for name, values in parts.items():
            summed = values.sum(dim=(0, 2, 3)).cpu()
            before: Tensor = getattr(self, name)
            setattr(self, name, before + summed if len(before) else summed)

    def by_lead(self) -> dict[str, list[float]]:
        """Return mae, rmse and mape by lead time; NaN where nothing counted."""
        return {"mae": (self.absolute / self.cells).tolist(), "rmse": (self.squared / self.cells).sqrt().tolist(),
                "mape": (self.relative / self.relative_cells).tolist()}  # fmt: skip

    def table(self) -> dict[str, float]:
        """Return mae, rmse and mape over all lead times.

        Raises:
            UserError: nothing was counted.
        """
        cells = float(self.cells.sum())
        if not cells:
            raise UserError("errors: no cell with data to compare with; expected some in the part that is scored")
        relative = float(self.relative.sum()) / max(float(self.relative_cells.sum()), 1.0)
        return {"mae": float(self.absolute.sum()) / cells, "rmse": (float(self.squared.sum()) / cells) ** 0.5,
                "mape": relative}  # fmt: skip
