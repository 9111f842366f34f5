"""The rate of events in physical time, from the closed-form law of the gap."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from smash.predict import Forecaster
from smash.sampling import gap_law
from stcore.errors import UserError
from stcore.events import EventSequences


def rate_in_time(forecaster: Forecaster, events: EventSequences, times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rate of events of each kind at `times`, given one sequence.

    The rate at t is that of the next event given the events before t, the density of its gap over the probability
    that it has not come yet, and belongs to the law smoothed by sigma_time. Before the first event it is not defined.

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
    conditions = torch.cat([forecaster.conditions(events, at="every"), forecaster.conditions(events, at="last")])
    sampler = replace(forecaster.config.sampler, confine=False)
    gap = torch.tensor(times - events.time[last])[:, None]
    unit = forecaster.features.gap_unit(gap).to(forecaster.device)
    with torch.inference_mode():
        law = gap_law(
            forecaster.model, conditions[torch.from_numpy(last)], sampler=sampler, noise=forecaster.config.noise
        )
        left = (1.0 - law.cdf_at(unit)).clamp_min(1e-12)
        marks = range(forecaster.features.num_marks)
        joint = [law.log_joint_at(unit, torch.full_like(unit, mark, dtype=torch.int64)) for mark in marks]
    slope = forecaster.features.log_gap_slope(gap)
    return torch.cat([(value.cpu() + slope).exp() / left.cpu() for value in joint], dim=1).numpy()
