"""Score forecasts for the target city on its test part, beside everything that could have been done instead.

All forecasters see the same windows. Those that are trained or fitted know the same few days: fine-tuned rows, whether
they start from generated ones, from the nearest source node's, from the mean row or from nothing, and naive forecasts.
Differences are tested over nodes, which are paired (Wilcoxon's signed ranks).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from numpy import ndarray

from gpd.options import EvaluateOptions
from gpd.pipeline import Pipeline, joined
from gpd.prompts import Prompts, nearest_rows
from gpd.records import Record
from gpd.report import (
    AVERAGE,
    FINETUNED,
    GENERATED,
    MEAN,
    NEAREST,
    PERSISTENCE,
    RANDOM,
    RIDGE,
    SCRATCH,
    SCRATCH_CLOSED,
    TUNED,
    Report,
    duration,
    ordered,
)
from gpd.rows import RowTable
from gpd.scoring import Forecasts, Starts, forecasts_of, pieces, tail_error
from gpd.stage_files import is_first, write_config
from gpd.stages import further
from stcore.baselines_graphs import HistoricalAverage, Persistence, RidgeOnAverage, targets
from stcore.cli import Outcome
from stcore.errors import UserError
from stcore.graph_windows import require_windows
from stcore.metrics.horizons import HorizonErrors
from stcore.sampling import random_stream


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Tables of the target's nodes by the name of the forecaster, and what is known of the generated ones."""

    tables: dict[str, RowTable]
    sources: RowTable | None
    """Rows of the source cities; none where the diffusion model came from elsewhere."""
    memorised: Memorised | None


@dataclass(frozen=True, kw_only=True)
class Memorised:
    """How near generated rows are to those they were learnt from, as root mean squares of differences."""

    generated: Float32[ndarray, "node"]
    """Of each generated row to the nearest row of the sources."""
    sources: Float32[ndarray, "row"]
    """Of each row of the sources to the nearest other one."""

    @property
    def ratio(self) -> float:
        """Median of the first over that of the second; far below 1 means that rows were copied."""
        return float(np.median(self.generated) / max(float(np.median(self.sources)), 1e-12))


def evaluate(pipeline: Pipeline) -> Report:
    """Score the fine-tuned and the generated rows of a run beside their rivals; what is missing before is done.

    Raises:
        UserError: the target has no test window, or a stage cannot be done.
    """
    return score(pipeline, gather(pipeline))


def gather(pipeline: Pipeline) -> Rows:
    """Return the rows that are compared, trained where that belongs to them."""
    which, training = pipeline.config.evaluate.rivals, pipeline.config.finetune
    generated = pipeline.generate()
    tables = {FINETUNED: pipeline.finetune(), GENERATED: generated}
    if pipeline.imported:
        return Rows(tables=tables | (_scratch(pipeline) if which == "all" else {}), sources=None,
                    memorised=None)  # fmt: skip
    sources = pipeline.pretrain()
    if which != "naive":
        starts = {NEAREST: _nearest(pipeline, sources), MEAN: sources.rows.mean(0).expand(len(generated), -1).clone(),
                  RANDOM: _random(pipeline, sources, len(generated))}  # fmt: skip
        tables |= {name: pipeline.table_for(rows) for name, rows in starts.items()}
        if which == "all":
            tables |= _scratch(pipeline)
            for name in (NEAREST, MEAN):
                stage = f"evaluate/{name.replace(' ', '-')}"
                tables[name + TUNED] = pipeline.tuned(starts[name], stage, training)
    return Rows(tables=tables, sources=sources, memorised=memorised(generated, sources))


