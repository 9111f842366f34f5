"""The figures of evaluations and forecasts: one event in detail, calibration, a sequence, futures, rates, training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from smash.calibrated import Calibration
from smash.config import SamplerConfig
from smash.data import prefix
from smash.evaluate import CALIBRATED, Report
from smash.intensity import rate_in_time
from smash.predict import LEVELS, Forecaster, typical
from smash.rollout import Region, RollOut
from stcore import figures, figures_forecasts
from stcore.errors import UserError
from stcore.events import EventSequences
from stcore.training.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TrueRate = Callable[[NDArray[np.float64], EventSequences], NDArray[np.float64]]

MAP_SAMPLES = 1000
POINTS = 1200
"""Times at which rates are drawn."""
HISTORY = 30
"""Events before the drawn one that its map shows."""
FEW_MARKS = 4
"""Kinds of events up to which each has a curve of its own."""


def draw_evaluation(
    forecaster: Forecaster,
    events: EventSequences,
    report: Report,
    run: Run,
    folder: Path,
    *,
    seed: int = 0,
    true_rate: TrueRate | None = None,
) -> list[str]:
    """Draw the figures of an evaluation into `folder` and return their paths.

    Args:
        forecaster: the model.
        events: what was evaluated.
        report: what was found.
        run: for the training curves.
        folder: where the figures go.
        seed: of the samples that are drawn.
        true_rate: the true rate (time, mark) at times of a sequence, where it is known.
    """
    table = report.tables["smash"]
    curves = {name: np.array(values) for name, values in table["curves"].items()}
    observed = {"gap": curves["gap"], "location": curves["location"]}
    if CALIBRATED in report.tables:
        adjusted = report.tables[CALIBRATED]["curves"]
        observed |= {f"{name}, calibrated": np.array(adjusted[name]) for name in ("gap", "location")}
    drawn = {
        "coverage": figures.coverage_curve(curves["levels"], observed, events=table["events"]),
        "pit": figures.pit_histogram(curves["pit_gap"]),
    }
    if "confidence" in curves:
        drawn["marks"] = figures.reliability_diagram(curves["confidence"], curves["accuracy"], curves["count"])
    drawn |= _last_event(forecaster, events, seed)
    drawn["intensity"] = _intensity(forecaster, typical(events), true_rate)
    if run.metrics_file.exists():
        drawn["training"] = figures.training_curves(run.metrics_file)
    return _saved(drawn, folder)


def draw_forecasts(
    forecaster: Forecaster,
    events: EventSequences,
    folder: Path,
    *,
    sampler: SamplerConfig | None = None,
    seed: int = 0,
    calibration: Calibration | None = None,
) -> list[str]:
    """Draw the forecasts of a typical sequence: its next event, and every event it has from those before it.

    Args:
        forecaster: the model.
        events: sequences.
        folder: where the figures go.
        sampler, seed: of the samples.
        calibration: adjusts the gaps, where it is wanted.

    Returns:
        Paths of the figures.
    """
    one = typical(events)
    drawn = _next_event(forecaster, one, None, seed, calibration)
    if one.num_events > 2:
        table = forecaster.predict(one, levels=LEVELS, at="every", sampler=sampler, seed=seed, calibration=calibration)
        gap = np.stack([table[f"gap_{level:g}"] for level in LEVELS], axis=1)
        drawn["gaps"] = figures_forecasts.gaps_along_sequence(
            table["event"], gap, truth=np.diff(one.time), levels=LEVELS, unit=one.time_unit
        )
    return _saved(drawn, folder)


def draw_futures(
    rolled: RollOut, history: EventSequences, folder: Path, *, region: Region | None = None, horizon: float = 0.0
) -> list[str]:
    """Draw sampled futures of one sequence: a fan of the next events or, up to a horizon, a map of probabilities.

    Raises:
        UserError: no future has an event within the horizon, so there is no map to draw.
    """
    if not horizon:
        fan = figures_forecasts.future_fan(rolled.time, history_time=history.time, unit=history.time_unit)
        return _saved({"futures": fan}, folder)
    places = rolled.location[np.isfinite(rolled.time)]
    if not len(places):
        raise UserError(f"--figures: no future has an event within {horizon:g} {history.time_unit}; expected a longer "
                        "--horizon or more --trajectories")  # fmt: skip
    rings = () if region is None else region.rings
    x, y = figures_forecasts.cells_around(np.concatenate([places, *rings]))
    chart = figures_forecasts.probability_map(
        x, y, rolled.cell_probability(x, y), history=history.location[-HISTORY:], region=rings,
        chance=None if region is None else rolled.probability_within(region, horizon),
        degrees=history.coordinates == "degrees",
        title=f"Where events are expected within {horizon:g} {_plural(history.time_unit, horizon)}",
    )  # fmt: skip
    return _saved({"probability": chart}, folder)


def _plural(unit: str, count: float) -> str:
    return unit.removesuffix("s") if count == 1.0 else unit


def draw_intensity(forecaster: Forecaster, events: EventSequences, path: Path, *, ahead: float = 0.0) -> str:
    """Draw the rate of events over a typical sequence, by kind, and some time after it."""
    return str(figures.save_figure(_intensity(forecaster, typical(events), None, ahead=ahead), path))


def _saved(drawn: dict[str, Figure], folder: Path) -> list[str]:
    return [str(figures.save_figure(figure, folder / f"{name}.png")) for name, figure in drawn.items()]


def _last_event(forecaster: Forecaster, events: EventSequences, seed: int) -> dict[str, Figure]:
    """Draw map and gap density of the last event of a typical sequence, as it was forecast."""
    whole = typical(events.select(np.flatnonzero(events.lengths > 1)))
    return _next_event(forecaster, prefix(whole, whole.num_events - 1), whole, seed, None)


def _next_event(
    forecaster: Forecaster,
    history: EventSequences,
    whole: EventSequences | None,
    seed: int,
    calibration: Calibration | None,
) -> dict[str, Figure]:
    """Draw map and gap density of the event after `history`, with what came where `whole` has it."""
    drawn = forecaster.sample(history, samples=MAP_SAMPLES, at="last", seed=seed)
    samples = drawn.samples if calibration is None else calibration.samples(drawn.samples)
    place = figures.location_map(
        samples.location[0].numpy(), truth=None if whole is None else whole.location[-1],
        history=history.location[-HISTORY:], degrees=history.coordinates == "degrees",
    )  # fmt: skip
    truth = None if whole is None else float(whole.time[-1] - whole.time[-2])
    when = figures.gap_density(samples.gap[0].numpy(), truth=truth, unit=history.time_unit)
    return {"map": place, "gap": when}


def _intensity(
    forecaster: Forecaster, whole: EventSequences, true_rate: TrueRate | None, *, ahead: float = 0.0
) -> Figure:
    """Draw the rate over a sequence, by kind when there are few, with the true one where it is known."""
    times = np.linspace(whole.time[0], whole.time[-1] + ahead, POINTS)
    rate = rate_in_time(forecaster, whole, times)
    names = forecaster.features.mark_names
    curves = {"smash": rate.sum(axis=1)}
    if true_rate is not None:
        curves["truth"] = true_rate(times, whole).sum(axis=1)
    elif 1 < len(names) <= FEW_MARKS:
        curves = {"all kinds": curves["smash"]} | {name: rate[:, kind] for kind, name in enumerate(names)}
    known = float(whole.time[-1])
    return figures.intensity_in_time(
        times, curves, event_time=whole.time, event_mark=whole.mark, mark_names=whole.mark_names, unit=whole.time_unit,
        known_until=known if ahead else None,
    )  # fmt: skip
