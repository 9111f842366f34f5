"""A small regression with dropout, unequal batches and an average of the weights, for tests of the loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ema_pytorch import EMA
from torch import Tensor, nn

from stcore.sampling import Indices, length_batches, random_stream
from stcore.training.checkpoint import load_checkpoint
from stcore.training.config import LoopConfig
from stcore.training.loop import FitResult, Loss, Select, StepContext, fit
from stcore.training.rates import RateByEpoch
from stcore.training.run import Run, find_checkpoint

CONFIG = LoopConfig(epochs=2, checkpoint_every=1, log_every=2, clip_norm=1.0, ema_decay=0.9)
Step = Callable[[nn.Module, Any, StepContext], Loss]


@dataclass
class ToyBatches:
    """Forty samples of unequal length; sample i is the numbers of its own random stream."""

    seed: int = 0
    count: int = 40

    def order(self, epoch: int) -> list[Indices]:
        lengths = np.arange(self.count) % 7 + 1
        return length_batches(lengths, seed=self.seed, epoch=epoch, max_samples=5, max_tokens=20)

    def load(self, epoch: int, ids: Indices) -> tuple[Tensor, Tensor]:
        rows = [random_stream(self.seed, "sample", int(i)).standard_normal(4) for i in ids]
        noise = [random_stream(self.seed, "noise", epoch, int(i)).standard_normal(4) for i in ids]
        x = torch.tensor(np.array(rows) + 0.1 * np.array(noise), dtype=torch.float32)
        return x, x.sum(dim=1, keepdim=True)

    def names(self, ids: Indices) -> list[str]:
        return [f"sample-{i}" for i in ids]


def toy_step(model: nn.Module, batch: tuple[Tensor, Tensor], context: StepContext) -> Loss:
    x, y = batch
    error = (model(x) - y) ** 2
    return Loss(error.mean(), float(len(x)), {"squared": error.mean()})


def toy_evaluate(model: nn.Module) -> dict[str, float]:
    x, y = ToyBatches().load(0, np.arange(20))
    return {"val/loss": float(((model(x) - y) ** 2).mean())}


def train_toy(
    folder: Path,
    config: LoopConfig = CONFIG,
    *,
    resume: Path | None = None,
    step: Step = toy_step,
    dropout: float = 0.3,
    evaluate: Callable[[nn.Module], dict[str, float]] = toy_evaluate,
) -> FitResult:
    """Train the toy into `folder`, or on from the run or checkpoint `resume`."""
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(dropout), nn.ReLU(), nn.Linear(8, 1))
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.01)
    ema = EMA(model, beta=config.ema_decay, update_after_step=0, update_every=1, include_online_model=False)
    if resume is None:
        run, checkpoint = Run.create(folder, package="toy", preset="tiny", config={"seed": 3}), None
    else:
        run, path = find_checkpoint(resume)
        checkpoint = load_checkpoint(path)
    return fit(
        model, step, ToyBatches(), optimiser, config=config, run=run, seed=3, facts={"package": "toy"},
        constants={"scale": torch.tensor(2.0)}, schedule=RateByEpoch(optimiser, lambda epoch: 0.01 / (epoch + 1)),
        evaluate=evaluate, select=Select(), ema=ema if config.ema_decay else None, resume=checkpoint, device="cpu",
        quiet=True,
    )  # fmt: skip


def fingerprint(run: Path) -> dict[str, bytes]:
    """Return the bytes of the last checkpoint, of the best weights and of the metrics of a run."""
    last = Run(run).step_files()[-1]
    files = [last, Run(run).best, Run(run).metrics_file]
    return {file.name: file.read_bytes() for file in files}


def at_steps(config: LoopConfig, steps: int) -> LoopConfig:
    return replace(config, max_steps=steps)