def score(pipeline: Pipeline, rows: Rows) -> Report:
    """Return the errors of all forecasters on the test part of the target city."""
    config, target = pipeline.config, pipeline.target
    history, horizon = config.model.history, config.model.horizon
    starts = require_windows(target.test, history, horizon, what="test part", stride=config.evaluate.stride)
    errors: dict[str, HorizonErrors] = {}
    truths = [targets(target.test, some, history, horizon) for some in pieces(starts)]
    for name, made_pieces in _all_forecasts(pipeline, rows, starts):
        errors[name] = HorizonErrors()
        for made, truth in zip(made_pieces, truths, strict=True):
            errors[name].add(made, truth)
    minutes = None if target.series.step_seconds is None else target.series.step_seconds / 60
    unit = target.series.units[0] if target.series.units else ""
    return Report(ordered(errors), target.series.nodes, unit, minutes, _facts(pipeline, rows, len(starts), minutes),
                  _remarks(rows))  # fmt: skip


def _all_forecasts(pipeline: Pipeline, rows: Rows, starts: Starts) -> Iterator[tuple[str, Iterator[Forecasts]]]:
    target, model = pipeline.target, pipeline.config.model
    for name, table in rows.tables.items():
        yield name, (forecasts_of(table, target.test, some, device=pipeline.device) for some in pieces(starts))
    usual = HistoricalAverage.fit(target.few)
    ridge = RidgeOnAverage.fit(target.few, model.history, model.horizon, average=usual)
    for name, naive in ((PERSISTENCE, Persistence()), (AVERAGE, usual), (RIDGE, ridge)):
        yield name, (_filled(naive.predict(target.test, some, model.history, model.horizon),
                             usual.predict(target.test, some, model.history, model.horizon))
                     for some in pieces(starts))  # fmt: skip


def _filled(made: Forecasts, usual: Forecasts) -> Forecasts:
    """Put the usual value where a forecast has nothing to start from: a history without any reading."""
    return np.where(np.isnan(made), usual, made)


def _scratch(pipeline: Pipeline) -> dict[str, RowTable]:
    """Train fresh networks on the few days; with several learning rates, keep the one that is best at their end. Where
    rows are fitted in closed form, so is a map from nothing, which knows no other city: what generation adds to."""
    training, rates = pipeline.config.finetune, pipeline.config.evaluate.scratch_rates
    by_gradient = replace(training, closed_form=False)
    ways = {f"scratch-{rate:g}": replace(by_gradient, learning_rate=rate, rates=()) for rate in rates}
    tables = [pipeline.tuned(None, f"evaluate/{name}", way)
              for name, way in (ways or {"scratch": by_gradient}).items()]  # fmt: skip
    few, device = pipeline.target.few, pipeline.device
    found = {SCRATCH: min(tables, key=lambda table: tail_error(table, few, by_gradient, device))}
    if training.closed_form:
        closed = replace(training, rates=())
        found[SCRATCH_CLOSED] = pipeline.tuned(None, "evaluate/scratch-closed", closed)
    return found


def _nearest(pipeline: Pipeline, sources: RowTable) -> torch.Tensor:
    """Return for each node of the target the row of the source node with the nearest prompts."""
    prompts, name = pipeline.prompts(), pipeline.target.name
    known: Prompts = joined([prompts.matched(sources.cities, sources.nodes), prompts.of(name)], prompts)
    return sources.rows[torch.from_numpy(nearest_rows(known, name))]


def _random(pipeline: Pipeline, sources: RowTable, count: int) -> torch.Tensor:
    """Return a row of the sources for each node, drawn at random."""
    drawn = random_stream(pipeline.config.seed, "random rows").integers(len(sources), size=count)
    return sources.rows[torch.from_numpy(drawn)]


def memorised(generated: RowTable, sources: RowTable) -> Memorised:
    """Measure how far generated rows are from those of the sources, and these from one another."""
    size = generated.rows.shape[1] ** 0.5
    to_sources = torch.cdist(generated.rows, sources.rows) / size
    among = (torch.cdist(sources.rows, sources.rows) / size).fill_diagonal_(torch.inf)
    return Memorised(generated=to_sources.min(1).values.numpy(), sources=among.min(1).values.numpy())


