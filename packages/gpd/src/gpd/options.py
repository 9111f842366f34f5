"""The options of gpd's commands. No torch: `--help` and `config check` read this and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from gpd.config import DataConfig, EvaluateConfig, RunConfig
from gpd.diffusion.configs import SamplingConfig
from gpd.models.configs import NodeTrainingConfig
from gpd.presets import DEFAULT_PRESET, KNOWN
from gpd.prompts.configs import SpatialPromptConfig, TemporalPromptConfig
from stcore import cli

STAGES = ("pretrain", "prompts", "train", "generate", "finetune", "evaluate")
"""The stages, in their order."""


@dataclass(frozen=True, kw_only=True)
class StageOptions(cli.TrainOptions):
    """Do a stage and those before it that are not done; every field of the configuration is a flag."""

    target: str = ""
    """City to forecast for; the same as --data.target."""
    days: int = 0
    """Days of it that are known; the same as --data.days, and 0 leaves that as it is."""
    settings: Annotated[RunConfig, arg(name="")] = field(default_factory=lambda: KNOWN[DEFAULT_PRESET])


@dataclass(frozen=True, kw_only=True)
class LaterOptions(cli.CommonOptions):
    """Do one more stage of a run, and those before it that are not done."""

    run: Positional[Path]
    """The run."""
    target: str = ""
    """City to forecast for; the same as --data.target."""
    days: int = 0
    """Days of it that are known; the same as --data.days, and 0 leaves that as it is."""
    data: DataConfig = field(default_factory=DataConfig)
    spatial: SpatialPromptConfig = field(default_factory=SpatialPromptConfig)
    temporal: TemporalPromptConfig = field(default_factory=TemporalPromptConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    finetune: NodeTrainingConfig = field(default_factory=lambda: NodeTrainingConfig(select_on="tail"))
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    seed: int = 0
    """Seed of what this stage draws; by default the run's."""
    redo: bool = False
    """Do the stage anew where the run has it already, made from something else."""


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(LaterOptions):
    """Score the forecasts for the target city per horizon, beside rivals, paired over nodes."""

    nodes: tuple[str, ...] = ()
    """Nodes whose forecasts are drawn; empty takes the best, the usual and the worst."""
    figures: bool = True
    """Also draw the figures."""
    out: Path | None = None
    """Folder for the results and figures; by default the run's own."""


@dataclass(frozen=True, kw_only=True)
class PredictOptions(cli.CommonOptions):
    """Forecast nodes of a city, with their names, times and units; the input needs no future."""

    run: Positional[Path]
    """The run."""
    data: DataConfig = field(default_factory=DataConfig)
    rows: Literal["auto", "finetune", "generate", "pretrain"] = "auto"
    """Node models to use: fine-tuned, generated, or those of a source city; `auto` takes the first that the run has
    for the nodes of the city, and generates them where it has none."""
    out: Path
    """File to write: .csv, .parquet or .npz."""
    at: Literal["last", "every"] = "last"
    """`last`: what follows the end of the series; `every`: what follows each window."""
    figures: bool = True
    """Also draw the forecasts of a few nodes (.png) beside the file."""
    seed: int = 0
    """Of rows that have to be generated."""


@dataclass(frozen=True, kw_only=True)
class ConvertOptions(cli.ConvertOptions):
    """Turn files of the original into ours: `ModelParams_*.npy`, `sampleRes_*.npy`, prompts `*Emb.npy`, `model-*.pt`,
    `task4_*.pt` (or a folder of them); or data of any known format into one .npz."""

    kind: Literal["auto", "rows", "samples", "prompts", "diffusion", "node", "data"] = "auto"
    """What the file holds; `auto` goes by its name and its shape."""
    preset: str = ""
    """What the file was made for, such as metr-la/gwn/pre-inductive; see `config list`."""
    family: Literal["auto", "crowd", "traffic"] = "auto"
    """Cities whose rows a table holds, in the order of the original; `auto` goes by the number of rows."""
    data: DataConfig = field(default_factory=DataConfig)


_defaults = cli.train_defaults(RunConfig, KNOWN, DEFAULT_PRESET)


def train_defaults(options: Any) -> Any:
    """Take the configuration of a preset and a file, or of the run that goes on; then --target and --days."""
    chosen = _defaults(options)
    return replace(chosen, settings=replace(chosen.settings, data=_with_target(chosen.settings.data, options)))


def later_defaults(options: Any) -> Any:
    """Take everything from the latest stage of the run, but what --target and --days say."""
    config = stage_config(cli.run_of(options.run))
    return replace(options, data=_with_target(config.data, options), spatial=config.spatial, temporal=config.temporal,
                   sampling=config.sampling, finetune=config.finetune, evaluate=config.evaluate,
                   seed=config.seed)  # fmt: skip


def forecast_defaults(options: Any) -> Any:
    """Take the ways of reading from the run, but not the source of its data."""
    config = stage_config(cli.run_of(options.run))
    return replace(options, data=replace(config.data, source=()), seed=config.seed)


def stage_config(run: Path) -> RunConfig:
    """Return the configuration of the latest stage of a run.

    Raises:
        UserError: there is no run, or its configuration does not fit this version.
    """
    config = cli.run_config(RunConfig, run)
    for stage in reversed(STAGES):
        if (run / stage / "made.json").is_file() and (run / stage / "config.toml").is_file():
            return cli.run_config(RunConfig, run / stage)
    return config


def _with_target(data: DataConfig, options: Any) -> DataConfig:
    return replace(data, target=options.target or data.target, days=options.days or data.days)
