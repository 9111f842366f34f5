"""The options of vlm4st's commands, the original's among them. No torch: `--help` and `config check` read this only.

The original's scripts spell their flags with underscores; every flag here is understood with underscores and dashes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from stcore import cli
from stcore.errors import UserError
from vlm4st.config import TrainConfig
from vlm4st.data_options import DataConfig
from vlm4st.presets import DEFAULT_PRESET, PRESETS

YAML = (".yaml", ".yml")
"""Endings of the original's configuration files."""


@dataclass(frozen=True, kw_only=True)
class OriginalOptions(cli.CommonOptions):
    """Flags that all of the original's scripts have, beside `--config`."""

    gpu: int | None = None
    """Number of the GPU to compute on, an error where there is none; without it as --device says."""
    single_dataset: bool = False
    """Of an original configuration take data.dataset_path, not the list data.dataset_paths."""


@dataclass(frozen=True, kw_only=True)
class TrainOptions(OriginalOptions, cli.TrainOptions):
    """Train a model; every field of the configuration is a flag. `--config` takes TOML, or YAML of the original."""

    settings: Annotated[TrainConfig, arg(name="")] = field(default_factory=lambda: PRESETS[DEFAULT_PRESET])


@dataclass(frozen=True, kw_only=True)
class FewShotOptions(TrainOptions):
    """Train for each target on all other data sets and a little of the target, or none of it, and test on it."""

    target: tuple[str, ...] = ()
    """Targets, files or names of data sets; those that are no source of --data are added to them. By default every
    source in turn."""
    ratio: float | None = None
    """Share of the target's training windows, 0 for zero-shot; by default as configured."""
    days: float | None = None
    """Days at the end of the target's training part instead."""
    target_dataset: tuple[str, ...] = ()
    """The original's word for --target."""
    target_ratio: float | None = None
    """The original's word for --ratio."""
    limit: int = 0
    """Windows to test at most, spread evenly; 0 tests all."""


@dataclass(frozen=True, kw_only=True)
class ForecastOptions(cli.CommonOptions):
    """What a trained run is to be applied to. Without --data it is the run's own data."""

    run: Positional[Path]
    """A run, or one of its checkpoint files."""
    data: DataConfig = field(default_factory=DataConfig)
    dataset: str = ""
    """Data set of the training whose scale is taken; by default the one of the same name, or the only one. Data of
    neither are scaled by their own range."""
    backbone: Path | None = None
    """Weights of the frozen backbone, where they are no longer where they were in training."""
    cmap: str = "auto"
    """Colour map of the figures, any name of matplotlib; `auto` takes viridis."""
    seed: int = 0
    """Not used: forecasts draw nothing; accepted everywhere."""


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(ForecastOptions):
    """Score forecasts per lead time beside naive ones, on the grid and in the units of each data set."""

    part: Literal["train", "val", "test"] = "test"
    """Which part to score."""
    limit: int = 0
    """Windows of each data set to score at most, spread evenly; 0 scores all."""
    figures: bool = True
    """Also draw the figures."""
    out: Path | None = None
    """Folder for the results and figures; by default the run's own."""


@dataclass(frozen=True, kw_only=True)
class TestOptions(OriginalOptions):
    """Test as the original does: `evaluate`, with its options and names of results."""

    checkpoint: Path
    """A run, one of its checkpoint files, or a .pth file of the original (then --config says what it is)."""
    config: Path | None = None
    """Configuration that names the data sets, TOML or the original's YAML; by default that of the run."""
    output_dir: Path = Path("results")
    """Folder for the results; it is made."""
    save_predictions: bool = False
    """Also write forecasts and what came, in units and cells of the data."""
    seed: int = 0
    """Not used: forecasts draw nothing; accepted everywhere."""


@dataclass(frozen=True, kw_only=True)
class PredictOptions(ForecastOptions):
    """Forecast frames, with their times and coordinates; the input needs no future."""

    out: Path
    """File to write: .nc (netCDF), .npz, or a folder .zarr."""
    at: Literal["last", "every"] = "last"
    """`last`: what follows the end of each clip; `every`: what follows each window, `data.stride` frames apart."""
    figures: bool = True
    """Also draw the first forecast as a grid (.png) and an animation (.gif) beside the file."""


