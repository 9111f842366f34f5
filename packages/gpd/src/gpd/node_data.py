"""What node models read of a city: channels, scales, averages, windows; and their forecasts in native units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from gpd.averages import BESIDE, at_steps, believed, day_averages, num_days, other_days, unevenness
from gpd.ego import Ego, Egos, ego_graphs, pad_egos
from gpd.models.configs import NodeModelConfig, Statistics
from gpd.models.spec import build_node_model, input_features
from gpd.rows import RowTable
from stcore.errors import UserError
from stcore.graph_windows import require_windows
from stcore.graphs import GraphSeries
from stcore.training.ranks import pick_device

FORECAST_NODES = 16
"""Nodes that are forecast at once."""
FORECAST_WINDOWS = 512
"""Windows that are forecast at once."""


class Scales(NamedTuple):
    """What scales the inputs of each node, and what its forecasts are deviations from."""

    mean: Float[Tensor, "node feature"]
    """Mean of the node's ego graph by channel."""
    std: Float[Tensor, "node feature"]
    """Standard deviation of the node's ego graph by channel; 1 where nothing varies."""
    averages: Float[Tensor, "city slot"] | None
    """Average of every node of the city by time of day, where forecasts are deviations from it."""


@dataclass(frozen=True, eq=False)
class Part:
    """A stretch of a city's time as node models read it, and the windows in it."""

    values: Float[Tensor, "time city feature"]
    """Channels of every node of the city, not scaled, zeros where nothing is known."""
    known: Bool[Tensor, "time city feature"] | None
    """Where there are readings; none where there are everywhere."""
    starts: Int64[Tensor, " window"]
    """First step of each window."""

    def with_windows(self, starts: NDArray[np.int64]) -> Part:
        """Return the same stretch with other windows."""
        return Part(self.values, self.known, torch.from_numpy(np.ascontiguousarray(starts)))


class Windows(NamedTuple):
    """Windows of several ego graphs."""

    x: Float[Tensor, "node batch ego time feature"]
    """Scaled readings, 0 where nothing is known."""
    y: Float[Tensor, "node batch horizon"]
    """What came at the centre, in native units (of the deviation, where forecasts are deviations)."""
    known: Bool[Tensor, "node batch horizon"] | None
    """Where it is known; none where it is everywhere."""


def make_part(
    series: GraphSeries,
    model: NodeModelConfig,
    averages: Tensor | None = None,
    *,
    leave_out: bool = False,
    average_days: int = 0,
    course: float = 1.0,
    starts: NDArray[np.int64] | None = None,
    what: str = "part",
) -> Part:
    """Return a stretch of time as node models read it.

    Args:
        series: the stretch.
        model: which channels are added, and how long windows are.
        averages: (node, slot) averages by time of day, see `day_averages`; then channel 0 is the deviation from them.
        leave_out: these averages are of this very stretch, and each reading is compared with that of other days.
        average_days: how many other days, those that follow, begun again at the end; 0 takes all.
        course: share of the daily course that is believed, see `gpd.averages.believed`.
        starts: first step of each window; all that the clock allows by default.
        what: name of the stretch in errors.

    Raises:
        UserError: it is too short for a window.
    """
    if starts is None:
        starts = require_windows(series, model.history, model.horizon, what=what)
    values = np.nan_to_num(series.values.astype(np.float64), nan=0.0)
    known = series.valid
    steps, nodes, _ = values.shape
    added = [np.broadcast_to(added_channels(series, model)[:, None], (steps, nodes, model.clock_channels))]
    if averages is not None:
        own = series.known[:, :, 0]
        known_days = believed(averages.numpy().T[None], series, course)
        usual = believed(other_days(series, average_days), series, course) if leave_out else known_days
        values = values.copy()
        values[:, :, 0] = np.where(own, values[:, :, 0] - at_steps(usual, series), 0.0)
        if model.unevenness:
            # A single day has no others, but it is as uneven as it is.
            uneven = unevenness(known_days if num_days(series) == 1 else usual)
            added.append(at_steps(uneven, series, model.horizon + BESIDE)[:, :, None])
    joined = np.concatenate([values, *added], axis=2).astype(np.float32)
    if known is not None:
        known = np.concatenate([known, np.ones((steps, nodes, model.added_channels), np.bool_)], axis=2)
    return Part(torch.from_numpy(joined), None if known is None else torch.from_numpy(known), torch.from_numpy(starts))


