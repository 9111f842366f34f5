"""Score one-step forecasts of a run beside naive forecasters, stream over events, write a table and figures.

Protocol, named in every report: each event after the first of its sequence is forecast from the true events before
it; the first is not. Scaling and rivals know the training part only; a calibration knows the val part as well.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smash.calibrated import Calibration, fit_calibration
from smash.config import SamplerConfig
from smash.metrics import Row, ScoreTable, Summary, event_scores
from smash.options import EvaluateOptions
from smash.predict import Drawn, Forecaster, events_of
from stcore.baselines import ConstantRate, EventForecaster, EventSamples, Marginal, constant_errors, transitions
from stcore.cli import Outcome, run_of
from stcore.errors import UserError
from stcore.events import EventSequences
from stcore.files import to_json, write_atomically
from stcore.metrics.calibration import LevelMap
from stcore.readers import read_event_parts
from stcore.training.run import Run

_log = logging.getLogger(__name__)

PROTOCOL = "one step ahead from the true history; scaling and baselines from the training part alone"
MODEL, CALIBRATED = "smash", "calibrated"
"""Names of the model and of its calibrated variant in the tables."""


@dataclass(frozen=True)
class Report:
    """What an evaluation found."""

    tables: dict[str, Summary]
    """Table of scores of the model, of its calibrated variant if there is one, and of each rival, in this order."""
    constants: dict[str, dict[str, float]]
    """Errors of constant predictors."""
    better: dict[str, dict[str, bool]] = field(default_factory=dict[str, dict[str, bool]])
    """For each rival the rows, but for `legacy_*`, in which it does better than the model, and whether beyond chance
    (the 95 % bootstrap interval of the difference over sequences leaves out 0)."""
    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    """Run, step, protocol, sampler, seed, units."""

    def value(self, name: str, forecaster: str = "smash") -> float:
        """Return one figure of one forecaster."""
        return next(row["value"] for row in self.tables[forecaster]["rows"] if row["name"] == name)

    def data(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {"facts": self.facts, "tables": self.tables, "constants": self.constants, "better": self.better}

    def text(self) -> str:
        """Return the tables for a terminal."""
        model, *rivals = self.tables
        head = ["", "", model, "95 % interval", "perfect", *rivals]
        others = {name: {row["name"]: row["value"] for row in self.tables[name]["rows"]} for name in rivals}
        lines = [
            [row["name"], self._unit(row), _number(row["value"]), _interval(row), _number(row["floor"]),
             *(_number(others[name].get(row["name"])) for name in rivals)]
            for row in self.tables[model]["rows"]
        ]  # fmt: skip
        constants = [
            [name, ", ".join(f"{what} {_number(value)}" for what, value in errors.items())]
            for name, errors in self.constants.items()
        ]
        summary = self.tables[model]
        title = (
            f"{summary['events']:,} events of {summary['sequences']} sequences, {self.facts['samples']} samples each"
        )
        return "\n".join([title, self.facts["protocol"], "", _aligned([head, *lines]), *self._verdict(), "",
                          "constant predictors, fitted on the training part:", _aligned(constants)])  # fmt: skip

    def _verdict(self) -> list[str]:
        """Say in which rows each rival does better than the model."""
        if not self.better:
            return []
        lines = [
            f"{rival} does better than smash in {', '.join(name + '*' * sure for name, sure in rows.items())}"
            for rival, rows in self.better.items() if rows
        ]  # fmt: skip
        if not lines:
            return ["no rival does better than smash in any row"]
        return [*lines, "* beyond chance: the 95 % interval of the difference over sequences leaves out 0"]

    def _unit(self, row: Row) -> str:
        return {"gap": self.facts["time_unit"], "location": self.facts["coordinates"]}.get(row["unit"], row["unit"])


def evaluate(
    forecaster: Forecaster,
    events: EventSequences,
    train: EventSequences,
    *,
    sampler: SamplerConfig | None = None,
    seed: int = 0,
    legacy: bool = True,
    rivals: Mapping[str, EventForecaster] | None = None,
    calibration: Calibration | None = None,
) -> Report:
    """Score a forecaster on `events`.

    Args:
        forecaster: the model.
        events: held-back sequences.
        train: the training part, which the baselines are fitted on.
        sampler: how to sample; None as configured in training.
        seed: of the samples of model and rivals.
        legacy: also compute the kernel-density figures of the paper.
        rivals: further forecasters of the same events, by name, such as `smash.rivals.fit_rivals(train, events)`.
        calibration: also score the forecasts adjusted by it.

    Raises:
        UserError: nothing to predict, or marks that training did not know.
    """
    chosen = sampler or forecaster.config.sampler
    names = forecaster.features.mark_names
    known, fitted = events.with_mark_names(names), transitions(train.with_mark_names(names))
    if not (known.lengths > 1).any():
        raise UserError("events: no sequence has two of them; expected something to predict")
    constants = constant_errors(fitted, transitions(known))
    others: dict[str, EventForecaster] = {"marginal": Marginal(fitted), "constant rate": ConstantRate(fitted)}
    others |= dict(rivals or {})
    # Sums only: per-event scores of a whole part would need more memory than the part.
    variants = (MODEL,) if calibration is None else (MODEL, CALIBRATED)
    scored = {name: ScoreTable() for name in (*variants, *others)}
    done = 0
    for drawn in forecaster.stream(known, at="every", sampler=chosen, seed=seed):
        rows = np.arange(done, done + len(drawn.event))
        done += len(rows)
        truth, sequence = _truth(known, drawn), torch.from_numpy(drawn.sequence)
        scored[MODEL].update(_score(drawn.samples, truth, legacy=legacy, floor=True, extra=drawn.extra), sequence)
        if calibration is not None:
            adjusted = _score(calibration.samples(drawn.samples), truth, regions=calibration.location)
            scored[CALIBRATED].update(adjusted, sequence)
        for name, rival in others.items():
            samples = rival.sample(rows, chosen.samples, seed=seed)
            scored[name].update(_score(samples, truth), sequence)
    tables = {name: table.summary() for name, table in scored.items()}
    gains = {name: scored[MODEL].advantage(scored[name]) for name in others}
    better = {
        rival: {name: sure for name, sure in rows.items() if not name.startswith("legacy_")}
        for rival, rows in gains.items()
    }
    facts = {
        "protocol": PROTOCOL, "samples": chosen.samples, "sampler": chosen.mode, "seed": seed,
        "time_unit": forecaster.features.time_unit, "coordinates": forecaster.features.coordinates,
        "checkpoint": forecaster.facts.get("path", ""), "step": forecaster.facts.get("step"),
        "smash": forecaster.facts.get("version"),
        "calibrated_on": None if calibration is None else f"{calibration.events:,} events of the val part",
    }  # fmt: skip
    return Report(tables, constants, better, facts)


def calibrate(
    forecaster: Forecaster, val: EventSequences, *, sampler: SamplerConfig | None = None, seed: int = 0
) -> Calibration:
    """Fit the calibration of a forecaster on `val`, events that it was not trained on.

    Raises:
        UserError: too few events, or marks that training did not know.
    """
    known = val.with_mark_names(forecaster.features.mark_names)
    found: dict[str, list[Tensor]] = {}
    for drawn in forecaster.stream(known, at="every", sampler=sampler, seed=seed):
        scored = _score(drawn.samples, _truth(known, drawn))
        for name in ("gap_covering", "location_covering", "mark_probability", "mark"):
            if name in scored:
                found.setdefault(name, []).append(scored[name])
    columns = {name: torch.cat(parts) for name, parts in found.items()}
    none = torch.zeros(0, dtype=torch.float64)
    return fit_calibration(columns.get("gap_covering", none), columns.get("location_covering", none),
                           mark_probability=columns.get("mark_probability"), mark=columns.get("mark"),
                           model=forecaster.fingerprint)  # fmt: skip


def command(options: EvaluateOptions) -> Outcome:
    """Do `smash evaluate`."""
    forecaster = Forecaster.load(options.run, device=options.device)
    events = events_of(options, forecaster, part=options.part)
    own = read_event_parts(forecaster.config.data)
    run = Run(run_of(options.run))
    folder = options.out or run.folder
    if options.out is not None and not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected an existing one for --out")
    written: list[str] = []
    if options.calibrate:
        fitted = calibrate(forecaster, own.val, sampler=options.sampler, seed=options.seed)
        written.append(str(fitted.save(run.folder)))
    rivals: dict[str, EventForecaster] = {}
    if options.rivals:
        from smash.rivals import Rivals

        names = forecaster.features.mark_names
        fit = Rivals.of_run(folder, own.train.with_mark_names(names))
        rivals = fit.forecasters(events.with_mark_names(names))
    report = evaluate(forecaster, events, own.train, sampler=options.sampler, seed=options.seed, legacy=options.legacy,
                      rivals=rivals, calibration=_kept(forecaster, run.folder))  # fmt: skip
    path = folder / f"evaluation-{options.part}.json"
    write_atomically(path, [to_json(report.data()).encode()])
    written.insert(0, str(path))
    if options.figures:
        from smash.drawing import draw_evaluation

        written += draw_evaluation(forecaster, events, report, run, folder / "figures", seed=options.seed)
    return Outcome("\n".join([report.text(), "", *written]), {**report.data(), "files": written})


def _kept(forecaster: Forecaster, folder: Path) -> Calibration | None:
    """Return the calibration beside the run; one of other weights (of an earlier best) is passed over."""
    try:
        return Calibration.load(folder, model=forecaster.fingerprint)
    except UserError as error:
        _log.warning("%s", error)
        return None


def _truth(events: EventSequences, drawn: Drawn) -> dict[str, Tensor | None]:
    """Take the events that were forecast; a single mark is no choice."""
    rows = events.offsets[drawn.sequence] + drawn.event
    return {
        "gap": torch.from_numpy(events.time[rows] - events.time[rows - 1]),
        "location": torch.from_numpy(events.location[rows]),
        "mark": None if events.mark is None or events.num_marks < 2 else torch.from_numpy(events.mark[rows]),
    }


def _score(
    samples: EventSamples, truth: Mapping[str, Any], *, legacy: bool = False, floor: bool = False,
    extra: Mapping[str, Tensor] | None = None, regions: LevelMap | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    marked = truth["mark"] is not None
    return event_scores(
        samples.gap, samples.location, gap=truth["gap"], location=truth["location"], mark=truth["mark"],
        mark_probability=samples.mark_probability if marked else None, mark_samples=samples.mark if marked else None,
        legacy=legacy, floor=floor, extra=extra, regions=regions,
    )  # fmt: skip


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _interval(row: Row) -> str:
    low, high = row["low"], row["high"]
    return "" if low is None or high is None else f"{_number(low)} to {_number(high)}"


def _aligned(table: list[list[str]]) -> str:
    if not table:
        return ""
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    cells = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in table)
    return "\n".join("  ".join(line).rstrip() for line in cells)
