"""Every option of smash as frozen dataclasses, and the named runs.

Standard library only, so that reading or checking a configuration never imports torch. Values of the
published presets are those of the authors' launch scripts (github.com/zichongli5/SMASH, `scripts/`);
normalised units mean gap and coordinates mapped to [-1, 1] over the training part.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from stcore.option_checks import require
from stcore.readers.options import EventReadOptions
from stcore.training.config import AdamConfig, LoopConfig


@dataclass(frozen=True, kw_only=True)
class DataConfig(EventReadOptions):
    """Where the events come from, how they are read, and how they become batches."""

    log_gap: bool = True
    """Model the natural logarithm of the gap between events (every published preset) rather than the gap."""
    batch_sequences: int = 32
    """Sequences in a batch at most."""
    batch_tokens: int = 4096
    """Padded events in a batch at most: long sequences go in smaller batches. 0 lifts the limit."""
    epoch_share: float = 1.0
    """Share of the sequences, drawn anew, that an epoch sees: below 1 where windows repeat each other's events."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.batch_sequences >= 1, "data.batch-sequences", self.batch_sequences, "at least 1")
        require(self.batch_tokens >= 0, "data.batch-tokens", self.batch_tokens, "0 (no limit) or more")
        require(0.0 < self.epoch_share <= 1.0, "data.epoch-share", self.epoch_share, "a share in (0, 1]")