def added_channels(series: GraphSeries, model: NodeModelConfig) -> NDArray[np.float64]:
    """Return the channels (time, channel) that the clock adds, the same for all nodes."""
    columns: list[NDArray[np.float64]] = []
    if model.clock_channels:
        day = series.step_of_day() / series.steps_per_day
        if model.time_of_day:
            columns.append(day)
        if model.calendar != "none":
            columns += [np.sin(2 * np.pi * day), np.cos(2 * np.pi * day)]
        if model.calendar == "week":
            week = (series.day_of_week() + day) / 7.0
            columns += [np.sin(2 * np.pi * week), np.cos(2 * np.pi * week)]
    return np.stack(columns, axis=1) if columns else np.zeros((series.num_steps, 0))


def fit_scales(
    part: Part, egos: Sequence[Ego], averages: Tensor | None = None, model: NodeModelConfig | None = None
) -> Scales:
    """Return mean and deviation of each ego graph over all its nodes and steps, channel by channel.

    Args:
        part: the stretch whose statistics count.
        egos: ego graphs of the nodes in question.
        averages: kept beside them.
        model: where it reads the time of week, that has one scale for all, since a few days know little of a week.
    """
    values = part.values.double()
    known = torch.ones_like(values) if part.known is None else part.known.double()
    count = known.sum(dim=0)
    mean = (values * known).sum(dim=0) / count.clamp_min(1.0)
    spread = ((values - mean).square() * known).sum(dim=0)
    means, stds = torch.empty(len(egos), values.shape[2]), torch.empty(len(egos), values.shape[2])
    for row, ego in enumerate(egos):
        members = torch.from_numpy(ego.nodes)
        share = count[members] / count[members].sum(dim=0).clamp_min(1.0)
        middle = (share * mean[members]).sum(dim=0)
        # Within the nodes, and between them.
        inside = spread[members].sum(dim=0) / count[members].sum(dim=0).clamp_min(1.0)
        variance = inside + (share * (mean[members] - middle).square()).sum(dim=0)
        means[row], stds[row] = middle.float(), variance.sqrt().float()
    if model is not None and model.calendar == "week":
        end = values.shape[2] - int(model.unevenness)
        means[:, end - 2 : end], stds[:, end - 2 : end] = 0.0, math.sqrt(0.5)
    return Scales(means, torch.where(stds > 1e-6 * means.abs().clamp_min(1e-6), stds, 1.0), averages)


