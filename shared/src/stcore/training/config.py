"""Options of the one training loop and of its optimiser. Standard library only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from stcore.errors import UserError
from stcore.option_checks import require


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How long to train, how often to look, and what to keep."""

    epochs: int = 100
    """Passes over the training part."""
    max_steps: int = 0
    """Stop after this many optimiser steps; 0 sets no limit."""
    evaluate_every: int = 1
    """Epochs between evaluations on the validation part; the final weights are always evaluated."""
    patience: int = 0
    """Stop after this many evaluations in a row without improvement; 0 never stops early."""
    min_delta: float = 0.0
    """Smallest change that counts as an improvement."""
    checkpoint_every: int = 100
    """Optimiser steps between checkpoints."""
    log_every: int = 10
    """Optimiser steps between lines of `metrics.jsonl`."""
    clip_norm: float = 0.0
    """Largest norm of the gradient; larger ones are scaled down. 0 leaves them."""
    accumulate: int = 1
    """Batches per optimiser step."""
    ema_decay: float = 0.0
    """Decay of an exponential moving average of the weights, which is then what is evaluated; 0 keeps none."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the forward pass."""
    workers: int = 0
    """Processes that prepare batches; 0 prepares them in the training process. Never changes a result."""
    deterministic: bool = False
    """Use deterministic algorithms on a GPU (slower); on a CPU runs repeat to the bit anyway."""
    tensorboard: bool = False
    """Also write the scalars for TensorBoard (extra `tracking`)."""

    def __post_init__(self) -> None:
        for name in ("epochs", "evaluate_every", "checkpoint_every", "log_every", "accumulate"):
            if getattr(self, name) < 1:
                raise UserError(f"fit.{name}: {getattr(self, name)}; expected at least 1")
        for name in ("max_steps", "patience", "min_delta", "clip_norm", "workers"):
            if not getattr(self, name) >= 0:
                raise UserError(f"fit.{name}: {getattr(self, name)}; expected 0 or more")
        if not 0.0 <= self.ema_decay < 1.0:
            raise UserError(f"fit.ema_decay: {self.ema_decay}; expected a share in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class AdamConfig:
    """Adam; the section `optimiser` of a configuration."""

    learning_rate: float = 1e-3
    """Learning rate, or the highest one where it changes."""
    beta1: float = 0.9
    """Decay of the first moment."""
    beta2: float = 0.999
    """Decay of the second moment."""
    weight_decay: float = 0.0
    """Decay of the weights, added to the gradient."""

    def __post_init__(self) -> None:
        good = 0.0 < self.learning_rate < 10.0
        require(good, "optimiser.learning-rate", self.learning_rate, "a number in (0, 10)")
        for name in ("beta1", "beta2"):
            require(0.0 <= getattr(self, name) < 1.0, f"optimiser.{name}", getattr(self, name), "a share in [0, 1)")
        good = 0.0 <= self.weight_decay < math.inf
        require(good, "optimiser.weight-decay", self.weight_decay, "a number, 0 or more")
