"""The rate of events in physical time, from the closed-form law of the gap: in Python and as a command."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from smash.gap import GapLaw
from smash.options import IntensityOptions
from smash.predict import Columns, Forecaster, events_of, timestamps
from smash.sampling import gap_law
from stcore.cli import Outcome
from stcore.errors import UserError
from stcore.events import EventSequences
from stcore.tables import check_table_path, write_table

POINTS_AT_ONCE = 1024
"""Times whose laws are held at once."""


def rate_in_time(forecaster: Forecaster, events: EventSequences, times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rate of events of each kind at `times`, given one sequence.

    The rate at t is that of the next event given the events before t, the density of its gap over the probability
    that it has not come yet; of a score model it belongs to the law smoothed by sigma_time. Before the first event it
    is not defined.

    Args:
        forecaster: the model.
        events: one sequence.
        times: after its first event, in its unit of time.

    Returns:
        Events per unit of time (time, mark).

    Raises:
        UserError: more than one sequence, or a time before its first event.
    """
    if events.num_sequences != 1 or events.num_events == 0:
        raise UserError(f"rate: {events.num_sequences} sequences; expected one with events")
    if len(times) and float(np.min(times)) < events.time[0]:
        raise UserError(f"rate: time {np.min(times):g}; expected times from the first event, {events.time[0]:g}, on")
    last = np.searchsorted(events.time, times, side="right") - 1
    used, which = np.unique(last, return_inverse=True)
    conditions = torch.cat([forecaster.conditions(events, at="every"), forecaster.conditions(events, at="last")])
    sampler = replace(forecaster.config.sampler, confine=False)
    with torch.inference_mode():
        law = gap_law(forecaster.model, conditions[torch.from_numpy(used)], sampler=sampler,
                      noise=forecaster.config.noise)  # fmt: skip
        gaps = torch.tensor(times - events.time[last])[:, None]
        parts = torch.arange(len(times)).split(POINTS_AT_ONCE)
        rate = [_rate(forecaster, law, torch.from_numpy(which)[part], gaps[part]) for part in parts]
    return torch.cat(rate).numpy()


def _rate(
    forecaster: Forecaster, law: GapLaw, which: Int[Tensor, "point"], gap: Float[Tensor, "point 1"]
) -> Float[Tensor, "point mark"]:
    """Return the rate of each mark this long after the events that the laws `which` follow."""
    own = GapLaw(law.grid, law.intensity[which], law.hazard[which])
    unit = forecaster.features.gap_unit(gap).to(forecaster.device)
    left = (1.0 - own.cdf_at(unit)).clamp_min(1e-12)
    marks = range(forecaster.features.num_marks)
    joint = [own.log_joint_at(unit, torch.full_like(unit, mark, dtype=torch.int64)) for mark in marks]
    slope = forecaster.features.log_gap_slope(gap)
    return torch.cat([(value.cpu() + slope).exp() / left.cpu() for value in joint], dim=1)


def rates(forecaster: Forecaster, events: EventSequences, *, points: int = 500, ahead: float = 0.0) -> Columns:
    """Return the rate of events over every sequence that has one, at evenly spaced times.

    Args:
        forecaster: the model.
        events: sequences.
        points: times in each, from its first event on.
        ahead: how long after its last event to go on, in the unit of time of the data.

    Returns:
        `sequence_id`, `time` (and `timestamp` where the origin of sequences is known), `rate` and, for marked events,
        `rate_<mark>`, in events per unit of time.
    """
    return Columns.joined(list(_pieces(forecaster, events, points, ahead)))


def command(options: IntensityOptions) -> Outcome:
    """Do `smash intensity`."""
    check_table_path(options.out)
    forecaster = Forecaster.load(options.run, device=options.device)
    events = events_of(options, forecaster)
    rows = write_table(options.out, _pieces(forecaster, events, options.points, options.ahead))
    written = [str(options.out)]
    if options.figure is not None:
        from smash.drawing import draw_intensity

        written.append(draw_intensity(forecaster, events, options.figure, ahead=options.ahead))
    units = {"time": events.time_unit, "rate": f"events per unit of time ({events.time_unit})"}
    return Outcome(f"{rows:,} rows in {', '.join(written)}", {"files": written, "rows": rows, "units": units})


def _pieces(
    forecaster: Forecaster, events: EventSequences, points: int, ahead: float
) -> Iterator[dict[str, NDArray[Any]]]:
    for index in np.flatnonzero(events.lengths > 0):
        one = events.select([int(index)])
        times = np.linspace(one.time[0], one.time[-1] + ahead, points)
        rate = rate_in_time(forecaster, one, times)
        columns: dict[str, NDArray[Any]] = {"sequence_id": np.repeat(np.array(one.sequence_id), points), "time": times}
        if one.origin is not None:
            columns["timestamp"] = timestamps(np.repeat(one.origin, points), times, one.time_unit)
        columns["rate"] = rate.sum(axis=1)
        if forecaster.features.mark_names:
            columns |= {f"rate_{name}": rate[:, kind] for kind, name in enumerate(forecaster.features.mark_names)}
        yield columns