def few_shot_windows(
    series: GraphSeries, model: NodeModelConfig, tail: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cut the windows of a few days in two: those before the last share `tail` of the steps, those that forecast it.

    Raises:
        UserError: one of the two has none.
    """
    starts = require_windows(series, model.history, model.horizon, what="few days")
    cut = series.num_steps - round(tail * series.num_steps)
    early = starts[starts + model.history + model.horizon <= cut]
    late = starts[starts + model.history >= cut]
    if not len(early) or not len(late):
        raise UserError(f"{series.name or 'graph'}: {len(starts):,} windows in the few days; expected some before the "
                        f"last {tail:.0%} of the time and some in it; pass more --days or select_on last")  # fmt: skip
    return early, late


def gather(part: Part, egos: Egos, scales: Scales, rows: Tensor, starts: Tensor, model: NodeModelConfig) -> Windows:
    """Cut windows out of a part for several ego graphs, scaled.

    Args:
        part: the stretch, on the device of the result.
        egos: padded ego graphs.
        scales: of all nodes that are trained.
        rows: (node,) which of these the ego graphs belong to.
        starts: (batch,) first steps.
        model: how long windows are.
    """
    within = torch.arange(model.history, device=starts.device)
    steps, city, features = part.values.shape
    times = (starts[None] + within[:, None])[None, :, None]
    places = times * city + egos.nodes[:, None, :, None]
    shape = (*places.shape, features)
    mean, std = scales.mean[rows][:, None, None, None], scales.std[rows][:, None, None, None]
    x = part.values.reshape(steps * city, features).index_select(0, places.reshape(-1)).reshape(shape)
    x = x.sub_(mean).div_(std)
    if part.known is not None:
        known = part.known.reshape(steps * city, features).index_select(0, places.reshape(-1)).reshape(shape)
        x = x.masked_fill_(~known, 0.0)
    own = egos.nodes.gather(1, egos.centre[:, None])[:, :, None]
    ahead = (starts[:, None] + torch.arange(model.history, model.history + model.horizon, device=starts.device))[None]
    ahead = ahead.clamp_max(steps - 1)  # a forecast may reach beyond what there is; nothing is then compared with it
    known = None if part.known is None else part.known[..., 0][ahead, own]
    return Windows(x.permute(0, 3, 2, 1, 4), part.values[..., 0][ahead, own], known)


def table_for(
    series: GraphSeries,
    rows: Float[Tensor, "node number"],
    model: NodeModelConfig,
    statistics: Statistics = "train",
    *,
    course: float = 1.0,
) -> RowTable:
    """Return rows, one for each node of `series`, with the scales of `series`: ready to forecast.

    Args:
        series: the few days that are known of a city; nothing else of it is looked at.
        rows: networks of its nodes, in order.
        model: what they are.
        statistics: kept for the record.
        course: share of the daily course that is believed, see `gpd.averages.believed`.

    Raises:
        UserError: there are more or fewer rows than nodes.
    """
    if len(rows) != series.num_nodes:
        raise UserError(f"rows: {len(rows)} for {series.num_nodes} nodes of {series.name}; expected one for each")
    averages = day_averages(series) if model.residual == "average" else None
    part = make_part(series, model, averages, leave_out=True, course=course)
    if averages is not None:
        averages = torch.from_numpy(believed(averages.numpy().T[None], series, course)[0].T.copy())
    scales = fit_scales(part, ego_graphs(series.adjacency), averages, model)
    return RowTable(
        rows=rows.float(),
        model=model,
        features=input_features(model, series.num_channels),
        cities=(series.name,) * len(rows),
        nodes=series.nodes,
        mean=scales.mean,
        std=scales.std,
        averages=None if averages is None else averages.float(),
        metadata={"statistics": statistics},
    )


def forecast(
    table: RowTable,
    series: GraphSeries,
    *,
    starts: NDArray[np.int64] | None = None,
    device: str = "auto",
) -> Float[Tensor, "window node horizon"]:
    """Forecast windows of a city with the network of each of its nodes.

    Args:
        table: rows with their scales, one for each node of `series` that is to be forecast.
        series: readings to forecast from; all nodes of the city.
        starts: first step of each window; all that the clock allows by default. What comes after a history need not
            be known.
        device: `auto`, `cpu` or `cuda`.

    Returns:
        Forecasts in native units; rows of the table make the second axis.

    Raises:
        UserError: the table is of another city or has no scales, or there is no window.
    """
    model = table.model
    if starts is None:
        starts = require_windows(series, model.history, model.horizon)
    rows, scales = _rows_of(table, series), scales_of(table)
    averages = None if table.averages is None else _city_averages(table, series, rows)
    part = make_part(series, model, averages, starts=starts)
    found = forecast_part(table.params(), part, ego_graphs(series.adjacency, rows), scales, model, table.features,
                          pick_device(device))  # fmt: skip
    if averages is not None:
        ahead = starts[:, None] + np.arange(model.history, model.history + model.horizon)
        found += averages.float()[rows][:, _slots_at(series, ahead)].permute(1, 0, 2)
    return found


def forecast_part(
    params: dict[str, Tensor],
    part: Part,
    egos: Sequence[Ego],
    scales: Scales,
    model: NodeModelConfig,
    features: int,
    device: torch.device,
) -> Float[Tensor, "window node horizon"]:
    """Forecast the windows of a part: channel 0 as it is there, in native units, a few nodes and windows at a time."""
    network = build_node_model(model, features)
    here = Part(part.values.to(device), None if part.known is None else part.known.to(device), part.starts.to(device))
    placed = Scales(scales.mean.to(device), scales.std.to(device), None)
    found = torch.empty(len(part.starts), len(egos), model.horizon)
    order = sorted(range(len(egos)), key=lambda row: len(egos[row].nodes))
    with torch.inference_mode():
        for begin in range(0, len(order), FORECAST_NODES):
            chosen = order[begin : begin + FORECAST_NODES]
            rows = torch.tensor(chosen)
            padded = pad_egos([egos[row] for row in chosen]).to(device)
            mine = {name: value[rows].to(device) for name, value in params.items()}
            for first in range(0, len(part.starts), FORECAST_WINDOWS):
                starts = here.starts[first : first + FORECAST_WINDOWS]
                windows = gather(here, padded, placed, rows.to(device), starts, model)
                y = network.forward_stacked(mine, windows.x, padded.graph, padded.mask, padded.centre)
                native = y * placed.std[rows, 0][:, None, None] + placed.mean[rows, 0][:, None, None]
                found[first : first + FORECAST_WINDOWS, rows] = native.transpose(0, 1).cpu()
    return found


def scales_of(table: RowTable) -> Scales:
    """Return the scales of a table.

    Raises:
        UserError: it has none.
    """
    lacks = table.mean is None or table.std is None or (table.model.residual == "average" and table.averages is None)
    if lacks or table.mean is None or table.std is None:
        raise UserError("rows: a table without scales; expected one that was trained, or made by `table_for`")
    return Scales(table.mean, table.std, table.averages)


def _rows_of(table: RowTable, series: GraphSeries) -> list[int]:
    place = {name: number for number, name in enumerate(series.nodes)}
    lost = [name for name in table.nodes if name not in place]
    if lost:
        raise UserError(f"rows: node {lost[0]!r} is not in {series.name or 'the series'}; expected rows of its nodes")
    if input_features(table.model, series.num_channels) != table.features:
        raise UserError(f"{series.name or 'series'}: {series.num_channels} channels; expected as many as the networks "
                        f"were trained on, {table.features - table.model.added_channels}")  # fmt: skip
    return [place[name] for name in table.nodes]


def _city_averages(table: RowTable, series: GraphSeries, rows: Sequence[int]) -> Tensor:
    """Return averages of every node of the city; those that the table has no row for are never a centre."""
    known = table.averages
    assert known is not None
    if known.shape[1] != series.steps_per_day:
        raise UserError(f"{series.name or 'series'}: {series.steps_per_day} steps per day; expected {known.shape[1]}, "
                        "as the networks were trained on")  # fmt: skip
    if len(rows) == series.num_nodes:
        whole = torch.empty(series.num_nodes, known.shape[1], dtype=torch.float64)
        whole[list(rows)] = known.double()
        return whole
    raise UserError(f"rows: {len(rows)} of {series.num_nodes} nodes of {series.name or 'the series'}; expected all, "
                    "since networks read deviations of their neighbours too")  # fmt: skip


def _slots_at(series: GraphSeries, steps: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the time of day of steps, also of such that come after the last."""
    first = series.step_of_day()
    inside = np.minimum(steps, series.num_steps - 1)
    return (first[inside] + (steps - inside)) % series.steps_per_day
