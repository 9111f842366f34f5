"""Every option of vlm4st as frozen dataclasses. Standard library only, so that checking one never imports torch.

The named runs are in `vlm4st.presets`; `PRESETS` is here, too.
"""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from stcore.errors import UserError
from stcore.option_checks import require
from stcore.training.config import AdamConfig, LoopConfig
from vlm4st.data_options import DataConfig
from vlm4st.models.configs import ModelConfig

Ablated = Literal["none", "no_dix", "no_prompt", "no_seq", "no_visual"]


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """What is minimised, on the model's scale, averaged over the cells that hold data."""

    mse_weight: float = 1.0
    """Weight of the mean squared error."""
    mae_weight: float = 0.5
    """Weight of the mean absolute error."""

    def __post_init__(self) -> None:
        for name in ("mse_weight", "mae_weight"):
            value = getattr(self, name)
            require(0.0 <= value < math.inf, f"loss.{name.replace('_', '-')}", value, "a number, 0 or more")
        require(self.mse_weight + self.mae_weight > 0.0, "loss", (self.mse_weight, self.mae_weight), "a weight above 0")


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig(AdamConfig):
    """Adam, with the decay of weights beside the gradient (AdamW) or in it."""

    kind: Literal["adamw", "adam"] = "adamw"
    """AdamW, or Adam, which adds the decay to the gradient."""
    learning_rate: float = 1e-4
    """The highest learning rate."""
    weight_decay: float = 0.05
    """Decay of the weights."""
    decay: Literal["matrices", "all"] = "matrices"
    """What decays: weights that multiply, but no biases, norms, embeddings, prototypes and tokens; or `all`, as in the
    original."""


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """How the learning rate changes."""

    kind: Literal["cosine", "step", "none", "smooth"] = "cosine"
    """The original's three, which change once an epoch: a way up, then half a cosine down to a hundredth (cosine); a
    tenth after each third of the epochs (step); not at all (none). `smooth` is the first one, changed at every step."""
    warmup_epochs: int = 5
    """Epochs on the way up (cosine, step, none)."""
    warmup_share: float = 0.1
    """Share of the optimiser steps on the way up (smooth)."""

    def __post_init__(self) -> None:
        require(self.warmup_epochs >= 0, "schedule.warmup-epochs", self.warmup_epochs, "0 or more")
        require(0.0 <= self.warmup_share < 1.0, "schedule.warmup-share", self.warmup_share, "a share in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class FewShotConfig:
    """How much of a target is trained on beside everything of the other sources."""

    target: str = ""
    """Data set to forecast, one of the sources; empty trains on all of all sources. `few-shot` sets it in turn."""
    ratio: float = 0.0
    """Share of the target's training windows; 0 trains on none of them (zero-shot), unless days are given."""
    days: float = 0.0
    """Days of the target instead, the last ones of its training part; 0 goes by the share."""
    selection: Literal["random", "prefix"] = "random"
    """Which share: drawn once (seed 42), as the original does, or the first windows in order of time, as UniST does."""
    others: bool = True
    """Train on the other sources too; without them on the few windows alone."""
    select_on: Literal["target", "sources"] = "target"
    """Whose validation part chooses the weights: the target's, as in the original, or those of the other sources, so
    that zero-shot has seen nothing of the target but its range, and with anomalies its usual frames."""

    def __post_init__(self) -> None:
        require(0.0 <= self.ratio <= 1.0, "few-shot.ratio", self.ratio, "a share from 0 to 1")
        require(0.0 <= self.days < math.inf, "few-shot.days", self.days, "a number of days, 0 or more")
        require(not (self.days and self.ratio), "few-shot.days", self.days, "0 beside a ratio, or a ratio of 0")
        some = self.others or self.ratio > 0.0 or self.days > 0.0
        require(some, "few-shot.others", self.others, "other sources, or a ratio or days above 0")
        alone = self.select_on == "sources" and not self.others
        require(not alone, "few-shot.select-on", self.select_on, "target, where there are no other sources")

    @property
    def mode(self) -> str:
        """Name of the setting, for folders and reports.

        >>> FewShotConfig(ratio=0.29).mode, FewShotConfig().mode, FewShotConfig(days=3).mode
        ('few_shot_29pct', 'zero_shot', 'few_shot_3d')
        """
        if self.days:
            return f"few_shot_{self.days:g}d"
        return f"few_shot_{round(100 * self.ratio)}pct" if self.ratio else "zero_shot"


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """How a trained model is applied and measured."""

    grid: Literal["native", "model"] = "native"
    """Grid on which errors are measured: that of the data, or the model's, on which the original measures."""
    clamp: bool = False
    """Keep forecasts within the range of the scale, as UniST does."""
    batch: int = 0
    """Samples that are forecast at once; 0 takes four times those of training."""

    def __post_init__(self) -> None:
        require(self.batch >= 0, "evaluate.batch", self.batch, "0 (four times that of training) or more")


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """How the frozen backbone is kept; nothing of this changes a result but by rounding."""

    storage: Literal["fp32", "bf16"] = "fp32"
    """Type of its weights in memory; bf16 halves them and rounds them once."""
    shard: bool = False
    """With several processes, keep a share of every block in each (FSDP), gathered while the block is at work."""
    checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, more time."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run of vlm4st."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    ablation: Ablated = "none"
    """Part of the model to leave out."""
    fit_grid: bool = False
    """Take `model.H` and `model.W` from the data: the largest grid of its sources."""
    loss: LossConfig = field(default_factory=LossConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    fit: LoopConfig = field(default_factory=lambda: LoopConfig(epochs=65, clip_norm=1.0))
    few_shot: FewShotConfig = field(default_factory=FewShotConfig)
    fresh_head: bool = False
    """Of the weights that a run starts from (`--init-from`) take all but the head, which maps features to cells: those
    of other data sets are others."""
    taught_samples: int = 0
    """Samples that what lasts of frames in other data (`--init-from`) counts for beside that of the data at hand, where
    a start is fitted (`residual` damped or linear); 0 fits it to these alone."""
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    compile: bool = False
    """Compile the model (torch.compile); changes results by rounding."""
    seed: int = 42
    """Seed of weights, order and everything drawn."""

    def __post_init__(self) -> None:
        require(self.taught_samples >= 0, "taught-samples", self.taught_samples, "0 or more")
        if self.fit.ema_decay and (self.backbone.shard or self.backbone.storage == "bf16"):
            raise UserError(f"fit.ema-decay: {self.fit.ema_decay}; expected 0 with backbone.shard and backbone.storage "
                            "bf16, which keep no average of the weights")  # fmt: skip
        if self.backbone.storage == "bf16" and self.fit.precision != "bf16":
            raise UserError(f"backbone.storage: bf16 with fit.precision {self.fit.precision}; expected bf16 for both")


def __getattr__(name: str) -> Any:
    """Make the named runs, a table of its own, when somebody asks for them."""
    if name in ("DEMO", "PRESETS"):
        return getattr(importlib.import_module("vlm4st.presets"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