@dataclass(frozen=True, kw_only=True)
class DensityConfig:
    """The law of the next event as densities that start from the one of the training part, box units [0, 1]."""

    units: int = 64
    """Width of the networks that turn the history into corrections."""
    dropout: float = 0.1
    """Dropout in them, training only."""
    grid: int = 384
    """Points at which the intensity of the gap is held."""
    bandwidth: float = 0.01
    """Kernel width of the training part's law of the gap."""
    knots: int = 24
    """Knots of the correction to the intensity, denser where gaps are frequent."""
    mark_knots: int = 6
    """Knots of the dependence of mark and location on the gap."""
    speeds: int = 5
    """Fading sums over past events: time constants of 1, 4, 16, ... mean gaps, beside one that never fades."""
    encoded: bool = True
    """Let them see the encoder's summary beside features of the history that are counted; off builds no encoder."""
    periods: tuple[float, ...] = ()
    """Periods of the data's time, such as the hours of a day, whose phase is a feature."""
    profiles: tuple[float, ...] = ()
    """Periods in which the history is looked up: how often events came, so far in the sequence, at the phases ahead."""
    recent: int = 48
    """Latest events with kernels around them in the density of the location; 0 has none."""
    recent_widths: tuple[float, ...] = (0.004, 0.03, 0.12)
    """Widths at which these kernels start; each event has one of each."""
    background: int = 64
    """Gaussians of the training part's density of the location, whose weights follow the history."""
    free: int = 8
    """Gaussians whose places and widths follow the history; 0 has none."""
    smallest_width: float = 0.003
    """Floor of all widths: the density is no sharper, so that repeated coordinates cannot make it infinite."""

    def __post_init__(self) -> None:
        for name, least in (("units", 1), ("grid", 32), ("knots", 2), ("mark_knots", 2), ("speeds", 1), ("recent", 0),
                            ("background", 1), ("free", 0)):  # fmt: skip
            require(getattr(self, name) >= least, f"model.density.{name}", getattr(self, name), f"at least {least}")
        require(0.0 <= self.dropout < 1.0, "model.density.dropout", self.dropout, "a share in [0, 1)")
        for name in ("bandwidth", "smallest_width"):
            require(0.0 < getattr(self, name) <= 1.0, f"model.density.{name}", getattr(self, name), "in (0, 1]")
        for name in ("periods", "profiles", "recent_widths"):
            values: tuple[float, ...] = getattr(self, name)
            require(all(0.0 < value < math.inf for value in values), f"model.density.{name}", values, "numbers above 0")
        require(len(self.recent_widths) > 0, "model.density.recent_widths", self.recent_widths, "one or more")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes of the encoder and of the score network."""

    width: int = 64
    """Width of each encoder branch (`cond_dim` of the original)."""
    layers: int = 4
    """Transformer layers in each branch."""
    heads: int = 4
    """Attention heads."""
    key_width: int = 16
    """Width of queries and keys per head."""
    value_width: int = 16
    """Width of values per head."""
    feed_forward_width: int = 0
    """Inner width of the feed-forward part; 0 means twice `width`."""
    recurrent_width: int = 0
    """Width of the LSTM after each branch; 0 means four times `width`."""
    units: int = 64
    """Width of the score network."""
    dropout: float = 0.1
    """Dropout in the encoder, training only."""
    legacy_masks: bool = False
    """Infer padding from zeros in the data as the original does, which drops events at time 0 and at the lowest
    coordinate; only for its old checkpoints."""
    law: Literal["score", "density"] = "score"
    """`score`: the published model, a score network trained by denoising; `density`: gap, mark and location by their
    exact densities, trained by likelihood as corrections to the training part's law without any history."""
    density: DensityConfig = field(default_factory=DensityConfig)
    """Sizes of the densities (`law` density)."""

    def __post_init__(self) -> None:
        for name in ("width", "layers", "heads", "key_width", "value_width", "units"):
            require(getattr(self, name) >= 1, f"model.{name}", getattr(self, name), "at least 1")
        for name in ("feed_forward_width", "recurrent_width"):
            require(getattr(self, name) >= 0, f"model.{name}", getattr(self, name), "0 (automatic) or more")
        require(0.0 <= self.dropout < 1.0, "model.dropout", self.dropout, "a share in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class NoiseConfig:
    """Noise levels of denoising score matching, in normalised units (half the fitted range is 1)."""

    sigma_time: float = 0.2
    """Standard deviation of the noise on the normalised (log-)gap."""
    sigma_location: float = 0.25
    """Standard deviation of the noise on each normalised coordinate."""

    def __post_init__(self) -> None:
        for name in ("sigma_time", "sigma_location"):
            require(0.0 < getattr(self, name) <= 10.0, f"noise.{name}", getattr(self, name), "a number in (0, 10]")


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The training objective (paper, eqs. 9 to 11)."""

    perturbations: int = 50
    """Noise draws per event and step (50 fixed in the original, 300 in the paper)."""
    mark_weight: float = 0.5
    """Weight of the mark loss (`loss_lambda`)."""
    location_weight: float = 1.0
    """Weight of the location score beside the gap score, marked data only (`loss_lambda2`)."""
    smoothing: float = 0.0
    """Label smoothing of the mark loss (`smooth`)."""
    normalised_smoothing: bool = False
    """Let the smoothed label weights sum to one; the original's sum to 1 - smoothing / K."""

    def __post_init__(self) -> None:
        require(self.perturbations >= 1, "loss.perturbations", self.perturbations, "at least 1")
        for name in ("mark_weight", "location_weight"):
            require(0.0 <= getattr(self, name) < math.inf, f"loss.{name}", getattr(self, name), "a number, 0 or more")
        require(0.0 <= self.smoothing < 1.0, "loss.smoothing", self.smoothing, "a share in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig(AdamConfig):
    """AdamW with a linear warm-up and a linear decay, set once per epoch."""

    learning_rate: float = 1e-3
    """Highest learning rate, reached after the warm-up."""
    final_learning_rate: float = 5e-5
    """Learning rate the decay aims at after `fit.epochs` epochs."""
    warmup_epochs: int = 5
    """Epochs of linear warm-up."""
    beta2: float = 0.99
    """Decay of the second moment."""
    weight_decay: float = 0.01
    """Decoupled weight decay."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            0.0 <= self.final_learning_rate <= self.learning_rate,
            "optimiser.final-learning-rate",
            self.final_learning_rate,
            f"between 0 and learning-rate {self.learning_rate}",
        )
        require(self.warmup_epochs >= 0, "optimiser.warmup-epochs", self.warmup_epochs, "0 or more")


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """How samples of the next event are drawn."""

    mode: Literal["exact", "batched", "reference"] = "exact"
    """`exact`: gap and mark by inverting their closed-form law, then a short location chain; `batched`: the
    original's Langevin chain for all samples at once; `reference`: the original's chain stage by stage."""
    samples: int = 300
    """Samples per event."""
    grid_size: int = 512
    """Grid points of the closed-form gap law (`exact`)."""
    location_steps: int = 0
    """Langevin steps for the location (`exact`); 0 takes as many as cross half the fitted range, at least 50."""
    location_step: float = 0.8
    """Langevin step of the location in units of sigma_location squared (`exact`); below 4 is stable."""
    denoise_location: bool = False
    """Finish locations with a Tweedie step (`exact`); off is the original's law, widened by sigma_location."""
    confine: bool = True
    """Keep samples inside the fitted box as the original's clamp does; off gives the unconfined smoothed law."""
    langevin_step: float = 0.005
    """Langevin step of the original's chain, normalised units (`batched`, `reference`)."""
    langevin_steps: int = 2000
    """Steps of the original's chain (`samplingsteps`)."""
    stage_steps: int = 250
    """Steps per stage of the original's chain (`per_step`; `reference`)."""
    refine_steps: int = 200
    """Location-only steps after the original's denoising (marked data)."""
    chunk_events: int = 0
    """Events sampled at once; 0 chooses from the memory budget. Never changes a result."""

    def __post_init__(self) -> None:
        for name in ("samples", "langevin_steps", "stage_steps"):
            require(getattr(self, name) >= 1, f"sampler.{name}", getattr(self, name), "at least 1")
        require(self.grid_size >= 16, "sampler.grid-size", self.grid_size, "at least 16")
        require(0.0 < self.location_step < 4.0, "sampler.location-step", self.location_step, "a number in (0, 4)")
        require(0.0 < self.langevin_step <= 1.0, "sampler.langevin-step", self.langevin_step, "a number in (0, 1]")
        require(self.location_steps >= 0, "sampler.location-steps", self.location_steps, "0 (automatic) or more")
        require(self.refine_steps >= 0, "sampler.refine-steps", self.refine_steps, "0 or more")
        require(self.chunk_events >= 0, "sampler.chunk-events", self.chunk_events, "0 (automatic) or more")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run of smash."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    fit: LoopConfig = field(default_factory=lambda: LoopConfig(epochs=150, clip_norm=1.0))
    seed: int = 1234
    """Seed of weights, order, noise and samples."""


def _published(*, dataset: str, width: int, sigma: tuple[float, float], step: float, steps: int, stage: int,
               sequences: int, seed: int, smoothing: float = 0.0) -> TrainConfig:  # fmt: skip
    return TrainConfig(
        data=DataConfig(source=(dataset,), batch_sequences=sequences),
        model=ModelConfig(width=width),
        noise=NoiseConfig(sigma_time=sigma[0], sigma_location=sigma[1]),
        loss=LossConfig(smoothing=smoothing),
        sampler=SamplerConfig(langevin_step=step, langevin_steps=steps, stage_steps=stage),
        seed=seed,
    )


def _by_density(*, dataset: str, density: DensityConfig, sequences: int, epochs: int, seed: int,
                epoch_share: float = 1.0, learning_rate: float = 2e-3) -> TrainConfig:  # fmt: skip
    return TrainConfig(
        data=DataConfig(source=(dataset,), batch_sequences=sequences, batch_tokens=2048, epoch_share=epoch_share),
        model=ModelConfig(width=16, layers=1, law="density", density=density),
        loss=LossConfig(mark_weight=1.0),
        optimiser=OptimiserConfig(learning_rate=learning_rate, final_learning_rate=1e-4, warmup_epochs=2,
                                  weight_decay=0.05),
        fit=LoopConfig(epochs=epochs, patience=8, clip_norm=1.0, ema_decay=0.98),
        seed=seed,
    )  # fmt: skip


PRESETS: dict[str, TrainConfig] = {
    "earthquake": _published(dataset="earthquake", width=16, sigma=(0.2, 0.25), step=0.005, steps=2000, stage=250,
                             sequences=32, seed=2),
    "crime": _published(dataset="crime", width=64, sigma=(0.3, 0.03), step=0.01, steps=1000, stage=250,
                        sequences=32, seed=4, smoothing=0.1),
    "football": _published(dataset="football", width=32, sigma=(0.2, 0.1), step=0.01, steps=2000, stage=100,
                           sequences=4, seed=3),
    "earthquake-plus": _by_density(dataset="earthquake", density=DensityConfig(encoded=False), sequences=16, epochs=16,
                                   seed=2, epoch_share=0.25),
    "crime-plus": _by_density(dataset="crime", density=DensityConfig(encoded=False, profiles=(24.0,), dropout=0.2),
                              sequences=8, epochs=14, seed=4),
    "football-plus": _by_density(dataset="football", density=DensityConfig(encoded=False, recent=6, free=16),
                                 sequences=2, epochs=24, seed=3),
    "citibike": _by_density(dataset="dstpp_citibike", density=DensityConfig(encoded=False, periods=(24.0,)),
                            sequences=8, epochs=10, seed=1),
}  # fmt: skip
"""The published runs (the launch scripts of the authors' code for the sets of table 1), and those by densities."""
