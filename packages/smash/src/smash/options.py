"""The options of smash's commands. No torch: `--help` and `config check` read this and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from smash.config import PRESETS, DataConfig, SamplerConfig, TrainConfig
from stcore import cli
from stcore.errors import UserError
from stcore.readers.options import EventReadOptions

DEFAULT_PRESET = "earthquake"


@dataclass(frozen=True, kw_only=True)
class TrainOptions(cli.TrainOptions):
    """Train a model; every field of the configuration is a flag."""

    settings: Annotated[TrainConfig, arg(name="")] = field(default_factory=lambda: PRESETS[DEFAULT_PRESET])


@dataclass(frozen=True, kw_only=True)
class ForecastOptions(cli.CommonOptions):
    """What a trained run is to be applied to. Without --data it is the test part of the run's own data."""

    run: Positional[Path]
    """A run, or one of its checkpoint files."""
    data: DataConfig = field(default_factory=DataConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    seed: int = 1234
    """Seed of the samples."""


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(ForecastOptions):
    """Score one-step forecasts beside naive ones."""

    part: Literal["train", "val", "test"] = "test"
    """Which part to score; a single file given with --data is scored whole."""
    legacy: bool = True
    """Also compute the figures of the paper (`legacy_*`)."""
    rivals: bool = True
    """Also score classical processes fitted to the training part: an inhomogeneous Poisson and a self-exciting one.
    The fit takes seconds and is kept beside the run; scoring them adds about a third to the time."""
    calibrate: bool = False
    """Fit the calibration to the val part and keep it beside the run; an evaluation reports it beside the raw figures
    from then on, and `predict --calibrated` uses it."""
    figures: bool = True
    """Also draw the figures."""
    out: Path | None = None
    """Folder for metrics.json and figures; by default the run's own."""


@dataclass(frozen=True, kw_only=True)
class PredictOptions(ForecastOptions):
    """Forecast the next event: quantiles of its time, regions of its place, probabilities of its mark."""

    out: Path
    """File to write: .csv or .parquet."""
    at: Literal["last", "every"] = "last"
    """`last`: the event after the end of each sequence; `every`: each event after the first, from those before it."""
    levels: tuple[float, ...] = (0.05, 0.25, 0.5, 0.75, 0.95)
    """Levels of the quantiles; each is also the upper end of the one-sided interval from 0."""
    intervals: tuple[float, ...] = ()
    """Levels of the shortest (highest-density) intervals of the gap."""
    region_levels: tuple[float, ...] = (0.5, 0.9)
    """Shares of the location's probability inside the regions."""
    regions: Path | None = None
    """File for the regions as GeoJSON polygons."""
    calibrated: bool = False
    """Adjust levels and probabilities by what `smash evaluate RUN --calibrate` found."""
    figures: Path | None = None
    """Folder for figures of these forecasts, drawn for the sequence of median length."""
    steps: int = 1
    """Events ahead: above 1, sampled events join the history, and each step has a row with its spread."""
    horizon: float = 0.0
    """Above 0: P(an event within this time after the last one), by counting; in the unit of time of the data."""
    within: Path | None = None
    """GeoJSON file with polygons that such an event has to lie in."""
    trajectories: int = 100
    """Sampled futures of each sequence behind --steps and --horizon."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.trajectories < 1:
            raise UserError(f"--steps {self.steps}, --trajectories {self.trajectories}; expected 1 or more")
        if not 0.0 <= self.horizon < float("inf") or (self.horizon and self.steps > 1):
            raise UserError(f"--horizon {self.horizon}; expected a length of time, without --steps")
        if self.within is not None and not self.horizon:
            raise UserError("--within: without --horizon; expected both")
        if self.calibrated and (self.steps > 1 or self.horizon):
            raise UserError("--calibrated: with --steps or --horizon; expected the forecast of one event, as fitted")


@dataclass(frozen=True, kw_only=True)
class IntensityOptions(ForecastOptions):
    """Compute the rate of events over time, given what came before each time."""

    out: Path
    """File to write: .csv or .parquet."""
    points: int = 500
    """Times in each sequence, evenly spaced from its first event on."""
    ahead: float = 0.0
    """How long after the last event to go on, in the unit of time of the data."""
    figure: Path | None = None
    """Picture of the sequence of median length: .png, .pdf or .svg."""

    def __post_init__(self) -> None:
        if self.points < 2:
            raise UserError(f"--points {self.points}; expected 2 or more")
        if not 0.0 <= self.ahead < float("inf"):
            raise UserError(f"--ahead {self.ahead}; expected a length of time, 0 or more")


@dataclass(frozen=True, kw_only=True)
class SampleOptions(ForecastOptions):
    """Draw samples of the next event and write them all."""

    out: Path
    """File to write: .parquet, .csv or .safetensors."""
    at: Literal["last", "every"] = "last"
    """`last`: the event after the end of each sequence; `every`: each event after the first, from those before it."""


@dataclass(frozen=True, kw_only=True)
class SpeedOptions(ForecastOptions):
    """Time the samplers."""

    events: int = 256
    """Events to sample."""
    modes: tuple[Literal["exact", "batched", "reference"], ...] = ("exact", "batched", "reference")
    """Samplers to time."""
    repeats: int = 3
    """Timed repeats after one that is not counted."""


@dataclass(frozen=True, kw_only=True)
class ConvertOptions(cli.ConvertOptions):
    """Turn a file of the original implementation into ours."""

    heads: int = 4
    """Attention heads of the original model; its weights do not tell."""
    preset: str = DEFAULT_PRESET
    """Noise levels, sampler and gap transform of a converted checkpoint."""
    data: DataConfig = field(default_factory=DataConfig)
    """Training data of a converted checkpoint, whose scaling it needs; by default the preset's."""
    legacy_masks: bool = False
    """Keep the original's way of inferring padding from the data."""


@dataclass(frozen=True, kw_only=True)
class DataOptions(cli.CommonOptions):
    """Look at a data set."""

    data: EventReadOptions = field(default_factory=EventReadOptions)
    seed: int = 0
    """Not used; accepted everywhere."""


def forecast_defaults(options: Any) -> Any:
    """Take sampler, seed and the ways of reading data from the run that is applied, but not the source of its data."""
    config = cli.run_config(TrainConfig, cli.run_of(options.run))
    return replace(options, data=replace(config.data, source=()), sampler=config.sampler, seed=config.seed)


def convert_defaults(options: ConvertOptions) -> ConvertOptions:
    """Take the data source from the preset."""
    return replace(options, data=cli.pick_preset(PRESETS, options.preset).data)
