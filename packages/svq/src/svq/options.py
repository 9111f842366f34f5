"""The options of svq's commands. No torch: `--help` and `config check` read this and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from stcore import cli
from svq.config import DataConfig, EvaluateConfig, TrainConfig
from svq.presets import DEFAULT_PRESET, KNOWN


@dataclass(frozen=True, kw_only=True)
class TrainOptions(cli.TrainOptions):
    """Train a model; every field of the configuration is a flag."""

    settings: Annotated[TrainConfig, arg(name="")] = field(default_factory=lambda: KNOWN[DEFAULT_PRESET])


@dataclass(frozen=True, kw_only=True)
class ForecastOptions(cli.CommonOptions):
    """What a trained run is to be applied to. Without --data it is the test part of the run's own data."""

    run: Positional[Path]
    """A run, or one of its checkpoint files."""
    data: DataConfig = field(default_factory=DataConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    cmap: str = "auto"
    """Colour map of the figures: any name of matplotlib, `dbz` (radar reflectivity) or `rain`; `auto` takes one that
    suits the data."""
    seed: int = 0
    """Not used: forecasts draw nothing; accepted everywhere."""


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(ForecastOptions):
    """Score forecasts per lead time, beside persistence, damped persistence and climatology."""

    part: Literal["train", "val", "test"] = "test"
    """Which part to score; a single source given with --data is scored whole."""
    limit: int = 0
    """Windows to score at most, spread evenly; 0 scores all."""
    lpips: Path | None = None
    """Weights of LPIPS with AlexNet, as the package lpips saves them; without them that column stays empty."""
    figures: bool = True
    """Also draw the figures."""
    out: Path | None = None
    """Folder for the results and figures; by default the run's own."""


@dataclass(frozen=True, kw_only=True)
class PredictOptions(ForecastOptions):
    """Forecast frames, with their times and coordinates; the input needs no future."""

    out: Path
    """File to write: .nc (netCDF), .npz, or a folder .zarr."""
    at: Literal["last", "every"] = "last"
    """`last`: what follows the end of each clip; `every`: what follows each window, `stride` frames apart."""
    figures: bool = True
    """Also draw the first forecast as a grid (.png) and an animation (.gif) beside the file."""


@dataclass(frozen=True, kw_only=True)
class CodebookOptions(ForecastOptions):
    """Say how a trained model uses its codes."""

    part: Literal["train", "val", "test"] = "test"
    """Which part to look at; a single source given with --data is taken whole."""
    limit: int = 64
    """Windows to look at, at most, spread evenly; 0 looks at all."""
    threshold: float = 2.0
    """Standard deviations beyond which a code counts as active."""
    chunk: int = 0
    """Tokens whose code weights are held at once; 0 chooses by the size of the codebook."""
    figures: bool = True
    """Also draw the figures."""
    out: Path | None = None
    """Folder for the results and figures; by default the run's own."""


@dataclass(frozen=True, kw_only=True)
class ConvertOptions(cli.ConvertOptions):
    """Turn a checkpoint of the original or of OpenSTL into a run, or data into a store (--out F.zarr) for quick
    reading of what is larger than memory."""

    preset: str = ""
    """What the checkpoint was trained as, such as t2m/svq-gsta; see `config list`. Sizes are read from the file."""
    data: DataConfig = field(default_factory=DataConfig)
    """Data that the checkpoint was trained on: tells the size of the frames, and the scale by their training part."""
    size: tuple[int, int] | None = None
    """Rows and columns of the frames, where neither the preset nor the data tell."""
    mean: tuple[float, ...] = ()
    """Mean of each channel that values were normalised with, in place of the data."""
    std: tuple[float, ...] = ()
    """Deviation of each channel."""
    ema: bool = False
    """Take the averages that OpenSTL's EMA hook keeps beside the weights."""


train_defaults = cli.train_defaults(TrainConfig, KNOWN, DEFAULT_PRESET)
"""The configuration of `train`: a preset and a file, or that of the run that goes on."""


def forecast_defaults(options: Any) -> Any:
    """Take the ways of reading and applying from the run, but not the source of its data."""
    config = cli.run_config(TrainConfig, cli.run_of(options.run))
    return replace(options, data=replace(config.data, source=()), evaluate=config.evaluate)