@dataclass(frozen=True, kw_only=True)
class ConvertOptions(cli.ConvertOptions):
    """Turn a file of the original into ours: weights of ALBEF (--out F.safetensors), a checkpoint (--out RUN, with the
    YAML it was trained with), UniST JSON (--out F.npz), adapters of a run in the layout of peft (--out FOLDER)."""

    config: Path | None = None
    """The original's configuration of a checkpoint."""
    single_dataset: bool = False
    """Of an original configuration take data.dataset_path, not the list data.dataset_paths."""
    text_layers: bool = True
    """Keep the text layers of ALBEF too, which only model.text-path text_then_fusion and the ablation no_visual use."""
    image_res: int = 0
    """Pixels a side to bring ALBEF's positions to; 0 leaves them, and models bring them to their own."""


@dataclass(frozen=True, kw_only=True)
class ExportOptions(cli.CommonOptions):
    """Write a trained model for other runtimes, checked against this one."""

    run: Positional[Path]
    """A run, or one of its checkpoint files."""
    out: Path
    """File to write: .pt2 (torch.export) or .onnx."""
    format: Literal["auto", "pt2", "onnx"] = "auto"
    """Format; `auto` goes by the ending."""
    dataset: str = ""
    """Data set of the training that the file is for; needed where several differ in grid, or in what is usual."""
    backbone: Path | None = None
    """Weights of the frozen backbone, where they are no longer where they were in training."""
    seed: int = 0
    """Of the frames that both are checked on."""


@dataclass(frozen=True, kw_only=True)
class DataOptions(cli.CommonOptions):
    """Look at data sets."""

    data: DataConfig = field(default_factory=DataConfig)
    seed: int = 0
    """Not used; accepted everywhere."""


def train_defaults(options: Any) -> Any:
    """Return the defaults of `train`: a preset and a file, TOML or the original's YAML, or the run that goes on."""
    if options.config is None or options.resume is not None:
        return cli.train_defaults(TrainConfig, PRESETS, DEFAULT_PRESET)(_checked(options))
    if options.config.suffix.lower() not in YAML:
        return replace(_checked(options), settings=read_config(options.config, preset=options.preset))
    if options.preset:
        raise UserError(f"--preset: goes with no {options.config.name}; expected one of them; the original's "
                        "configuration says everything")  # fmt: skip
    few_shot = isinstance(options, FewShotOptions)
    return replace(options, settings=original_config(options.config, single=options.single_dataset, few_shot=few_shot))


def original_config(path: Path, *, single: bool = False, few_shot: bool = False) -> TrainConfig:
    """Read a YAML file of the original."""
    from vlm4st.original_config import read_original_config

    return read_original_config(path, single=single, few_shot=few_shot)


def read_config(path: Path, *, single: bool = False, preset: str = "") -> TrainConfig:
    """Read a configuration: YAML of the original, or TOML over a preset.

    The configuration of a run says everything, but leaves out what is none, which a preset must not fill in.
    """
    from stcore.configuration import overlay, read_toml

    if path.suffix.lower() in YAML:
        return original_config(path, single=single)
    values = read_toml(path)
    base = TrainConfig() if "preset" in values and not preset else cli.pick_preset(PRESETS, preset or DEFAULT_PRESET)
    return overlay(base, {key: value for key, value in values.items() if key != "preset"}, where=str(path))


def forecast_defaults(options: Any) -> Any:
    """Take the ways of reading and applying from the run, but not the source of its data."""
    config = cli.run_config(TrainConfig, cli.run_of(options.run))
    return replace(options, data=replace(config.data, source=()))


def _checked(options: Any) -> Any:
    """Refuse a checkpoint of the original where a run of ours is expected."""
    for name in ("resume", "init_from"):
        path = getattr(options, name)
        if path is not None and path.suffix in (".pth", ".pt", ".ckpt"):
            raise UserError(f"--{name.replace('_', '-')}: {path}: a checkpoint of the original; expected a run; make "
                            "one of it with vlm4st convert, then go on with --init-from")  # fmt: skip
    return options
