"""Every option of gpd as frozen dataclasses. Standard library only, so that checking one never imports torch.

A configuration describes the whole pipeline, stage after stage: cities, node models and their training, prompts, the
diffusion model and its training, generation, and what is done with the few days of the target city. The named runs are
in `gpd.presets`; `PRESETS` is here, too.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import Any, Literal

from gpd.diffusion.configs import DenoiserConfig, DiffusionConfig, SamplingConfig
from gpd.models.configs import NodeModelConfig, NodeTrainingConfig
from gpd.prompts.configs import SpatialPromptConfig, TemporalPromptConfig
from stcore.option_checks import require
from stcore.readers.graph_options import GraphReadOptions
from stcore.training.config import LoopConfig


@dataclass(frozen=True, kw_only=True)
class DataConfig(GraphReadOptions):
    """The cities: several with data, the sources, and perhaps one with a few days only, the target."""

    target: str = ""
    """City to forecast for, a file, folder or name like a source; may be left open until rows are generated."""
    target_adjacency: str = ""
    """File of the target's graph, where its series does not bring one."""
    days: int = 3
    """Days of the target that are known, by the clock: the last of its training part (`pretrain.split`)."""
    nodes: int = 0
    """Nodes of each source that are trained at most, spread evenly; 0 trains all. Neighbours are inputs either way."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.days >= 1, "data.days", self.days, "at least 1")
        require(self.nodes >= 0, "data.nodes", self.nodes, "0 (all) or more")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """How forecasts for the target city are scored."""

    stride: int = 1
    """Steps from the start of one test window to the start of the next."""
    rivals: Literal["naive", "zero-shot", "all"] = "all"
    """Forecasts to compare with: naive ones; also rows that were not trained on the target (of the nearest source
    node, the mean row, a random one); or also those trained on the same days, from scratch, from the nearest and from
    the mean row."""
    scratch_rates: tuple[float, ...] = ()
    """Learning rates among which training from scratch takes its best, by the end of the few days; empty takes that of
    the fine-tuning."""

    def __post_init__(self) -> None:
        require(self.stride >= 1, "evaluate.stride", self.stride, "at least 1")
        require(self.rivals in ("naive", "zero-shot", "all"), "evaluate.rivals", self.rivals, "naive, zero-shot or all")
        rates = self.scratch_rates
        require(all(0.0 < rate < 10.0 for rate in rates), "evaluate.scratch-rates", rates, "numbers in (0, 10)")


def _diffusion_loop() -> LoopConfig:
    return LoopConfig(epochs=100_000, max_steps=20_000, checkpoint_every=1000, log_every=100, ema_decay=0.995,
                      evaluate_every=10, patience=0, clip_norm=1.0)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One run of gpd, from source cities to forecasts for the target city."""

    data: DataConfig = field(default_factory=DataConfig)
    model: NodeModelConfig = field(default_factory=NodeModelConfig)
    pretrain: NodeTrainingConfig = field(default_factory=NodeTrainingConfig)
    spatial: SpatialPromptConfig = field(default_factory=SpatialPromptConfig)
    temporal: TemporalPromptConfig = field(default_factory=TemporalPromptConfig)
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    fit: LoopConfig = field(default_factory=_diffusion_loop)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    finetune: NodeTrainingConfig = field(default_factory=lambda: NodeTrainingConfig(select_on="tail"))
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    seed: int = 42
    """Seed of weights, order, prompts, and everything drawn."""


def __getattr__(name: str) -> Any:
    """Make the named runs, a table of its own, when somebody asks for them."""
    if name in ("DEMO", "PRESETS"):
        return getattr(importlib.import_module("gpd.presets"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
