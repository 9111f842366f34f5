"""Figures of event forecasts in use: several steps ahead, along a sequence, and on a map of probabilities.

Arrays in, figure out, in the style of `stcore.figures`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from stcore.figures import BLUE, GREY, ORANGE, RED, canvas, history_points, map_axes, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

THIN = 12
"""Single futures that a fan shows."""


@styled
def future_fan(
    time: Float[ndarray, "trajectory step"],
    *,
    history_time: Float[ndarray, "event"],
    unit: str = "units",
    title: str = "When the next events are expected",
) -> Figure:
    """Draw when the next events come: bands that hold 50 and 90 % of the futures at each step, and a few futures.

    Args:
        time: times of the events of each future, all finite.
        history_time: times of the known events, at least one; the latest are shown, as many as steps.
        unit: unit of time.
        title: the title.
    """
    from matplotlib.ticker import MaxNLocator

    figure, (axis,) = canvas(height=3.4)
    steps, last = time.shape[1], float(history_time[-1])
    known = history_time[-(steps + 1) :]
    ahead = np.arange(steps + 1)
    ends = np.concatenate([np.full((5, 1), last), np.quantile(time, [0.05, 0.25, 0.5, 0.75, 0.95], axis=0)], axis=1)
    axis.fill_betweenx(ahead, ends[0], ends[4], color=BLUE, alpha=0.18, lw=0, label="90 % of futures")
    axis.fill_betweenx(ahead, ends[1], ends[3], color=BLUE, alpha=0.35, lw=0, label="50 % of futures")
    for future in time[:THIN]:
        axis.plot([last, *future], ahead, color=GREY, lw=0.5, alpha=0.7)
    axis.plot([], [], color=GREY, lw=0.5, label="single futures")
    axis.plot(ends[2], ahead, color=BLUE, marker="o", ms=3.5, lw=1.6, label="median")
    axis.plot(known, np.arange(1 - len(known), 1), color="black", marker="o", ms=3.5, lw=1.0, label="known events")
    axis.axhline(0.0, color=GREY, lw=0.6, ls="--")
    axis.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=9))
    axis.set(xlabel=f"time ({unit})", ylabel="events after the last known one", title=title,
             ylim=(0.5 - len(known), steps + 0.5))  # fmt: skip
    right = max(float(ends[4].max()), last + 1e-9)
    axis.set_xlim(float(known[0]) - 0.02 * (right - float(known[0])), right + 0.05 * (right - float(known[0])))
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


@styled
def gaps_along_sequence(
    event: Int[ndarray, "event"],
    gap: Float[ndarray, "event level"],
    *,
    truth: Float[ndarray, "event"],
    levels: Sequence[float] = (0.05, 0.25, 0.5, 0.75, 0.95),
    unit: str = "units",
    title: str = "Time to the next event, forecast and true",
) -> Figure:
    """Draw quantiles of the gap before each event of a sequence, with the gaps that came, on a logarithmic axis.

    Args:
        event: places of the events in the sequence, ascending.
        gap: quantiles of the gap before each, given what came before it.
        truth: gaps that came; those of 0 are drawn at the bottom.
        levels: levels of the quantiles, five, ascending and symmetric about the median.
        unit: unit of time.
        title: the title.
    """
    figure, (axis,) = canvas(height=3.4, width=6.4)
    positive = np.concatenate([truth[truth > 0.0], gap[:, 0][gap[:, 0] > 0.0]])
    bottom = float(np.quantile(positive, 0.01)) / 1.5 if len(positive) else 1e-3
    shown = np.maximum(gap, bottom)
    outer, inner = (f"{100.0 * (levels[-1 - rank] - levels[rank]):.0f} %" for rank in (0, 1))
    across = np.concatenate([[event[0] - 0.5], event, [event[-1] + 0.5]])  # half a step beyond the first and the last
    band = shown[[0, *range(len(shown)), -1]].T
    axis.fill_between(across, band[0], band[4], step="mid", color=BLUE, alpha=0.18, lw=0, label=f"{outer} interval")
    axis.fill_between(across, band[1], band[3], step="mid", color=BLUE, alpha=0.35, lw=0, label=f"{inner} interval")
    axis.step(across, band[2], where="mid", color=BLUE, lw=1.3, label="median")
    late, early = truth > gap[:, 4], truth < gap[:, 0]
    outside = late | early
    axis.plot(event[~outside], np.maximum(truth, bottom)[~outside], "o", ms=2.6, color="black", label="what came")
    if outside.any():
        axis.plot(event[outside], np.maximum(truth, bottom)[outside], "D", ms=3.2, color=RED,
                  label=f"outside {outer}: {100.0 * outside.mean():.0f} %")  # fmt: skip
    axis.set_yscale("log")
    top = max(float(shown[:, 4].max()), float(truth.max()))
    axis.set(xlabel="event of the sequence", ylabel=f"gap ({unit})", title=title,
             xlim=(event[0] - 0.5, event[-1] + 0.5), ylim=(bottom * 0.9, top * 1.3))  # fmt: skip
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


@styled
def probability_map(
    x: Float[ndarray, "edge_x"],
    y: Float[ndarray, "edge_y"],
    probability: Float[ndarray, "column row"],
    *,
    history: Float[ndarray, "event 2"] | None = None,
    region: Sequence[Float[ndarray, "point 2"]] = (),
    chance: float | None = None,
    unit: str = "",
    degrees: bool = False,
    title: str = "Where an event is expected within the horizon",
) -> Figure:
    """Draw the probability of at least one event in each cell of a grid.

    Args:
        x, y: edges of the cells.
        probability: of at least one event in each cell, 0 to 1.
        history: locations of the latest events, oldest first.
        region: rings of a region, drawn as outlines.
        chance: probability of an event in the whole region, for the legend.
        unit: unit of the coordinates.
        degrees: coordinates are longitude and latitude.
        title: the title.
    """
    from matplotlib.ticker import PercentFormatter

    figure, axis = map_axes((x[0], x[-1], y[0], y[-1]), unit=unit, degrees=degrees, title=title)
    shade = axis.pcolormesh(x, y, np.where(probability > 0.0, probability, np.nan).T, cmap="Blues", vmin=0.0,
                            rasterized=True)  # fmt: skip
    history_points(axis, history)
    _outline(axis, region, chance)
    figure.colorbar(
        shade,
        ax=axis,
        label="P(at least one event in the cell)",
        format=PercentFormatter(1.0, decimals=0 if probability.max() > 0.05 else 1),
    )
    handles, labels = axis.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def _outline(axis: Axes, region: Sequence[Float[ndarray, "point 2"]], chance: float | None) -> None:
    for ring in region:
        axis.plot(*np.concatenate([ring, ring[:1]]).T, color=ORANGE, lw=1.8)
    if region:
        said = "region" if chance is None else f"region: P(event) = {100.0 * chance:.0f} %"
        axis.plot([], [], color=ORANGE, lw=1.8, label=said)


def cells_around(points: Float[ndarray, "point 2"], *, count: int = 24) -> tuple[ndarray, ndarray]:
    """Return the edges of about square cells that hold the middle 99 % of points along each axis."""
    low, high = np.quantile(points, [0.005, 0.995], axis=0)
    margin = 0.05 * np.maximum(high - low, 1e-9 + 1e-6 * np.abs(high))
    low, high = low - margin, high + margin
    side = float((high - low).max()) / count
    x, y = (np.linspace(a, b, max(2, round((b - a) / side)) + 1) for a, b in zip(low, high, strict=True))
    return x, y
