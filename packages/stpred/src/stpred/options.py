"""The options of stpred's commands. No torch: `--help` and `config check` read this and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from stcore import cli
from stcore.configuration import from_plain, overlay, read_toml
from stcore.readers.grid_options import GridReadOptions
from stpred.config import MODEL_CONFIGS, PRESETS, DataConfig, EvaluateConfig, TrainConfig, overlay_kind

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
    """Colour map of the figures: any name of matplotlib, `dbz` (radar reflectivity) or `rain`; `auto` takes grey."""
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
class ExportOptions(cli.CommonOptions):
    """Write a trained model for other runtimes, checked against this one."""

    run: Positional[Path]
    """A run, or one of its checkpoint files."""
    out: Path
    """File to write: .pt2 (torch.export) or .onnx."""
    format: Literal["auto", "pt2", "onnx"] = "auto"
    """Format; `auto` goes by the ending."""
    horizon: int = 0
    """Frames that the exported model forecasts; 0 takes as many as in training."""
    seed: int = 0
    """Of the frames that both are checked on."""


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


@dataclass(frozen=True, kw_only=True)
class DataOptions(cli.CommonOptions):
    """Look at a data set."""

    data: GridReadOptions = field(default_factory=GridReadOptions)
    seed: int = 0
    """Not used; accepted everywhere."""


def train_options(arguments: Sequence[str]) -> Any:
    """Return `TrainOptions` for these arguments: their preset, file or run decides which model's fields are flags.

    Raises:
        UserError: there is no such preset, file or run.
    """
    given = {"preset": "", "config": "", "resume": ""}
    for token, value in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, inline = token.removeprefix("--").partition("=")
        if token.startswith("--") and name in given:
            given[name] = inline if equals else value
    file, run = (Path(given[name]) if given[name] else None for name in ("config", "resume"))
    settings = train_defaults(TrainOptions(preset=given["preset"], config=file, resume=run)).settings
    flags = ("settings", Annotated[TrainConfig, arg(name="")], field(default_factory=lambda: settings))
    return make_dataclass("TrainOptions", [flags], bases=(TrainOptions,), frozen=True, kw_only=True)


def train_defaults(options: TrainOptions) -> TrainOptions:
    """Take the configuration of `train` from a preset and a file, or from the run that goes on."""
    plain = cli.train_defaults(TrainConfig, PRESETS, DEFAULT_PRESET)
    if options.resume is not None or options.config is None:
        return plain(options)
    base = cli.pick_preset(PRESETS, options.preset or DEFAULT_PRESET)
    return replace(options, settings=from_file(base, options.config))


def from_file(base: TrainConfig, path: Path) -> TrainConfig:
    """Return `base` with the fields of a TOML file in place of its own; the file may name another model.

    Raises:
        UserError: no such file, an unknown key, a wrong value.
    """
    values = {key: value for key, value in read_toml(path).items() if key != "preset"}
    base = overlay_kind(base, values, where=str(path))
    model = values.get("model")
    if isinstance(model, Mapping):
        # Checked apart, since of a union only "none of them fits" could be said.
        from_plain(MODEL_CONFIGS[base.model.kind], {str(key): value for key, value in model.items()},
                   where=f"{path}: model")  # fmt: skip
    return overlay(base, values, where=str(path))


def forecast_defaults(options: Any) -> Any:
    """Take the ways of reading and applying from the run, but not the source of its data."""
    config = cli.run_config(TrainConfig, cli.run_of(options.run))
    return replace(options, data=replace(config.data, source=()), evaluate=config.evaluate)
