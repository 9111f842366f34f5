"""Every option of svq as frozen dataclasses. Standard library only, so that checking one never imports torch.

The named runs are in `svq.presets`; `PRESETS` is here, too.
"""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from stcore.option_checks import require
from stcore.readers.grid_options import GridReadOptions
from stcore.training.config import AdamConfig, LoopConfig
from svq.models.configs import QuantizerConfig, SimVPConfig


@dataclass(frozen=True, kw_only=True)
class DataConfig(GridReadOptions):
    """Where the frames come from, how they are read, and how they become batches."""

    history: int = 12
    """Frames that are given."""
    horizon: int = 12
    """Frames that are forecast in training; more than `history` are made by feeding forecasts back."""
    stride: int = 1
    """Frames from the start of one window to the start of the next."""
    windows: Literal["forward", "kth"] = "forward"
    """How windows are laid: every `stride` frames, or by the rule of KTH (from the end; 3 frames for running)."""
    scaling: Literal["standard", "auto", "range", "fit", "none"] = "standard"
    """What maps values to what models see, from the training part alone: its mean and deviation to 0 and 1, the
    declared range to [0, 1], its own range to [0, 1], or nothing; `auto` takes the declared range where there is one,
    else its own."""
    anomalies: bool = False
    """Train on what differs from the usual frame of the time of day and of the month, means of the training part, which
    forecasts then get added again; takes frames with times. For fields where seasons or hours rule."""
    batch: int = 16
    """Windows in a batch, over all processes."""
    drop_last: bool = False
    """Leave out a last batch of an epoch that is not full, as the original does."""
    order: Literal["file", "common"] = "common"
    """Order of rows and columns; `common` turns degrees so that latitude rises and longitudes join without a jump, and
    forecasts are written in the order of their file."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("history", "horizon", "stride", "batch"):
            require(getattr(self, name) >= 1, f"data.{name}", getattr(self, name), "at least 1")
        good = not (self.anomalies and self.protocol == "paper")
        require(good, "data.anomalies", self.anomalies, "false with data.protocol paper, which has none")


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """What is minimised, on the model's scale, averaged over the cells that hold data."""

    kind: Literal["mae", "mse", "huber"] = "mae"
    """Mean absolute error, mean squared error, or Huber's loss."""
    delta: float = 1.0
    """Error at which Huber's loss turns from squared to absolute."""
    divergence: float = 0.0
    """Weight of how differently forecast and truth change from frame to frame (TAU's second loss)."""

    def __post_init__(self) -> None:
        require(self.kind in ("mae", "mse", "huber"), "loss.kind", self.kind, "mae, mse or huber")
        require(0.0 < self.delta < math.inf, "loss.delta", self.delta, "a number above 0")
        require(0.0 <= self.divergence < math.inf, "loss.divergence", self.divergence, "a number, 0 or more")


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """How the learning rate changes."""

    kind: Literal["cosine", "one-cycle", "constant"] = "cosine"
    """Per epoch along a cosine down; per step up over 30 % of the run and down, with Adam's first decay the other way
    (one-cycle); or not at all."""
    warmup_epochs: int = 5
    """Epochs on the way up (cosine)."""
    warmup_rate: float = 1e-5
    """Rate of the first epoch of the way up (cosine)."""
    lowest_rate: float = 1e-6
    """Rate that the cosine ends at."""
    final_divisor: float = 1e4
    """First rate over the last one (one-cycle; the first is a 25th of the highest)."""

    def __post_init__(self) -> None:
        require(self.warmup_epochs >= 0, "schedule.warmup-epochs", self.warmup_epochs, "0 or more")
        require(self.final_divisor >= 1.0, "schedule.final-divisor", self.final_divisor, "at least 1")
        for name in ("warmup_rate", "lowest_rate"):
            value = getattr(self, name)
            require(0.0 <= value < math.inf, f"schedule.{name.replace('_', '-')}", value, "a number, 0 or more")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """How a trained model is applied."""

    horizon: int = 0
    """Frames to forecast in evaluation and prediction; 0 takes as many as in training."""
    stride: int = 0
    """Frames from the start of one window to the next; 0 takes that of training."""

    def __post_init__(self) -> None:
        for name in ("horizon", "stride"):
            require(getattr(self, name) >= 0, f"evaluate.{name}", getattr(self, name), "0 (as in training) or more")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run of svq."""

    data: DataConfig = field(default_factory=DataConfig)
    model: SimVPConfig = field(default_factory=SimVPConfig)
    quantizer: QuantizerConfig = field(default_factory=QuantizerConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimiser: AdamConfig = field(default_factory=AdamConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    fit: LoopConfig = field(default_factory=lambda: LoopConfig(epochs=50, patience=10))
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    channels_last: bool = True
    """Store weights and activations channels last, which is faster on most processors; changes results by rounding."""
    compile: bool = False
    """Compile the model (torch.compile); changes results by rounding."""
    seed: int = 42
    """Seed of weights, order and everything drawn."""

    @property
    def protocol(self) -> Literal["strict", "paper"]:
        """`strict`: weights are chosen on a validation part of its own, scales come from the training part, and windows
        lie as they should; `paper`: the published choices, for comparison with published tables."""
        return self.data.protocol


def __getattr__(name: str) -> Any:
    """Make the named runs, a table of its own, when somebody asks for them."""
    if name in ("DEMO", "PRESETS"):
        return getattr(importlib.import_module("svq.presets"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
