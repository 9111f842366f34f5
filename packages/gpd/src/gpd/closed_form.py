"""Fine-tuning in closed form: the linear maps of a city are changed all alike, then each by itself.

A few days know something of a city and little of a node. So all nodes share one ridge regression of what their rows
leave unexplained on their histories, and each has a second one of what is still left; both shrink towards no change.
How strongly is chosen by leaving out each day in turn, which no training that goes over the days again and again can
afford. So is how much of the daily course of those days is believed, and whether rows are of any use to this city, or
maps that start from nothing are better. Averages of fewer days make the course look less true than it is, so it is not
given up for a gain below its standard error over the days (the rule of Breiman et al., Classification and Regression
Trees, 1984).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from gpd.averages import day_averages
from gpd.ego import ego_graphs
from gpd.models.configs import NodeTrainingConfig
from gpd.models.linear import WEIGHT, WithLinear
from gpd.models.spec import to_rows
from gpd.node_data import Part, few_shot_windows, forecast_part, make_part, scales_of, table_for
from gpd.node_training import error_of
from gpd.rows import RowTable
from stcore.configuration import to_plain
from stcore.errors import UserError
from stcore.graphs import GraphSeries
from stcore.training.ranks import pick_device

_log = logging.getLogger(__name__)

CITY = (0.0, 1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0, math.inf)
NODE = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0, math.inf)
"""Strengths that are tried, as shares of the inputs' mean square; infinite ones change nothing."""
REWEIGHTED, SMALL_ERROR = 5, 0.05
"""Rounds of fitting where errors do not count by their squares, and the share of the mean error below which absolute
ones are squared."""
MOST = 60_000
"""Windows of all nodes together that are fitted; of more, every second, third … one is."""
COURSES = (1.0, 0.75, 0.5, 0.25, 0.0)
"""Shares of the daily course that may be believed (`residual = "average"`)."""
QUARTERS = 4
"""Parts of a single day, which are left out instead of days."""

Map = Float64[Tensor, "#node input horizon"]


class Known(NamedTuple):
    """What rows leave unexplained, in units of each node's scale."""

    x: Float64[Tensor, "node window input"]
    """What the linear map reads."""
    left: Float64[Tensor, "node window horizon"]
    """What came, less the forecast."""
    counts: Float64[Tensor, "node window"]
    """1 where all of what came is known, otherwise 0."""
    unit: Float64[Tensor, " node"]
    """The scale in native units."""
    first: Int64[Tensor, " window"]
    """Step of the first forecast."""
    block: Int64[Tensor, " window"]
    """What is left out together: the day of the first forecast; of a single day, its quarter."""

    def at(self, windows: Bool[Tensor, " window"]) -> Known:
        """Return some of the windows."""
        return Known(self.x[:, windows], self.left[:, windows], self.counts[:, windows], self.unit,
                     self.first[windows], self.block[windows])  # fmt: skip


class Strengths(NamedTuple):
    """How strongly the two changes shrink."""

    city: float
    node: float


class Choice(NamedTuple):
    """What does best on days that are left out."""

    strengths: Strengths
    errors: Float64[Tensor, " block"]
    """Sums of absolute errors there, in native units."""

    @property
    def error(self) -> float:
        """Their sum."""
        return float(self.errors.sum())

    def surpasses(self, other: Choice) -> bool:
        """Return whether errors are smaller by more than the standard error of the difference over the blocks."""
        gains = other.errors - self.errors
        return len(gains) > 1 and float(gains.mean()) * len(gains) ** 0.5 > float(gains.std())