def _facts(pipeline: Pipeline, rows: Rows, windows: int, minutes: float | None) -> dict[str, Any]:
    config, target = pipeline.config, pipeline.target
    every = "" if minutes is None else f" of {duration(minutes)}"
    sources = () if rows.sources is None else tuple(dict.fromkeys(rows.sources.cities))
    learnt = "elsewhere" if rows.sources is None else f"from {len(rows.sources)} nodes of {', '.join(sources)}"
    protocol = (
        f"{target.name}: {target.series.num_nodes} nodes of which {config.data.days} days are known; {windows:,} test "
        f"windows, {config.model.history} steps{every} in and {config.model.horizon} out, split "
        f"{config.pretrain.split}; rows of {config.model.kind} learnt {learnt}. "
        "Everything that is trained or fitted on the target knows those days alone"
    )
    return {
        "protocol": protocol, "target": target.name, "days": config.data.days, "windows": windows,
        "history": config.model.history, "horizon": config.model.horizon, "sources": list(sources),
        "model": config.model.kind, "strategy": config.denoiser.strategy, "split": config.pretrain.split,
        "select_on": config.finetune.select_on, "seed": config.seed,
        "memorised": None if rows.memorised is None else rows.memorised.ratio,
        "run": str(pipeline.run.folder),
    }  # fmt: skip


def _remarks(rows: Rows) -> tuple[str, ...]:
    said: list[str] = []
    if rows.memorised is not None:
        ratio = rows.memorised.ratio
        kind = "copies" if ratio < 0.1 else "no copies"
        said.append(f"generated rows are {ratio:.2f} times as far from their nearest source row as source rows are "
                    f"from one another: {kind}")  # fmt: skip
    tuned = rows.tables[FINETUNED].metadata
    if tuned.get("rows_given_up"):
        said.append("generated rows did worse than none on days left out: fine-tuned ones hold nothing of them")
    if (course := tuned.get("course", 1.0)) < 1.0:
        said.append(f"fine-tuned rows believe {course:.0%} of the daily course of the few days: more did worse on days "
                    "left out")  # fmt: skip
    if tuned.get("training", {}).get("select_on") == "test":
        said.append("weights were chosen on the test part, as in the original: the errors above are too low")
    return tuple(said)


def report_and_figures(
    pipeline: Pipeline, *, folder: Path | None = None, figures: bool = True, nodes: tuple[str, ...] = ()
) -> Outcome:
    """Evaluate, write the report and the figures, and say both.

    Args:
        pipeline: the run.
        folder: where they go; by default the run.
        figures: also draw.
        nodes: whose forecasts are drawn; empty chooses.

    Raises:
        UserError: a node is not there, or a stage cannot be done.
    """
    if lost := [node for node in nodes if node not in pipeline.target.series.nodes]:
        raise UserError(f"--nodes: no node {lost[0]!r} in {pipeline.target.name}; expected names such as "
                        f"{', '.join(pipeline.target.series.nodes[:3])}")  # fmt: skip
    rows = gather(pipeline)
    report = score(pipeline, rows)
    if not is_first():
        return Outcome(report.text(), report.data())
    stage = pipeline.run.folder / "evaluate"
    stage.mkdir(exist_ok=True)
    place = folder or stage
    written = [report.write(place / "evaluation.json")]
    if figures:
        from gpd.drawing import draw_evaluation

        pictures = pipeline.run.figures if folder is None else folder / "figures"
        written += draw_evaluation(pipeline, rows, report, pictures, nodes=nodes)
    write_config(pipeline.config, stage)
    Record(stage="evaluate", config={}, inputs={}, facts=report.facts).write(stage)
    return Outcome("\n".join([report.text(), "", *written]), {**report.data(), "files": written})


def command(options: EvaluateOptions) -> Outcome:
    """Do `gpd evaluate`."""
    if options.out is not None and not options.out.is_dir():
        raise UserError(f"{options.out}: no such folder; expected an existing one for --out")
    pipeline = further(options)
    return report_and_figures(pipeline, folder=options.out, figures=options.figures, nodes=options.nodes)
