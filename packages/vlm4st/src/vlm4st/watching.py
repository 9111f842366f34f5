"""What a training shows besides its losses: weights of gates and of prototypes, and the original's TensorBoard tags.

Tags keep the original's names, so that old dashboards go on working; the core's own scalars stand beside them. The
original copies numbers from the device at every step; here every tenth step is looked at, and only if somebody asked.

Source: VLM4ST, `train.py` (tags of its `SummaryWriter`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stcore.errors import UserError

EVERY = 10
"""Steps from one look to the next."""
BRANCHES = ("temporal", "spatial", "cross", "input")
"""What the gates weigh, in the order of their weights."""
MODALITIES = ("temporal", "spatial", "cross")
"""Whose prototypes there are."""
Numbers = NDArray[np.float64]


@dataclass
class Seen:
    """Sums over batches of the weights of gates and of prototypes."""

    batches: int = 0
    gates: Tensor | None = None
    """Sum over batches of the mean weight of each branch."""
    gate_map: Tensor | None = None
    """Sum over batches of the weights of each cell (height, width, branch)."""
    patterns: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    """Sum over batches of the mean of coarse times fine weight (coarse, fine), by modality."""

    def add(self, parts: Any) -> None:
        """Add what a model returned with `return_intermediate`."""
        gates, patterns = gate_weights(parts), pattern_weights(parts)
        self.batches += 1
        self.gates = _plus(self.gates, gates.mean((0, 1, 2, 3)))
        self.gate_map = _plus(self.gate_map, gates.mean((0, 1)))
        for modality, (coarse, fine) in patterns.items():
            product = (coarse[:, :, None] * fine).mean(0)
            self.patterns[modality] = _plus(self.patterns.get(modality), product)

    def gate_means(self) -> dict[str, float]:
        """Return the mean weight of each branch."""
        if self.gates is None:
            return {}
        return dict(zip(BRANCHES, (self.gates / self.batches).tolist(), strict=True))

    def gate_maps(self) -> Numbers | None:
        """Return the mean weights of each cell (branch, height, width)."""
        return None if self.gate_map is None else (self.gate_map / self.batches).permute(2, 0, 1).double().cpu().numpy()

    def pattern_maps(self) -> dict[str, Numbers]:
        """Return coarse times fine weight (coarse, fine), by modality."""
        return {name: (total / self.batches).double().cpu().numpy() for name, total in self.patterns.items()}


def _plus(total: Tensor | None, value: Tensor) -> Tensor:
    value = value.detach().double()
    return value if total is None else total + value


def gate_weights(parts: Any) -> Tensor:
    """Return the weights of the branches (batch, time, height, width, branch) among a model's parts."""
    return parts["gate_weights"].detach().float()


def pattern_weights(parts: Any) -> dict[str, tuple[Tensor, Tensor]]:
    """Return coarse (batch, coarse) and fine (batch, coarse, fine) weights of prototypes, by modality."""
    info: Mapping[str, tuple[Tensor, Tensor]] = parts["pattern_info"]
    return {
        name: (info[f"{name}_weights"][0].detach().float(), info[f"{name}_weights"][1].detach().float())
        for name in MODALITIES
    }


class Board:
    """Writes the original's tags; one that was not asked for does nothing.

    Args:
        folder: the run; None for a board that writes nothing.
        loss: weights of the two parts of the loss, for the total.
    """

    def __init__(self, folder: Path | None) -> None:
        self._writer: Any = None if folder is None else _open(folder)
        self._epoch = -1
        self._sums: dict[str, float] = {}
        self._steps = 0

    @property
    def wanted(self) -> bool:
        """Whether anybody looks."""
        return self._writer is not None

    def looks_at(self, step: int) -> bool:
        """Return whether the step is one that is looked at closely."""
        return self.wanted and step % EVERY == 0

    def losses(self, step: int, epoch: int, values: Mapping[str, Tensor], real: Mapping[str, float]) -> None:
        """Take note of the losses of a step.

        Args:
            step: optimiser steps before it.
            epoch: epochs before it.
            values: loss, mse and mae.
            real: MAE and RMSE in units, where there is one data set.
        """
        if not self.wanted:
            return
        if epoch != self._epoch:
            self._end_epoch()
            self._epoch = epoch
        numbers = {name: float(value.detach()) for name, value in values.items()} | {
            f"real_{name}": value for name, value in real.items()
        }
        for name, value in numbers.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._steps += 1
        if step % EVERY == 0:
            for name, value in numbers.items():
                self._writer.add_scalar(f"Train/{name}_step", value, step)

    def weights(self, step: int, parts: Any) -> None:
        """Write the weights of gates and prototypes at a step."""
        for name, value in zip(BRANCHES, gate_weights(parts).mean((0, 1, 2, 3)).tolist(), strict=True):
            self._writer.add_scalar(f"Train/gate_weight_{name}", value, step)
        for name, (coarse, fine) in pattern_weights(parts).items():
            self._writer.add_histogram(f"Train/{name}_coarse_weights", coarse.cpu(), step)
            self._writer.add_histogram(f"Train/{name}_fine_weights", fine.cpu(), step)

    def evaluated(self, epoch: int, rate: float, values: Mapping[str, float], seen: Mapping[str, Seen]) -> None:
        """Write what an evaluation found.

        Args:
            epoch: epochs before it, the one just done not counted.
            rate: learning rate of that epoch.
            values: loss, mse, mae, real_mae and real_rmse, and those of each data set behind its name and a slash.
            seen: weights of gates and prototypes by data set; "" for all together.
        """
        if not self.wanted:
            return
        self._end_epoch()
        self._writer.add_scalar("Train/lr", rate, epoch)
        for name, value in values.items():
            self._writer.add_scalar(f"Val/{name}_epoch", value, epoch)
        for dataset, found in seen.items():
            place = f"Val/{dataset}/" if dataset else "Val/"
            for name, value in found.gate_means().items() if not dataset else ():
                self._writer.add_scalar(f"Val/gate_weight_{name}", value, epoch)
            for name, table in found.pattern_maps().items():
                from vlm4st.drawing import pattern_heatmap

                drawn = pattern_heatmap({name: table})
                self._writer.add_figure(f"{place}{name}/pattern_weights_heatmap", drawn, epoch)
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        if self.wanted:
            self._end_epoch()
            self._writer.close()

    def _end_epoch(self) -> None:
        for name, total in self._sums.items() if self._epoch >= 0 else ():
            self._writer.add_scalar(f"Train/{name}_epoch", total / self._steps, self._epoch)
        self._sums.clear()
        self._steps = 0


def real_errors(error: Tensor, spans: Sequence[float] | Tensor) -> dict[str, float]:
    """Return MAE and RMSE in units of errors (sample, …) on the model's scale.

    Args:
        error: differences of forecast and target, cells that do not count being 0.
        spans: units to one unit of the model's scale, for each sample.
    """
    factor = torch.as_tensor(spans, dtype=error.dtype, device=error.device).reshape(-1, *[1] * (error.dim() - 1))
    native = error * factor
    return {"mae": float(native.abs().mean()), "rmse": float(native.square().mean().sqrt())}


def _open(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError("fit.tensorboard: tensorboard is not installed; install the extra `tracking`") from None
    return SummaryWriter(folder / "tensorboard")