def tune(table: RowTable, series: GraphSeries, training: NodeTrainingConfig, *, device: str = "auto") -> RowTable:
    """Change the linear maps of a city's rows by its few days, or of rows of zeros where that does better.

    Args:
        table: rows of the city.
        series: the few days.
        training: `loss` is what the change for all minimises, that of each node by itself squared errors; with
            `select_on` tail, the loss at the end of the days of what was fitted before it is noted.
        device: `auto`, `cpu` or `cuda`; for the forecasts of the rows.

    Raises:
        UserError: the rows have no linear map.
    """
    network, model = table.network, table.model
    if not isinstance(network, WithLinear):
        raise UserError("finetune.closed-form: true without model.linear; expected a linear map, which alone has a "
                        "closed form; pass --model.linear or leave it out")  # fmt: skip

    def started(rows: Tensor, course: float) -> tuple[Known, RowTable]:
        start = table_for(series, rows, model, training.statistics, course=course)
        return _known(start, network, series, course, device), start

    course = 1.0
    if model.residual == "average":  # squares are much the same here, and much faster
        course = _course({share: choose(started(table.rows, share)[0], "mse") for share in COURSES})
    known, start = started(table.rows, course)
    chosen, given_up = choose(known, training.loss), False
    if table.rows.any():
        other, nothing = started(torch.zeros_like(table.rows), course)
        instead = choose(other, training.loss)
        if given_up := instead.error < chosen.error:
            known, start, chosen = other, nothing, instead
    params = start.params()
    params[WEIGHT] = params[WEIGHT] + fit(known, chosen.strengths, training.loss).mT.float()
    losses = [None] * len(table)
    if training.select_on == "tail":
        losses = _tail_losses(known, chosen.strengths, series, table, training)
    facts = {"training": to_plain(training), "best_epoch": [0] * len(table), "best_loss": losses, "course": course,
             "strengths": {name: _plain(value) for name, value in chosen.strengths._asdict().items()},
             "rows_given_up": given_up}  # fmt: skip
    _log.info("%s: %sridge of %g for the city, %g for its nodes; %.0f %% of the daily course believed",
              series.name or "graph", "maps from nothing, since rows do worse on days left out; " if given_up else "",
              *chosen.strengths, 100 * course)  # fmt: skip
    return replace(start, rows=to_rows(params, table.spec), metadata={**table.metadata, **facts})


def _course(found: Mapping[float, Choice]) -> float:
    """Return the share of the daily course that does best, of those that surpass the whole of it."""
    able = [share for share, choice in found.items() if choice.surpasses(found[1.0])]
    return min([1.0, *able], key=lambda share: found[share].error)


