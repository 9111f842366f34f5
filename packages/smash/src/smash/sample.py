"""Write samples of next events: one row a sample, or tensors, always with ids, times and units."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from smash.options import SampleOptions
from smash.predict import Drawn, Forecaster, events_of
from stcore.cli import Outcome
from stcore.events import EventSequences
from stcore.tables import write_table


def command(options: SampleOptions) -> Outcome:
    """Do `smash sample`."""
    forecaster = Forecaster.load(options.run, device=options.device)
    events = events_of(options, forecaster)
    chunks = forecaster.stream(events, at=options.at, sampler=options.sampler, seed=options.seed)
    rows = write_table(options.out, (columns(drawn, events, forecaster) for drawn in chunks))
    units = {"gap": events.time_unit, "time": events.time_unit, "x": events.coordinates, "y": events.coordinates}
    return Outcome(f"{rows:,} samples in {options.out}", {"file": str(options.out), "rows": rows, "units": units})


def columns(drawn: Drawn, events: EventSequences, forecaster: Forecaster) -> dict[str, NDArray[Any]]:
    """Return the samples of a chunk as columns: sequence_id, event, sample, gap, time, x, y and mark."""
    count, samples = drawn.samples.gap.shape
    last = events.time[events.offsets[drawn.sequence] + drawn.event - 1]
    gap = drawn.samples.gap.numpy()
    x, y = drawn.samples.location.numpy().reshape(-1, 2).T
    result: dict[str, NDArray[Any]] = {
        "sequence_id": np.repeat(np.array(events.sequence_id)[drawn.sequence], samples),
        "event": np.repeat(drawn.event, samples),
        "sample": np.tile(np.arange(samples), count),
        "gap": gap.reshape(-1),
        "time": (last[:, None] + gap).reshape(-1),
        "x": x,
        "y": y,
    }
    if drawn.samples.mark is not None:
        names = np.array(forecaster.features.mark_names)
        result["mark"] = names[drawn.samples.mark.numpy().reshape(-1)]
    return result
