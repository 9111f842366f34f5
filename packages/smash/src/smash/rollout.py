"""Several events ahead: sampled events join the history, trajectory by trajectory, and the law of what follows is read
off by counting.

A trajectory is one possible future of one sequence. All trajectories of a sequence are drawn together, one event at a
time; the draws depend on the seed, the sequence's id and the number of the trajectory alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from smash.options import PredictOptions
from smash.predict import Forecaster, events_of
from stcore.cli import Outcome
from stcore.errors import UserError
from stcore.events import EventSequences
from stcore.metrics.scores import geometric_median, quantiles
from stcore.tables import write_table

MOST_EVENTS = 200
"""Events of a trajectory that are drawn at most when only a horizon ends it."""


@dataclass(frozen=True, eq=False)
class RollOut:
    """Trajectories of one sequence. Events after the end of a trajectory are infinite in time."""

    sequence_id: str
    last_time: float
    """Time of the last known event."""
    time: NDArray[np.float64]
    """Time of each event (trajectory, step)."""
    location: NDArray[np.float64]
    """Place of each event (trajectory, step, 2)."""
    mark: NDArray[np.int64] | None
    """Mark of each event (trajectory, step)."""

    def probability_within(self, region: Region | None, horizon: float) -> float:
        """Return the share of trajectories with an event inside the region before `horizon` has passed."""
        hit = self.time <= self.last_time + horizon
        if region is not None:
            hit &= region.contains(self.location)
        return float(hit.any(axis=1).mean())

    def expected_events(self, region: Region | None, horizon: float) -> float:
        """Return the mean number of events inside the region before `horizon` has passed."""
        hit = self.time <= self.last_time + horizon
        if region is not None:
            hit &= region.contains(self.location)
        return float(hit.sum(axis=1).mean())


@dataclass(frozen=True, eq=False)
class Region:
    """Polygons on the plane of the coordinates; holes count as outside (even-odd rule)."""

    rings: tuple[NDArray[np.float64], ...]

    @classmethod
    def read(cls, path: Path) -> Region:
        """Read the polygons of a GeoJSON file: a geometry, a feature or a collection of features.

        Raises:
            UserError: the file cannot be read, or holds no polygon.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise UserError(f"{path}: {error}; expected a GeoJSON file with polygons") from error
        rings = tuple(_rings(content, path))
        if not rings:
            raise UserError(f"{path}: no polygon; expected a GeoJSON Polygon or MultiPolygon, or features with them")
        return cls(rings)

    def contains(self, location: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell for each place (..., 2) whether it is inside."""
        x, y = location[..., 0], location[..., 1]
        inside = np.zeros(x.shape, dtype=bool)
        for ring in self.rings:
            for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
                if y0 != y1:
                    crosses = (y0 > y) != (y1 > y)
                    inside ^= crosses & (x < x0 + (y - y0) / (y1 - y0) * (x1 - x0))
        return inside


def _rings(content: Any, path: Path) -> Iterator[NDArray[np.float64]]:
    if not isinstance(content, dict):
        return
    kind = content.get("type")
    if kind == "FeatureCollection":
        for feature in content.get("features", ()):
            yield from _rings(feature, path)
    elif kind == "Feature":
        yield from _rings(content.get("geometry"), path)
    elif kind in ("Polygon", "MultiPolygon"):
        coordinates: Any = content.get("coordinates")
        polygons: Any = [coordinates] if kind == "Polygon" else coordinates
        try:
            rings = [np.array(ring, dtype=np.float64)[:, :2] for polygon in polygons for ring in polygon]
        except (TypeError, ValueError, IndexError) as error:
            raise UserError(f"{path}: broken coordinates of a {kind}; expected lists of [x, y]") from error
        for ring in rings:
            if len(ring) < 3 or not np.isfinite(ring).all():
                raise UserError(f"{path}: a ring of {len(ring)} points; expected at least 3 finite ones")
            yield ring


def roll_out(
    forecaster: Forecaster,
    events: EventSequences,
    *,
    trajectories: int = 100,
    steps: int = MOST_EVENTS,
    horizon: float = np.inf,
    seed: int | None = None,
) -> Iterator[RollOut]:
    """Draw futures of each sequence that has an event.

    Args:
        forecaster: the model.
        events: histories.
        trajectories: futures of each sequence.
        steps: events of each future at most.
        horizon: time after the last known event at which a future ends, in the unit of the data.
        seed: of the draws; None as configured in training.
    """
    for index in np.flatnonzero(events.lengths > 0):
        history = events.select([int(index)])
        last, name = float(history.time[-1]), history.sequence_id[0]
        futures = _repeated(history, trajectories)
        shape = (trajectories, steps)
        time, location = np.full(shape, np.inf), np.full((*shape, 2), np.nan)
        mark = None if not forecaster.model.marked else np.zeros(shape, dtype=np.int64)
        for step in range(steps):
            drawn = forecaster.sample(futures, samples=1, at="last", seed=seed).samples
            time[:, step] = futures.time[futures.offsets[1:] - 1] + drawn.gap.numpy()[:, 0]
            location[:, step] = drawn.location.numpy()[:, 0]
            if mark is not None and drawn.mark is not None:
                mark[:, step] = drawn.mark.numpy()[:, 0]
            futures = _appended(futures, time[:, step], location[:, step], None if mark is None else mark[:, step],
                                forecaster.features.mark_names)  # fmt: skip
            if (time[:, step] > last + horizon).all():
                break
        ended = time > last + horizon
        time[ended], location[ended] = np.inf, np.nan
        yield RollOut(name, last, time, location, mark)


def _repeated(history: EventSequences, count: int) -> EventSequences:
    """Return `count` copies of one sequence, each with a name of its own."""
    copies = history.select([0])
    return EventSequences(
        time=np.tile(copies.time, count),
        location=np.tile(copies.location, (count, 1)),
        offsets=np.arange(count + 1) * copies.num_events,
        mark=None if copies.mark is None else np.tile(copies.mark, count),
        mark_names=copies.mark_names,
        sequence_id=tuple(f"{copies.sequence_id[0]}/{number}" for number in range(count)),
        time_unit=copies.time_unit,
        coordinates=copies.coordinates,
    )


def _appended(
    futures: EventSequences, time: NDArray[np.float64], location: NDArray[np.float64],
    mark: NDArray[np.int64] | None, names: Sequence[str],
) -> EventSequences:  # fmt: skip
    """Return the sequences, which are equally long, with one more event each."""
    count, length = futures.num_sequences, futures.num_events // futures.num_sequences
    known = futures.with_mark_names(names) if mark is not None else futures
    marks = None
    if mark is not None and known.mark is not None:
        marks = np.concatenate([known.mark.reshape(count, length), mark[:, None]], axis=1).reshape(-1)
    return EventSequences(
        time=np.concatenate([futures.time.reshape(count, length), time[:, None]], axis=1).reshape(-1),
        location=np.concatenate([futures.location.reshape(count, length, 2), location[:, None]], 1).reshape(-1, 2),
        offsets=np.arange(count + 1) * (length + 1),
        mark=marks,
        mark_names=known.mark_names,
        sequence_id=futures.sequence_id,
        time_unit=futures.time_unit,
        coordinates=futures.coordinates,
    )


def spread(rolled: RollOut, levels: Sequence[float], mark_names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Summarise trajectories that do not end, step by step: quantiles of the time, centre of the place, P(mark)."""
    steps = rolled.time.shape[1]
    times = torch.from_numpy(rolled.time.T)
    found = quantiles(times, torch.tensor(list(levels), dtype=torch.float64)).numpy()
    columns: dict[str, NDArray[Any]] = {
        "sequence_id": np.repeat(rolled.sequence_id, steps),
        "step": np.arange(1, steps + 1),
        "last_time": np.full(steps, rolled.last_time),
    }
    columns |= {f"time_{level:g}": found[:, column] for column, level in enumerate(levels)}
    places = torch.from_numpy(rolled.location.swapaxes(0, 1).copy())
    columns["x"], columns["y"] = geometric_median(places).numpy().T
    centre = np.stack([columns["x"], columns["y"]], axis=-1)
    columns["radius_50"] = np.median(np.linalg.norm(rolled.location - centre, axis=-1), axis=0)
    if rolled.mark is not None:
        columns |= {f"p_{name}": (rolled.mark == kind).mean(0) for kind, name in enumerate(mark_names)}
    return columns


def command(options: PredictOptions) -> Outcome:
    """Do `smash predict` with `--steps` or `--horizon`."""
    if options.regions is not None or options.at != "last":
        raise UserError("--steps, --horizon: with --regions or --at every; expected forecasts after the last event, "
                        "without regions")  # fmt: skip
    region = None if options.within is None else Region.read(options.within)
    forecaster = Forecaster.load(options.run, device=options.device)
    events = events_of(options, forecaster)
    common: dict[str, Any] = {"trajectories": options.trajectories, "seed": options.seed}
    if options.horizon:
        futures = roll_out(forecaster, events, horizon=options.horizon, **common)
        pieces = (_within(rolled, region, options.horizon) for rolled in futures)
    else:
        futures = roll_out(forecaster, events, steps=options.steps, **common)
        pieces = (spread(rolled, options.levels, forecaster.features.mark_names) for rolled in futures)
    rows = write_table(options.out, pieces)
    units = {"time": events.time_unit, "x": events.coordinates, "y": events.coordinates}
    return Outcome(f"{rows:,} rows in {options.out}", {"files": [str(options.out)], "rows": rows, "units": units})


def _within(rolled: RollOut, region: Region | None, horizon: float) -> dict[str, NDArray[Any]]:
    return {
        "sequence_id": np.array([rolled.sequence_id]),
        "last_time": np.array([rolled.last_time]),
        "horizon": np.array([horizon]),
        "p_event": np.array([rolled.probability_within(region, horizon)]),
        "expected_events": np.array([rolled.expected_events(region, horizon)]),
    }
