"""The commands of single stages, and `gpd run` for all of them: what is done is not done again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gpd.config import RunConfig
from gpd.options import LaterOptions, StageOptions, stage_config
from gpd.pipeline import HARMLESS, Pipeline
from gpd.presets import DEFAULT_PRESET
from gpd.rows import RowTable
from gpd.stage_files import PROMPTS, ROWS
from stcore.cli import Outcome, refuse_changes, run_config, run_of
from stcore.errors import UserError


def run_all(options: StageOptions) -> Outcome:
    """Do `gpd run`: all stages, the evaluation included."""
    from gpd.evaluate import report_and_figures

    pipeline = begin(options, target=True)
    return report_and_figures(pipeline)


def pretrain(options: StageOptions) -> Outcome:
    """Do `gpd pretrain`: the table of rows of the source cities."""
    pipeline = begin(options, sources_only=True)
    return _rows(pipeline.pretrain(), pipeline, pipeline.run.folder / "pretrain" / ROWS)


def prompts(options: LaterOptions) -> Outcome:
    """Do `gpd prompts`."""
    pipeline = further(options)
    found, path = pipeline.prompts(), pipeline.run.folder / "prompts" / PROMPTS
    counts = {city: len(found.rows_of(city)) for city in found.names}
    sizes = f"{found.spatial.shape[1]} + {found.temporal.shape[1]}"
    words = ", ".join(f"{city} {count}" for city, count in counts.items())
    data = {"run": str(pipeline.run.folder), "file": str(path), "nodes": counts, "digest": found.digest}
    return Outcome(f"{sizes} numbers for each node ({words}) in {path}", data)


def train(options: StageOptions) -> Outcome:
    """Do `gpd train`: the diffusion model."""
    pipeline = begin(options)
    result = pipeline.train()
    return Outcome(result.words("val/loss"), result.data())


def generate(options: LaterOptions) -> Outcome:
    """Do `gpd generate`: rows of the target city."""
    pipeline = further(options)
    return _rows(pipeline.generate(), pipeline, pipeline.run.folder / "generate" / ROWS)


def finetune(options: LaterOptions) -> Outcome:
    """Do `gpd finetune`: the same rows, trained on the few days."""
    pipeline = further(options)
    return _rows(pipeline.finetune(), pipeline, pipeline.run.folder / "finetune" / ROWS)


def begin(options: StageOptions, *, target: bool = False, sources_only: bool = False) -> Pipeline:
    """Start a run, or open the one that goes on.

    Args:
        options: of the command.
        target: whether the stage needs a target city.
        sources_only: whether it does not even look at one.

    Raises:
        UserError: data or options cannot be used.
    """
    config = options.settings
    if target and not config.data.target:
        raise UserError("--target: no target city; expected the one to forecast for; pass --target FILE --days N")
    if options.resume is not None:
        stored = run_config(RunConfig, run_of(options.resume))
        refuse_changes(stored, _as_before(stored, config), harmless=HARMLESS)
        return Pipeline.open(options.resume, config, device=options.device, quiet=options.quiet)
    preset = options.preset or (DEFAULT_PRESET if options.config is None else "custom")
    return Pipeline.start(config, run=options.run, preset=preset, device=options.device, quiet=options.quiet,
                          init_from=options.init_from, sources_only=sources_only)  # fmt: skip


def _as_before(stored: RunConfig, wanted: RunConfig) -> RunConfig:
    """Let a target be named, or its days, that the stages so far did not depend on."""
    if stored.data.target:
        return wanted
    return replace(wanted, data=replace(wanted.data, target=stored.data.target, days=stored.data.days,
                                        target_adjacency=stored.data.target_adjacency))  # fmt: skip


def further(options: LaterOptions) -> Pipeline:
    """Open a run for one more stage.

    Raises:
        UserError: it is none, or an option would change what is done already.
    """
    folder = run_of(options.run)
    stored = stage_config(folder)
    config = replace(stored, data=options.data, spatial=options.spatial, temporal=options.temporal,
                     sampling=options.sampling, finetune=options.finetune, evaluate=options.evaluate)  # fmt: skip
    if options.seed != stored.seed:
        raise UserError(f"--seed: {options.seed}, but the run has {stored.seed}; expected the same, since every stage "
                        "depends on it; start a new run")  # fmt: skip
    return Pipeline.open(Path(options.run), config, device=options.device, quiet=options.quiet, redo=options.redo)


def _rows(table: RowTable, pipeline: Pipeline, path: Path) -> Outcome:
    cities = {city: table.cities.count(city) for city in dict.fromkeys(table.cities)}
    words = ", ".join(f"{city} {count}" for city, count in cities.items())
    data = {"run": str(pipeline.run.folder), "file": str(path), "rows": cities, "numbers": int(table.rows.shape[1])}
    return Outcome(f"{len(table)} rows of {table.rows.shape[1]:,} numbers ({words}) in {path}", data)
