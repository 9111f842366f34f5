"""Several events ahead: sampled events join the history, trajectory by trajectory, and the law of what follows is read
off by counting.

A trajectory is one possible future of one sequence. All trajectories of a sequence are drawn together, one event at a
time; the draws depend on the seed, the sequence's id and the number of the trajectory alone.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from smash.options import PredictOptions
from smash.predict import LEVELS, Columns, Forecaster, events_of, timestamps, typical, units_of
from stcore.cli import Outcome
from stcore.errors import UserError
from stcore.events import EventSequences
from stcore.metrics.scores import geometric_median, quantiles
from stcore.tables import write_table

_log = logging.getLogger(__name__)

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
    origin: NDArray[Any] | None = None
    """Absolute time 0 of the sequence (1), where it is known."""
    time_unit: str = "units"

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

    def cell_probability(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the share of trajectories with an event in each cell between the edges `x` and `y` (column, row)."""
        hits = np.zeros((len(x) - 1, len(y) - 1))
        for time, place in zip(self.time, self.location, strict=True):
            hits += np.histogram2d(*place[np.isfinite(time)].T, bins=(x, y))[0] > 0
        return hits / len(self.time)


@dataclass(frozen=True, eq=False)
class Region:
    """Polygons on the plane of the coordinates; holes count as outside (even-odd rule)."""

    rings: tuple[NDArray[np.float64], ...]

    @classmethod
    def read(cls, source: Path | str) -> Region:
        """Read the polygons of a GeoJSON file: a geometry, a feature or a collection of features.

        Raises:
            UserError: the file cannot be read, or holds no polygon.
        """
        path = Path(source)
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
    steps: int | None = None,
    horizon: float = np.inf,
    seed: int | None = None,
) -> Iterator[RollOut]:
    """Draw futures of each sequence that has an event.

    Args:
        forecaster: the model.
        events: histories.
        trajectories: futures of each sequence.
        steps: events of each future at most; by default `MOST_EVENTS`.
        horizon: time after the last known event at which a future ends, in the unit of the data.
        seed: of the draws; None as configured in training.
    """
    steps = MOST_EVENTS if steps is None else steps
    for index in np.flatnonzero(events.lengths > 0):
        history = events.select([int(index)])
        last, name = float(history.time[-1]), history.sequence_id[0]
        futures = _repeated(history, trajectories)
        shape = (trajectories, steps)
        time, location = np.full(shape, np.inf), np.full((*shape, 2), np.nan)
        mark = None if not forecaster.model.marked else np.zeros(shape, dtype=np.int64)
        going = np.arange(trajectories)
        for step in range(steps):
            drawn = forecaster.sample(futures, samples=1, at="last", seed=seed).samples
            when = futures.time[futures.offsets[1:] - 1] + drawn.gap.numpy()[:, 0]
            where, kind = drawn.location.numpy()[:, 0], None if drawn.mark is None else drawn.mark.numpy()[:, 0]
            inside = when <= last + horizon
            going = going[inside]
            time[going, step], location[going, step] = when[inside], where[inside]
            if mark is not None and kind is not None:
                mark[going, step] = kind[inside]
            if not len(going) or step + 1 == steps:
                break
            longer = _appended(futures, when, where, kind, forecaster.features.mark_names)
            futures = longer if inside.all() else longer.select(np.flatnonzero(inside))
        if len(going) and np.isfinite(horizon):
            _log.warning("%s: %d of %d futures have more than %d events within the horizon; later ones are not drawn",
                         name, len(going), trajectories, steps)  # fmt: skip
        yield RollOut(name, last, time, location, mark, history.origin, events.time_unit)


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
    for column, level in enumerate(levels):
        columns[f"time_{level:g}"] = found[:, column]
        if rolled.origin is not None:
            columns[f"timestamp_{level:g}"] = timestamps(rolled.origin, found[:, column], rolled.time_unit)
    places = torch.from_numpy(rolled.location.swapaxes(0, 1).copy())
    columns["x"], columns["y"] = geometric_median(places).numpy().T
    centre = np.stack([columns["x"], columns["y"]], axis=-1)
    columns["radius_50"] = np.median(np.linalg.norm(rolled.location - centre, axis=-1), axis=0)
    if rolled.mark is not None:
        columns |= {f"p_{name}": (rolled.mark == kind).mean(0) for kind, name in enumerate(mark_names)}
    return columns


