"""The options of stpred's commands. No torch: `--help` and `config check` read this and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from stcore import cli
from stpred.config import PRESETS, DataConfig, EvaluateConfig, TrainConfig

DEFAULT_PRESET = "moving-mnist/convlstm"


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
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    cmap: str = "auto"
    """Colour map of the figures: any name of matplotlib, `dbz` (radar reflectivity) or `rain`; `auto` takes grey, or
    viridis where cells are missing."""
    seed: int = 0
    """Not used: forecasts draw nothing; accepted everywhere."""


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(ForecastOptions):
    """Score forecasts per lead time, beside persistence and the mean frame."""

    part: Literal["train", "val", "test"] = "test"
    """Which part to score; a single source given with --data is scored whole."""
    limit: int = 0
    """Windows to score at most, spread evenly; 0 scores all."""
    figures: bool = True
    """Also draw the figures."""
    out: Path | None = None
    """Folder for the results and figures; by default the run's own."""


@dataclass(frozen=True, kw_only=True)
class PredictOptions(ForecastOptions):
    """Forecast frames, with their times."""

    out: Path
    """File to write: .npz, or a folder .zarr."""
    at: Literal["last", "every"] = "last"
    """`last`: what follows the end of each clip; `every`: what follows each window, `stride` frames apart."""
    figures: bool = True
    """Also draw the first forecast as a grid (.png) and an animation (.gif) beside the file."""


@dataclass(frozen=True, kw_only=True)
class ConvertOptions(cli.ConvertOptions):
    """Turn a checkpoint of the original, or of OpenSTL, into a run."""

    preset: str = ""
    """Data set and model that the checkpoint was trained with, by default on Moving MNIST; see `config list`. Sizes are
    read from the file where it tells them."""
    update: Literal["reference", "corrected"] = "reference"
    """Update of a TrajGRU: the original's, which its weights were trained with, or the paper's."""


@dataclass(frozen=True, kw_only=True)
class MovingMNISTOptions(cli.CommonOptions):
    """Write a file of generated sequences of moving digits, in the layout of the standard test file."""

    out: Path
    """File to write: .npy, uint8, (frame, sequence, row, column); or .npz with clips."""
    source: str = "digits"
    """Whose digits: `digits` (those of scikit-learn), an idx file of MNIST or a folder with one."""
    sequences: int = 1000
    """Sequences."""
    length: int = 20
    """Frames in a sequence."""
    digits: tuple[int, ...] = (2,)
    """Digits in a sequence; of several numbers each sequence takes one at random."""
    canvas: int = 64
    """Height and width of a frame; digits shrink with it."""
    speed: float = 0.1
    """Step from frame to frame, as a share of the way from wall to wall."""
    rng: Literal["numpy", "python"] = "numpy"
    """Where draws come from: `python` follows the original's order of draws, and is slower."""
    seed: int = 0
    """Seed of the sequences."""


train_defaults = cli.train_defaults(TrainConfig, PRESETS, DEFAULT_PRESET)
"""The configuration of `train`: a preset and a file, or that of the run that goes on."""


def forecast_defaults(options: Any) -> Any:
    """Take the ways of reading and applying from the run, but not the source of its data."""
    config = cli.run_config(TrainConfig, cli.run_of(options.run))
    return replace(options, data=replace(config.data, source=()), evaluate=config.evaluate)
