"""From what a source held to a series on a graph: channels, clock, missing readings and the graph are settled here."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stcore.errors import UserError
from stcore.graphs import DAY_SECONDS, Adjacency, GraphSeries
from stcore.readers.graph_adjacency import by_correlation, by_distance, read_graph_file, to_adjacency
from stcore.readers.graph_options import BUILT_ADJACENCIES, GraphReadOptions
from stcore.readers.graph_raw import Matrix, RawGraph
from stcore.readers.graph_tables import read_positions
from stcore.readers.grid_times import parse_step, parse_text
from stcore.readers.limits import short, shown

_log = logging.getLogger(__name__)

_SINGLE_MAX = float(np.finfo(np.float32).max)


def assemble_graph(raw: RawGraph, options: GraphReadOptions, folder: Path) -> GraphSeries:
    """Return the series of `raw` under `options`; files that they name are looked for in `folder` too.

    Raises:
        UserError: something is not what it must be; the message names file and place.
    """
    raw = _with_features(raw, options)
    if not raw.values.size:
        raise UserError(f"{raw.where}: no readings, shape {raw.values.shape}; expected (time, node, channel)")
    _require_axes(raw)
    values, valid = _readings(raw, options)
    times, step = _clock(raw, options)
    points, degrees = _positions(raw, options, folder)
    names = raw.nodes or tuple(map(str, range(raw.values.shape[1])))
    raw = replace(raw, nodes=names, coordinates=points, degrees=degrees)
    graph = _graph(raw, values, options, folder)
    try:
        series = GraphSeries(
            values=values,
            adjacency=graph,
            nodes=names,
            channels=raw.channels,
            units=options.units or raw.units,
            times=times,
            step_seconds=step,
            coordinates=points,
            degrees=degrees,
            valid=valid,
            name=raw.name,
            first_step=raw.first_step,
        )
    except UserError as error:
        raise UserError(str(error).replace("graph: ", f"{raw.where}: ", 1)) from error
    return _without_dead(series, raw.where, options)


def _with_features(raw: RawGraph, options: GraphReadOptions) -> RawGraph:
    """Keep the channels that are asked for; a number stands for a channel without a name."""
    wanted, channels = options.features, raw.values.shape[2]
    given = raw.channels or options.channels
    if given and len(given) != channels:
        raise UserError(f"{raw.where}: {len(given)} names for {channels} channels; expected as many")
    names, raw = given or tuple(map(str, range(channels))), replace(raw, channels=given)
    if not wanted or wanted == names or (channels == 1 and len(wanted) == 1):
        return replace(raw, channels=wanted or raw.channels)
    if lost := [name for name in wanted if name not in names]:
        raise UserError(f"{raw.where}: no channel {short(lost[0])}; expected {', '.join(names)[:200]}")
    index = [names.index(name) for name in wanted]
    return replace(
        raw,
        values=raw.values[:, :, index],
        valid=None if raw.valid is None else raw.valid[:, :, index],
        channels=wanted,
        units=tuple(raw.units[one] for one in index) if len(raw.units) == channels else raw.units[:1],
    )


def _require_axes(raw: RawGraph) -> None:
    steps, nodes, _ = raw.values.shape
    graph = raw.graph
    size = len(graph.values) if isinstance(graph, Matrix) else graph.nodes if isinstance(graph, Adjacency) else nodes
    if size == steps != nodes:
        raise UserError(f"{raw.where}: {steps} steps of {nodes} nodes beside a graph of {size} nodes; expected (time, "
                        "node, channel); are time and nodes swapped?")  # fmt: skip


def _readings(raw: RawGraph, options: GraphReadOptions) -> tuple[NDArray[np.float64], NDArray[np.bool_] | None]:
    """Return values with NaN for what is missing, or filled, and where there is a reading."""
    if raw.values.dtype.kind not in "iufb":
        raise UserError(f"{raw.where}: readings of {raw.values.dtype}; expected real numbers")
    values = raw.values.astype(np.float64)
    infinite = np.isinf(values) | (np.abs(values) > _SINGLE_MAX)
    if infinite.any():
        step, node, channel = np.argwhere(infinite)[0].tolist()
        raise UserError(f"{raw.where}: {raw.place(step, node, channel)} is {values[step, node, channel]:g}; expected "
                        "numbers that single precision holds")  # fmt: skip
    lost = np.isnan(values)
    if raw.valid is not None:
        if raw.valid.shape != values.shape:
            raise UserError(f"{raw.where}: array valid of shape {raw.valid.shape}; expected {values.shape}")
        lost |= ~raw.valid
    if options.missing_value is not None:
        lost |= values == np.float64(options.missing_value)
    if options.negative == "missing":
        lost |= values < 0.0
    if not lost.any():
        return values, None
    if lost.all():
        raise UserError(f"{raw.where}: every reading is missing; expected some that are not")
    own = raw.valid is not None and not (lost & raw.valid).any()  # what we wrote as missing stays so
    if options.missing == "error" and not own:
        step, node, channel = np.argwhere(lost)[0].tolist()
        raise UserError(
            f"{raw.where}: {raw.place(step, node, channel)} is {values[step, node, channel]:g} (one of "
            f"{int(lost.sum()):,} readings that are missing); expected a number; pass --data.missing mask or "
            "--data.missing fill"
        )
    if options.missing == "fill":
        return np.where(lost, options.fill, values), None
    return np.where(lost, np.nan, values), ~lost


def _clock(raw: RawGraph, options: GraphReadOptions) -> tuple[NDArray[np.datetime64] | None, int | None]:
    step = _step_seconds(options.step) if options.step else raw.step_seconds
    if options.start:
        if step is None:
            raise UserError(f"{raw.where}: data.start without a step; expected one; pass --data.step '5 minutes'")
        first = parse_text("data.start", [options.start])[0].astype("datetime64[s]")
        return _moments(first, step, len(raw.values), options), step
    if raw.times is not None and options.step and step is not None and len(raw.times) > 1:
        usual = float(np.median(np.diff(raw.times).astype("timedelta64[s]").astype(np.int64)))
        if usual != step:
            raise UserError(f"{raw.where}: times {usual:g} seconds apart; expected {step} as data.step says")
    return raw.times, step


def _step_seconds(text: str) -> int:
    step = parse_step(text)
    if np.datetime_data(step.dtype)[0] in ("M", "Y"):
        raise UserError(f"data.step: {text!r:.60}; expected seconds, minutes, hours, days or weeks")
    seconds = step / np.timedelta64(1, "s")
    if seconds < 1.0 or seconds != int(seconds):
        raise UserError(f"data.step: {text!r:.60}; expected whole seconds")
    return int(seconds)


def _moments(first: np.datetime64, step: int, count: int, options: GraphReadOptions) -> NDArray[np.datetime64]:
    """Return a moment for each step; days begin where `first` does, without nights and weekends where these are cut
    out."""
    number = np.arange(count, dtype=np.int64)
    if not options.steps_per_day and not options.weekdays:
        return first + np.timedelta64(step, "s") * number
    per_day = options.steps_per_day or DAY_SECONDS // step
    if per_day * step > DAY_SECONDS:
        raise UserError(f"data.steps-per-day: {per_day} steps of {step} seconds; expected a day of 24 hours at most")
    day = number // per_day
    if options.weekdays:
        weekday = (int(first.astype("datetime64[D]").astype(np.int64)) + 3) % 7
        if weekday > 4:
            raise UserError(f"data.start: {options.start} is no weekday; expected one, as data.weekdays says")
        day = day + 2 * ((weekday + day) // 5)
    return first + np.timedelta64(1, "s") * (day * DAY_SECONDS + number % per_day * step)


def _positions(raw: RawGraph, options: GraphReadOptions, folder: Path) -> tuple[NDArray[np.float64] | None, bool]:
    if not options.coordinates:
        return raw.coordinates, raw.degrees
    path = beside(options.coordinates, folder)
    rows, points, degrees = read_positions(path, options.max_bytes)
    count = raw.values.shape[1]
    if not rows or not raw.nodes:
        if len(points) != count:
            raise UserError(f"{shown(path)}: {len(points)} positions for {count} nodes; expected one for each")
        return points, degrees
    if lost := [name for name in raw.nodes if name not in rows]:
        raise UserError(f"{shown(path)}: no position of node {short(lost[0])}; expected one for each of {count} nodes")
    return points[[rows[name] for name in raw.nodes]], degrees


def _steps_per_day(raw: RawGraph, options: GraphReadOptions) -> int:
    """Return the steps of a day, 1 where it is not known."""
    step = _step_seconds(options.step) if options.step else raw.step_seconds
    return options.steps_per_day or (max(1, DAY_SECONDS // step) if step else 1)


def beside(name: str, folder: Path) -> Path:
    """Return the path that `name` means: as it is, or in `folder` where there is none."""
    path = Path(name)
    try:
        path.lstat()
    except OSError:
        return folder / name
    return path


def _graph(raw: RawGraph, values: NDArray[Any], options: GraphReadOptions, folder: Path) -> Adjacency:
    wanted, nodes = options.adjacency, raw.nodes
    if wanted == "none":
        return Adjacency.empty(len(nodes))
    if wanted == "correlation":
        return by_correlation(values[:, :, 0], options, period=_steps_per_day(raw, options))
    if wanted == "distance":
        if raw.coordinates is None:
            raise UserError(f"{raw.where}: no positions to build a graph from; expected some; pass --data.coordinates")
        return by_distance(raw.coordinates, degrees=raw.degrees, options=options)
    if wanted and not (isinstance(raw.graph, Matrix) and raw.graph.where.endswith(f"array {short(wanted)}")):
        return to_adjacency(read_graph_file(beside(wanted, folder), options), nodes, options)
    if raw.graph is None:
        raise UserError(
            f"{raw.where}: no graph comes with it; expected one; pass --data.adjacency with a file, or one of "
            f"{', '.join(BUILT_ADJACENCIES)}"
        )
    return to_adjacency(raw.graph, nodes, options)


def _without_dead(series: GraphSeries, where: str, options: GraphReadOptions) -> GraphSeries:
    """Drop or refuse nodes whose first channel never changes, or has no reading."""
    if options.dead == "keep":
        return series
    first = series.values[:, :, 0]
    known = np.isfinite(first)
    low = np.where(known, first, np.inf).min(axis=0)
    high = np.where(known, first, -np.inf).max(axis=0)
    dead = np.flatnonzero(~(low < high))
    if not dead.size or series.num_steps < 2:
        return series
    if options.dead == "refuse":
        node = int(dead[0])
        found = f"is {low[node]:g} throughout" if known[:, node].any() else "has no reading"
        raise UserError(f"{where}: node {series.nodes[node]} {found} (one of {len(dead)} such); expected readings that "
                        "change; pass --data.dead drop")  # fmt: skip
    alive = np.setdiff1d(np.arange(series.num_nodes), dead)
    if not alive.size:
        raise UserError(f"{where}: no node has readings that change; expected at least one")
    _log.warning("%s: %d of %d nodes never change and are left out", where, len(dead), series.num_nodes)
    return series.take_nodes(alive)