def choose(known: Known, loss: str) -> Choice:
    """Return the strengths with the smallest absolute error on blocks that are left out in turn.

    Windows around the border of two blocks forecast some steps in common, but to leave these out too leaves little of
    three days of hourly readings, and shrinks too much.

    Args:
        known: what is fitted.
        loss: what the change for all minimises.
    """
    tables: list[Tensor] = []
    for block in known.block.unique():
        out = known.block == block
        if out.all() or not known.counts[:, out].any():
            continue
        table = torch.zeros(len(CITY), len(NODE), dtype=torch.float64)
        kept, left_out = known.at(~out), known.at(out)
        for row, city in enumerate(CITY):
            alike = _of_city(kept, city, loss)
            for column, own in enumerate(_of_nodes(kept, alike)):
                error = (left_out.left - left_out.x @ (alike + own)).abs().sum(dim=2)
                table[row, column] = (error * left_out.counts * left_out.unit[:, None]).sum()
        tables.append(table)
    errors = torch.stack(tables) if tables else torch.zeros(0, len(CITY), len(NODE), dtype=torch.float64)
    at = int(errors.sum(dim=0).flip(0, 1).argmin())  # of equals, the smallest change
    row, column = (len(CITY) - 1 - at // len(NODE), len(NODE) - 1 - at % len(NODE))
    return Choice(Strengths(CITY[row], NODE[column]), errors[:, row, column])


def fit(known: Known, strengths: Strengths, loss: str) -> Map:
    """Return by how much the map of each node changes."""
    alike = _of_city(known, strengths.city, loss)
    (own,) = _of_nodes(known, alike, (strengths.node,))
    return alike + own


def _known(table: RowTable, network: WithLinear, series: GraphSeries, course: float, device: str) -> Known:
    model, scales = table.model, scales_of(table)
    averages = day_averages(series) if model.residual == "average" else None
    part = make_part(series, model, averages, leave_out=True, course=course, what="few days")
    every = max(1, -(-len(part.starts) * len(table) // MOST))
    part = Part(part.values, part.known, part.starts[::every])
    made = forecast_part(table.params(), part, ego_graphs(series.adjacency), scales, model, table.features,
                         pick_device(device))  # fmt: skip
    channels = list(network.channels)
    values = (part.values[..., channels] - scales.mean[:, channels]) / scales.std[:, channels]
    counts = torch.ones_like(values, dtype=torch.bool) if part.known is None else part.known[..., channels]
    history = part.starts[:, None] + torch.arange(model.history)
    ahead = part.starts[:, None] + torch.arange(model.history, model.history + model.horizon)
    x = values.where(counts, 0.0)[history]  # window, time, node, channel
    base = (made - scales.mean[:, :1]) / scales.std[:, :1]
    return Known(
        x=x.permute(2, 0, 3, 1).flatten(2).double(),
        left=(values[ahead][..., 0].permute(2, 0, 1) - base.transpose(0, 1)).double(),
        counts=counts[ahead][..., 0].all(dim=1).mT.double(),
        unit=scales.std[:, 0].double(),
        first=part.starts + model.history,
        block=_blocks(part.starts + model.history, series),
    )


def _blocks(first: Int64[Tensor, " window"], series: GraphSeries) -> Int64[Tensor, " window"]:
    """Return the day of the first forecast of each window; of a single day, its quarter."""
    days = torch.from_numpy(np.asarray(series.day_number(), dtype=np.int64))[first]
    if len(days.unique()) > 1:
        return days
    return torch.arange(len(days)) * QUARTERS // len(days)


def _of_city(known: Known, strength: float, loss: str) -> Map:
    """Return the change that suits all nodes, each counting in units of its scale."""
    x, left = known.x.flatten(0, 1), known.left.flatten(0, 1)
    if math.isinf(strength):
        return x.new_zeros(1, x.shape[1], left.shape[1])
    counts = known.counts.flatten()
    found = _ridge(x.mT @ (x * counts[:, None]), x.mT @ (left * counts[:, None]), strength)
    for _ in range(REWEIGHTED if loss != "mse" else 0):
        weights = counts[:, None] / _divisor(known, left - x @ found, loss)
        each = [_ridge(x.mT @ (x * weight[:, None]), x.mT @ (lead * weight)[:, None], strength)
                for weight, lead in zip(weights.mT, left.mT, strict=True)]  # fmt: skip
        found = torch.cat(each, dim=1)
    return found[None]


def _divisor(known: Known, error: Tensor, loss: str) -> Tensor:
    """Return by what squares of errors are divided so that they count as the loss has it."""
    if loss == "mae":
        counts = known.counts.flatten()[:, None]
        mean = (error.abs() * counts).sum() / (counts.sum() * error.shape[1]).clamp_min(1.0)
        return error.abs().clamp_min(SMALL_ERROR * float(mean) + 1e-12)
    native = known.unit.repeat_interleave(known.x.shape[1])[:, None]
    return (error.abs() * native).clamp_min(1.0)


def _of_nodes(known: Known, alike: Map, strengths: Sequence[float] = NODE) -> Iterator[Map]:
    """Yield what each node changes beside the change for all, for each of some strengths."""
    counted = known.x * known.counts[..., None]
    inside = counted.mT @ known.x
    across = counted.mT @ known.left - inside @ alike
    for strength in strengths:
        yield torch.zeros_like(across) if math.isinf(strength) else _ridge(inside, across, strength)


def _ridge(inside: Tensor, across: Tensor, strength: float) -> Tensor:
    """Solve for a map from products of inputs, and of inputs with what is sought."""
    scale = inside.diagonal(dim1=-2, dim2=-1).mean(dim=-1)[..., None, None]
    least = (strength + 1e-9) * scale + 1e-12
    return torch.linalg.solve(inside + least * torch.eye(inside.shape[-1], dtype=inside.dtype), across)


def _tail_losses(
    known: Known, strengths: Strengths, series: GraphSeries, table: RowTable, training: NodeTrainingConfig
) -> list[float | None]:
    """Return the loss of each node at the end of the days, in native units, of what was fitted before."""
    early, late = (torch.from_numpy(found + table.model.history)
                   for found in few_shot_windows(series, table.model, training.tail))  # fmt: skip
    before, after = known.at(torch.isin(known.first, early)), known.at(torch.isin(known.first, late))
    made = after.x @ fit(before, strengths, training.loss)
    error = error_of((made - after.left) * after.unit[:, None, None], training.loss).mean(dim=2)
    counts = after.counts.sum(dim=1)
    losses = (error * after.counts).sum(dim=1) / counts.clamp_min(1.0)
    return [loss if count else None for loss, count in zip(losses.tolist(), counts.tolist(), strict=True)]


def _plain(strength: float) -> float | None:
    """Return a number that JSON has; none for no change."""
    return None if math.isinf(strength) else strength
