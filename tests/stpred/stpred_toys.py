"""Small modules and data for the tests of `Trainer`: seconds of training, with everything random on purpose."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from stpred.module import EnhancedModule

HISTORY, HORIZON, SIDE = 3, 2, 4


class Blobs(Dataset[tuple[Tensor, Tensor]]):
    """Frames with noise from every global generator that a user's dataset may draw from."""

    def __init__(self, count: int = 10, *, noise: bool = True) -> None:
        self.count, self.noise = count, noise

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        frames = torch.linspace(0.0, 1.0, (HISTORY + HORIZON) * SIDE * SIDE).reshape(-1, 1, SIDE, SIDE) + index / 10
        if self.noise:
            frames = frames + 0.1 * torch.rand(1) + 0.1 * random.random() + 0.1 * float(np.random.rand())  # noqa: NPY002
        return frames[:HISTORY], frames[HISTORY:]


class Recent(EnhancedModule):
    """Forecasts a learned mixture of the frames that were seen, with dropout; an old user's module."""

    def __init__(self, rate: float = 0.05) -> None:
        super().__init__()
        self.rate = rate
        self.mix = nn.Conv3d(HISTORY, HORIZON, 1)
        self.drop = nn.Dropout(0.2)

    def configure_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.rate)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.mix(self.drop(inputs))

    def training_step(self, inputs: Tensor, labels: Tensor) -> Any:
        return nn.functional.mse_loss(self(inputs), labels)

    def validation_step(self, inputs: Tensor, labels: Tensor) -> Any:
        return nn.functional.mse_loss(self(inputs), labels)

    def predict_step(self, inputs: Tensor, labels: Any) -> Tensor:
        return self(inputs)


def weights(module: nn.Module) -> Tensor:
    """Return all weights in one row."""
    return torch.cat([value.detach().reshape(-1).clone() for value in module.state_dict().values()])


def made(kind: type[EnhancedModule] = Recent, **options: Any) -> Any:
    """Return a module with the same first weights every time."""
    torch.manual_seed(3)
    return kind(**options)
