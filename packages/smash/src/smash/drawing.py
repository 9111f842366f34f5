"""The figures of an evaluation: one event in detail, calibration, and how training went."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from smash.data import prefix
from smash.evaluate import Report
from smash.intensity import rate_in_time
from smash.predict import Drawn, Forecaster
from stcore import figures
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
    drawn = {
        "coverage": figures.coverage_curve(curves["levels"], observed, events=table["events"]),
        "pit": figures.pit_histogram(curves["pit_gap"]),
    }
    if "confidence" in curves:
        drawn["marks"] = figures.reliability_diagram(curves["confidence"], curves["accuracy"], curves["count"])
    drawn |= _one_event(forecaster, events, seed)
    drawn["intensity"] = _intensity(forecaster, events, true_rate)
    if run.metrics_file.exists():
        drawn["training"] = figures.training_curves(run.metrics_file)
    return [str(figures.save_figure(figure, folder / f"{name}.png")) for name, figure in drawn.items()]


def _typical_sequence(events: EventSequences) -> EventSequences:
    """Return the sequence of median length, as it stands for the others."""
    lengths = events.lengths
    return events.select([int(np.argsort(lengths, kind="stable")[len(lengths) // 2])])


def _one_event(forecaster: Forecaster, events: EventSequences, seed: int) -> dict[str, Figure]:
    """Draw map and gap density of the last event of a typical sequence."""
    whole = _typical_sequence(events)
    history = prefix(whole, whole.num_events - 1)
    drawn: Drawn = forecaster.sample(history, samples=MAP_SAMPLES, at="last", seed=seed)
    shown = history.location[-HISTORY:]
    place = figures.location_map(
        drawn.samples.location[0].numpy(), truth=whole.location[-1], history=shown,
        degrees=events.coordinates == "degrees",
    )  # fmt: skip
    truth = float(whole.time[-1] - whole.time[-2])
    when = figures.gap_density(drawn.samples.gap[0].numpy(), truth=truth, unit=events.time_unit)
    return {"map": place, "gap": when}


def _intensity(forecaster: Forecaster, events: EventSequences, true_rate: TrueRate | None) -> Figure:
    """Draw the rate over a typical sequence, with the true one where it is known."""
    whole = _typical_sequence(events)
    times = np.linspace(whole.time[0], whole.time[-1], POINTS)
    curves = {"smash": rate_in_time(forecaster, whole, times).sum(axis=1)}
    if true_rate is not None:
        curves["truth"] = true_rate(times, whole).sum(axis=1)
    return figures.intensity_in_time(
        times, curves, event_time=whole.time, event_mark=whole.mark, mark_names=whole.mark_names, unit=whole.time_unit
    )