def predict_steps(
    forecaster: Forecaster,
    events: EventSequences,
    *,
    steps: int,
    trajectories: int = 100,
    levels: Sequence[float] = LEVELS,
    seed: int | None = None,
) -> Columns:
    """Forecast several events ahead of each sequence by sampled futures.

    Returns:
        One row for each sequence and step: `sequence_id`, `step` from 1, `last_time`, `time_<level>` (and
        `timestamp_<level>` where the origin of sequences is known), `x`, `y` (geometric median), `radius_50` (half of
        the futures lie within it) and, for marked events, `p_<mark>`.
    """
    futures = roll_out(forecaster, events, trajectories=trajectories, steps=steps, seed=seed)
    return Columns.joined([spread(one, levels, forecaster.features.mark_names) for one in futures])


def predict_within(
    forecaster: Forecaster,
    events: EventSequences,
    *,
    horizon: float,
    region: Region | None = None,
    trajectories: int = 100,
    seed: int | None = None,
) -> Columns:
    """Count in how many sampled futures of each sequence an event comes inside the region within the horizon.

    Returns:
        One row for each sequence: `sequence_id`, `last_time`, `horizon`, `p_event`, and `p_event_low` and
        `p_event_high`, the 95 % interval that so many futures leave (Wilson), and `expected_events`.
    """
    futures = roll_out(forecaster, events, trajectories=trajectories, horizon=horizon, seed=seed)
    return Columns.joined([_within(one, region, horizon) for one in futures])


def command(options: PredictOptions) -> Outcome:
    """Do `smash predict` with `--steps` or `--horizon`."""
    if options.regions is not None or options.intervals or options.at != "last":
        raise UserError("--steps, --horizon: with --regions, --intervals or --at every; expected forecasts after the "
                        "last event, without these")  # fmt: skip
    region = None if options.within is None else Region.read(options.within)
    forecaster = Forecaster.load(options.run, device=options.device)
    events = events_of(options, forecaster)
    limit: dict[str, Any] = {"horizon": options.horizon} if options.horizon else {"steps": options.steps}
    shown = typical(events)
    kept: list[RollOut] = []

    def pieces() -> Iterator[dict[str, NDArray[Any]]]:
        for one in roll_out(forecaster, events, trajectories=options.trajectories, seed=options.seed, **limit):
            if one.sequence_id == shown.sequence_id[0]:
                kept.append(one)
            if options.horizon:
                yield _within(one, region, options.horizon)
            else:
                yield spread(one, options.levels, forecaster.features.mark_names)

    rows = write_table(options.out, pieces())
    written = [str(options.out)]
    if options.figures is not None:
        from smash.drawing import draw_futures

        written += draw_futures(kept[0], shown, options.figures, region=region, horizon=options.horizon)
    units = units_of(events) | {"step": "events", "horizon": events.time_unit, "expected_events": "events",
                                "radius_50": events.coordinates}  # fmt: skip
    return Outcome(f"{rows:,} rows in {', '.join(written)}", {"files": written, "rows": rows, "units": units})


def _within(rolled: RollOut, region: Region | None, horizon: float) -> dict[str, NDArray[Any]]:
    share = rolled.probability_within(region, horizon)
    low, high = wilson(share, len(rolled.time))
    return {
        "sequence_id": np.array([rolled.sequence_id]),
        "last_time": np.array([rolled.last_time]),
        "horizon": np.array([horizon]),
        "p_event": np.array([share]),
        "p_event_low": np.array([low]),
        "p_event_high": np.array([high]),
        "expected_events": np.array([rolled.expected_events(region, horizon)]),
    }


def wilson(share: float, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a probability of which `count` draws showed `share` (Wilson, JASA 1927).

    >>> wilson(0.5, 100)[0] > 0.40, wilson(0.0, 100)[0]
    (True, 0.0)
    """
    spread = 1.96**2 / count
    centre = (share + spread / 2.0) / (1.0 + spread)
    half = np.sqrt(share * (1.0 - share) * spread + spread**2 / 4.0) / (1.0 + spread)
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))
