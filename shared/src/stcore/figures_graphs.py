"""Figures of forecasts on the nodes of a graph, and of generated parameters, in the style of `stcore.figures`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Float64
from numpy import ndarray
from numpy.typing import NDArray

from stcore.errors import UserError
from stcore.figures import BLUE, GREY, RED, SERIES, WIDTH, canvas, map_axes, styled
from stcore.graphs import Adjacency

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_NODES = 6
_NAIVE = ("persistence", "historical average", "ridge on average", "mean row", "random row")
_MARKERS = "osD^vP*X"


@styled
def error_by_horizon(
    errors: Mapping[str, Float[ndarray, "horizon"]],
    *,
    step_minutes: float = 0.0,
    unit: str = "",
    spread: Mapping[str, Float[ndarray, "horizon"]] | None = None,
    title: str = "Error by time ahead",
) -> Figure:
    """Draw the mean absolute error of several forecasts at each number of steps ahead.

    Args:
        errors: error per step ahead, by name of the forecast; naive ones are drawn dashed.
        step_minutes: length of a step; 0 counts steps.
        unit: unit of the errors.
        spread: half widths of a band around some of them.
        title: the title.

    Raises:
        UserError: nothing to draw, or lengths differ.
    """
    lengths = {name: len(values) for name, values in errors.items()}
    if not errors or len(set(lengths.values())) != 1:
        raise UserError(f"errors: lengths {lengths}; expected some, all of one length")
    figure, (axis,) = canvas(height=3.6)
    ahead = np.arange(1, next(iter(lengths.values())) + 1) * (step_minutes or 1.0)
    for place, (name, values) in enumerate(errors.items()):
        color = SERIES[place % len(SERIES)]
        dashed = name.lower() in _NAIVE
        axis.plot(ahead, values, color=color, marker=_MARKERS[place % len(_MARKERS)], ms=4, ls="--" if dashed else "-",
                  lw=1.2 if dashed else 1.8, label=name)  # fmt: skip
        if spread is not None and name in spread:
            axis.fill_between(ahead, values - spread[name], values + spread[name], color=color, alpha=0.18, lw=0)
    label = "minutes ahead" if step_minutes else "steps ahead"
    axis.set(xlabel=label, ylabel=f"mean absolute error ({unit})" if unit else "mean absolute error", title=title)
    axis.set_xticks(ahead.tolist())
    axis.set_ylim(bottom=0.0)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


@styled
def node_map(
    values: Float[ndarray, "node"],
    adjacency: Adjacency,
    *,
    coordinates: Float[ndarray, "node 2"] | None = None,
    degrees: bool = False,
    unit: str = "",
    signed: bool = False,
    title: str = "Error at each node",
) -> Figure:
    """Draw a value at each node, with the edges between them.

    Args:
        values: value of each node; NaN is drawn hollow.
        adjacency: the graph.
        coordinates: positions; without any, nodes are laid out by the graph alone.
        degrees: they are degrees of longitude and latitude.
        unit: unit of the values.
        signed: centre the colours at 0, red where the value is above it.
        title: the title.

    Raises:
        UserError: as many values or positions as nodes are expected.
    """
    from matplotlib.collections import LineCollection

    points = spectral_positions(adjacency) if coordinates is None else np.asarray(coordinates, dtype=np.float64)
    if len(values) != adjacency.nodes or len(points) != adjacency.nodes:
        raise UserError(f"{len(values)} values and {len(points)} positions; expected one for each of {adjacency.nodes} "
                        "nodes")  # fmt: skip
    places, unit_of_length = _in_kilometres(points) if coordinates is not None and not degrees else (points, "")
    figure, axis = map_axes(_box(places), unit=unit_of_length, degrees=degrees, title=title)
    apart = adjacency.edges[:, adjacency.edges[0] != adjacency.edges[1]]
    lines: Any = np.stack([places[apart[0]], places[apart[1]]], axis=1)
    axis.add_collection(LineCollection(lines, colors=GREY, linewidths=0.5, alpha=0.45, zorder=1))
    known = np.isfinite(values)
    axis.scatter(*places[~known].T, s=16, facecolors="none", edgecolors=GREY, linewidths=0.8, zorder=2)
    low, high = _limits(values[known], signed=signed)
    dots = axis.scatter(*places[known].T, c=values[known], s=_dot(len(values)), zorder=3, vmin=low, vmax=high,
                        cmap="RdBu_r" if signed else "viridis", edgecolors="white", linewidths=0.4)  # fmt: skip
    figure.colorbar(dots, ax=axis, label=unit or "value", extend="max" if len(values) > _MOST_NODES else "neither")
    if coordinates is None:
        axis.set(xlabel="laid out by the graph: no positions known", ylabel="", xticks=[], yticks=[], aspect="auto")
    else:
        axis.locator_params(nbins=5)
    return figure


def _in_kilometres(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], str]:
    """Return positions in metres as kilometres from the middle; others as they are."""
    if np.ptp(points, axis=0).max(initial=0.0) < 1000.0:
        return points, ""
    return (points - points.mean(axis=0)) / 1000.0, "km from the middle"


def _box(points: NDArray[np.float64]) -> tuple[float, float, float, float]:
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.06 * max(float((high - low).max()), 1e-6)
    return float(low[0] - margin), float(high[0] + margin), float(low[1] - margin), float(high[1] + margin)


def _limits(values: NDArray[Any], *, signed: bool) -> tuple[float, float]:
    """Return the ends of the colours; the largest 2 % saturate, so that one node does not hide the others."""
    if not len(values):
        return 0.0, 1.0
    if signed:
        top = float(np.quantile(np.abs(values), 0.98)) or 1.0
        return -top, top
    low, high = float(values.min()), float(np.quantile(values, 0.98))
    return low, high if high > low else low + 1.0


def _dot(nodes: int) -> float:
    return float(np.clip(2400.0 / max(nodes, 1), 6.0, 46.0))


def spectral_positions(adjacency: Adjacency) -> Float64[ndarray, "node 2"]:
    """Return positions in which neighbours lie close: the two slowest vectors of the graph's Laplacian.

    Pieces that are not connected are laid side by side; a sign is fixed by the first entry that is not 0.
    """
    ties = adjacency.dense()
    ties = np.maximum(ties, ties.T)
    np.fill_diagonal(ties, 0.0)
    # A weak tie between all nodes keeps the pieces of a graph near one another.
    ties = ties + 0.01 * (ties[ties > 0.0].mean() if (ties > 0.0).any() else 1.0) / max(1, len(ties))
    np.fill_diagonal(ties, 0.0)
    scale = 1.0 / np.sqrt(np.maximum(ties.sum(axis=1), 1e-12))
    _, vectors = np.linalg.eigh(np.eye(len(ties)) - scale[:, None] * ties * scale)
    chosen = np.zeros((len(ties), 2))
    for axis in range(min(2, max(0, len(ties) - 1))):
        vector = scale * vectors[:, axis + 1]
        large = np.flatnonzero(np.abs(vector) > 1e-9 * np.abs(vector).max(initial=0.0))
        chosen[:, axis] = vector * (np.sign(vector[large[0]]) if large.size else 1.0)
    return chosen


@styled
def nearest_row_distances(
    generated: Float[ndarray, "row"],
    held_out: Float[ndarray, "row"],
    *,
    copies: float | None = None,
    title: str = "Are generated parameters copies?",
) -> Figure:
    """Draw how far generated rows are from the nearest training row, beside how far training rows are from each other.

    Args:
        generated: distance of each generated row to the nearest training row.
        held_out: distance of each training row to the nearest other one.
        copies: distance below which a row counts as a copy.
        title: the title.

    Raises:
        UserError: there are no rows.
    """
    if not len(generated) or not len(held_out):
        raise UserError(f"{len(generated)} generated rows and {len(held_out)} training rows; expected some of both")
    figure, (axis,) = canvas(height=3.2)
    both = np.concatenate([generated, held_out])
    edges = np.linspace(min(0.0, float(both.min())), float(both.max()) * 1.02 or 1.0, 41).tolist()
    for values, color, name in ((held_out, GREY, "training rows to the next one"), (generated, BLUE, "generated rows")):
        weights = np.full(len(values), 1.0 / len(values))
        axis.hist(values, bins=edges, weights=weights, color=color, alpha=0.5, label=f"{name} (n = {len(values)})")
        axis.axvline(float(np.median(values)), color=color, lw=1.5, ls="--")
    if copies is not None:
        share = float((generated < copies).mean())
        axis.axvline(copies, color=RED, lw=1.2, label=f"copies: {100.0 * share:.0f} % of generated rows")
    axis.set(xlabel="distance to the nearest training row", ylabel="share of rows", title=title)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=1)
    return figure


@styled
def node_forecasts(
    truth: Float[ndarray, "time node"],
    forecasts: Mapping[str, Float[ndarray, "time node"]],
    *,
    names: Sequence[str],
    times: NDArray[np.datetime64] | None = None,
    ahead: str = "",
    unit: str = "",
    title: str = "Forecasts and what came",
) -> Figure:
    """Draw what came at some nodes with forecasts made a fixed time before, a panel for each node.

    Args:
        truth: readings of the nodes to draw; NaN leaves a gap.
        forecasts: forecasts of the same steps, by name.
        names: names of the nodes.
        times: moments of the steps; without any, steps are counted.
        ahead: how long before the forecasts were made, for the title, such as "30 minutes".
        unit: unit of the readings.
        title: the title.

    Raises:
        UserError: more panels than fit, or sizes differ.
    """
    shape = truth.shape
    if not 1 <= shape[1] <= _MOST_NODES or len(names) != shape[1]:
        raise UserError(f"{shape[1]} nodes and {len(names)} names; expected as many, 1 to {_MOST_NODES}")
    for name, values in forecasts.items():
        if values.shape != shape:
            raise UserError(f"forecast {name!r:.60} of shape {values.shape}; expected {shape} as the truth")
    figure, axes = canvas(height=1.0 + 1.35 * shape[1], rows=shape[1], width=WIDTH * 1.5)
    across: Any = np.arange(shape[0]) if times is None else times
    for node, axis in enumerate(axes):
        axis.plot(across, truth[:, node], color="black", lw=1.1, label="what came")
        for place, (name, values) in enumerate(forecasts.items()):
            axis.plot(across, values[:, node], color=SERIES[place % len(SERIES)], lw=1.3, alpha=0.9, label=name)
        axis.set(ylabel=unit)
        axis.set_title(f"node {names[node]}", fontsize=8.5)
    axes[-1].set_xlabel("step" if times is None else "time")
    if times is not None:
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

        locator = AutoDateLocator(maxticks=8)
        axes[-1].xaxis.set_major_locator(locator)
        axes[-1].xaxis.set_major_formatter(ConciseDateFormatter(locator))
    figure.suptitle(f"{title}, {ahead} ahead" if ahead else title, fontsize=10.0, x=0.01, ha="left")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure
