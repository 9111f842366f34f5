"""Pictures of frames: grids of history, truth, forecast and error, errors by lead time, flow fields.

Frames are drawn with the first row at the top. Every function takes arrays of one sample and one channel. matplotlib
(extra `plot`) is imported when something is drawn. The style is that of `stcore.figures`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from stcore.figures import GREY, ORANGE, RED, SERIES, STYLE, styled
from stcore.figures_animations import save_animation
from stcore.frame_style import (
    ERROR_MAP,
    MISSING,
    FrameStyle,
    error_scale,
    register_dbz_cmap,
    register_rain_cmap,
    require_same_size,
    value_scale,
    where_observed,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

__all__ = [
    "FrameStyle",
    "flow_field",
    "frame_grid",
    "lead_time_curves",
    "register_dbz_cmap",
    "register_rain_cmap",
    "save_animation",
]

MOST_TICKS = 10
"""Lead times with a tick at most."""
_TITLE_WIDTH = 0.085
"""Inches that a letter of a title takes at most, on average."""


def _spread(count: int, columns: int) -> list[int]:
    """Choose at most `columns` of `count` frames, evenly, with the first and the last."""
    return np.unique(np.linspace(0, count - 1, min(count, columns)).round().astype(int)).tolist()


@dataclass(frozen=True, eq=False, kw_only=True)
class _Row:
    name: str
    frames: Float[ndarray, "frame height width"]
    steps: range
    norm: Normalize
    cmap: Any
    border: str


@styled
def frame_grid(
    history: Float[ndarray, "time height width"],
    forecast: Float[ndarray, "horizon height width"],
    *,
    truth: Float[ndarray, "horizon height width"] | None = None,
    style: FrameStyle | None = None,
    columns: int = 10,
    title: str = "History, what came and the forecast",
) -> Figure:
    """Draw frames in rows: history, truth, forecast, and the error of the forecast centred at 0.

    Args:
        history: the frames that were known, oldest first.
        forecast: the predicted frames.
        truth: what came.
        style: colours, units and time steps.
        columns: at most so many frames of a row are drawn, evenly chosen, the last among them.
        title: the title.
    """
    style = style or FrameStyle()
    require_same_size(history, forecast, truth)
    forecast = where_observed(forecast, history)
    norm = value_scale(style, (history, truth) if truth is not None else (history, forecast))
    ahead = range(1, len(forecast) + 1)
    rows = [_Row(name="history", frames=history, steps=range(1 - len(history), 1), norm=norm, cmap=style.cmap,
                 border=GREY)]  # fmt: skip
    if truth is not None:
        rows.append(_Row(name="truth", frames=truth, steps=ahead, norm=norm, cmap=style.cmap, border=GREY))
    rows.append(_Row(name="forecast", frames=forecast, steps=ahead, norm=norm, cmap=style.cmap, border=ORANGE))
    if truth is not None:
        error = forecast - truth
        rows.append(_Row(name="error", frames=error, steps=ahead, norm=error_scale(error), cmap=ERROR_MAP,
                         border=ORANGE))  # fmt: skip
    return _draw_rows(rows, style, columns, title)


def _draw_rows(rows: Sequence[_Row], style: FrameStyle, columns: int, title: str) -> Figure:
    """Place panels by hand, in inches: automatic layouts leave uneven gaps between many small pictures."""
    from matplotlib.figure import Figure

    chosen = [_spread(len(row.frames), columns) for row in rows]
    across = max(len(picks) for picks in chosen)
    height, width = rows[0].frames.shape[1:]
    longest = max(len(style.label(row.steps[pick])) for row, picks in zip(rows, chosen, strict=True) for pick in picks)
    side = max(0.62, 0.075 * longest, min(1.1, 6.0 / across) * min(1.0, width / height))
    # Fields much wider or taller than a screen are stretched rather than drawn as threads.
    tall, gap, left, right, caption = min(max(side * height / width, 0.45), 2.4), 0.06, 0.92, 1.1, 0.2
    above = [caption if _captioned(rows, at) else 0.12 if row.name == "error" else 0.0 for at, row in enumerate(rows)]
    tops = 0.26 + np.cumsum(above) + (tall + gap) * np.arange(len(rows))
    page_w = max(left + across * (side + gap) + right, _TITLE_WIDTH * len(title))
    page_h = float(tops[-1]) + tall + gap
    figure = Figure(figsize=(page_w, page_h))
    figure.text(0.06 / page_w, 1.0 - 0.08 / page_h, title, fontsize=STYLE["axes.titlesize"], va="top")
    for at, (row, picks, top) in enumerate(zip(rows, chosen, tops.tolist(), strict=True)):
        for column, pick in enumerate(picks):
            axis = _axis(figure, left + column * (side + gap), top, side, tall)
            _panel(axis, row, pick)
            if _captioned(rows, at):
                axis.set_title(style.label(row.steps[pick]), fontsize=8.0, pad=2.5, loc="center")
        edge = (left - 0.08) / page_w
        figure.text(edge, 1.0 - (top + tall / 2) / page_h, row.name, ha="right", va="center")
        if _captioned(rows, at):
            figure.text(edge, 1.0 - (top - 0.04) / page_h, f"time ({style.label_of_times})", fontsize=8.0, ha="right")
    split = next((at for at, row in enumerate(rows) if row.name == "error"), len(rows))
    x = left + across * (side + gap) + 0.08
    _bar(_axis(figure, x, tops[0], 0.1, tops[split - 1] + tall - tops[0]), rows[0], style.label_of_values)
    if split < len(rows):
        _bar(_axis(figure, x, tops[split], 0.1, tall), rows[split], "forecast\n− truth")
    return figure


def _axis(figure: Figure, x: float, top: float, width: float, height: float) -> Axes:
    """Add axes at a distance from the left and the top of the page, in inches."""
    page_w, page_h = figure.get_size_inches()
    return figure.add_axes((x / page_w, 1.0 - (top + height) / page_h, width / page_w, height / page_h))


def _captioned(rows: Sequence[_Row], at: int) -> bool:
    """Rows with the steps of the row above them need no captions of their own."""
    return at == 0 or rows[at].steps != rows[at - 1].steps


def _panel(axis: Axes, row: _Row, pick: int) -> None:
    axis.imshow(row.frames[pick], cmap=row.cmap, norm=row.norm, interpolation="nearest", aspect="auto")
    # Where data are missing there is no error, which white, no error at all, must not hide.
    axis.set(xticks=[], yticks=[], facecolor=str(MISSING) if row.name == "error" else "white")
    for spine in axis.spines.values():
        spine.set(visible=True, color=row.border, linewidth=1.4 if row.border == ORANGE else 0.8)


def _three_ticks(norm: Normalize) -> list[float]:
    """Choose 0 and, on either side, the largest number of one digit that is on the scale."""
    unit = 10.0 ** np.floor(np.log10(norm.vmax or 1.0))
    end = float(np.floor((norm.vmax or 1.0) / unit * (1.0 + 1e-9)) * unit)
    return [-end, 0.0, end]


def _bar(axis: Axes, row: _Row, label: str) -> None:
    """Draw the bar of colours of a row."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm
    from matplotlib.ticker import MaxNLocator

    if isinstance(row.norm, BoundaryNorm):
        steps: dict[str, Any] = {"format": "%g"}
    else:
        steps = {"ticks": _three_ticks(row.norm) if row.name == "error" else MaxNLocator(nbins=6)}
    bar = axis.figure.colorbar(ScalarMappable(norm=row.norm, cmap=row.cmap), cax=axis, **steps)
    bar.ax.tick_params(width=0.6, length=2.5)
    if row.name == "error":  # upright words would be taller than a low row
        bar.set_label(label, fontsize=8.0, rotation=0, ha="left", va="center")
    else:
        bar.set_label(label, fontsize=8.0)


@styled
def lead_time_curves(
    curves: Mapping[str, Sequence[float] | Float[ndarray, "horizon"]],
    *,
    metric: str,
    style: FrameStyle | None = None,
    lower_is_better: bool = True,
    title: str = "",
) -> Figure:
    """Draw a metric against lead time, one curve for each forecaster.

    Args:
        curves: the metric at lead times 1, 2, …, by the name of the forecaster.
        metric: name of the metric with its unit, for the axis.
        style: time between frames and its unit.
        lower_is_better: said in the axis label.
        title: the title; by default the metric's name.
    """
    from matplotlib.figure import Figure

    style = style or FrameStyle()
    figure = Figure(figsize=(4.6, 3.3 + 0.17 * -(-len(curves) // 3)), layout="constrained")
    axis = figure.subplots()
    for (name, values), color, marker in zip(curves.items(), SERIES * 2, "osD^vP*X" * 2, strict=False):
        lead = style.step * np.arange(1, len(values) + 1)
        axis.plot(lead, np.asarray(values, dtype=float), color=color, marker=marker, ms=4, label=name)
    better = "lower is better" if lower_is_better else "higher is better"
    axis.set(xlabel=f"lead time ({style.label_of_times})", ylabel=f"{metric}, {better}",
             title=title or f"{metric.partition(' (')[0]} by lead time")  # fmt: skip
    longest = max((len(values) for values in curves.values()), default=1)
    every = -(-longest // MOST_TICKS)
    axis.set_xticks(style.step * np.arange(every, longest + 1, every))
    axis.grid(axis="y", lw=0.5, alpha=0.4)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=min(3, len(curves)))
    return figure


@styled
def flow_field(
    flow: Float[ndarray, "link 2 height width"],
    *,
    background: Float[ndarray, "rows columns"] | None = None,
    spacing: int = 0,
    columns: int = 5,
    title: str = "Where each cell looks for its past",
) -> Figure:
    """Draw the flows of a TrajGRU layer, one panel for each link: arrows towards the place a cell reads from.

    Arrows are to scale among themselves; the title says how long the longest is.

    Args:
        flow: displacements in cells of the layer, (dx to the right, dy downwards).
        background: a frame drawn faintly behind, stretched over the layer's cells.
        spacing: an arrow for every so many cells; by default about 14 arrows across.
        columns: panels in a row.
        title: the title.

    Source: Shi et al., "Deep Learning for Precipitation Nowcasting", NeurIPS 2017, section 3.3, figure of the
    connections of TrajGRU.
    """
    from matplotlib.figure import Figure

    links, _, height, width = flow.shape
    across = min(columns, links)
    down = -(-links // across)
    side = 1.45 if links > 1 else 3.4
    longest = float(np.hypot(flow[:, 0], flow[:, 1]).max())
    title = f"{title} (longest arrow: {longest:.2g} cells)"
    page = max(across * side, _TITLE_WIDTH * len(title)), 0.75 + down * (side * height / width + 0.22)
    figure = Figure(figsize=page, layout="compressed")
    axes = np.atleast_1d(figure.subplots(down, across, squeeze=False).ravel())
    every = spacing or max(1, round(max(height, width) / 14))
    rows, cells = np.mgrid[every // 2 : height : every, every // 2 : width : every]
    scale = max(longest, 1e-12) / (1.4 * every)
    # A frame around the cells, so that no arrow of the outer ones is cut.
    margin = 0.5 + _overshoot(flow[:, :, rows, cells] / scale, rows, cells, height, width)
    for link, axis in enumerate(axes):
        if link >= links:
            axis.set_visible(False)
            continue
        if background is not None:
            axis.imshow(background, cmap="gray", alpha=0.45, extent=(-0.5, width - 0.5, height - 0.5, -0.5))
        dx, dy = flow[link, :, rows, cells].transpose(2, 0, 1)
        axis.quiver(cells, rows, dx, dy, color=RED, angles="xy", scale_units="xy", scale=scale, pivot="tail",
                    units="width", width=0.009, headwidth=3.6, headlength=3.6, headaxislength=3.2, minshaft=1.4,
                    minlength=0.3)  # fmt: skip
        axis.set(
            xlim=(-margin, width - 1 + margin), ylim=(height - 1 + margin, -margin), aspect=1, xticks=[], yticks=[]
        )
        axis.set_title(f"link {link + 1}", fontsize=8.0, pad=2.5)
        for spine in axis.spines.values():
            spine.set(visible=True, linewidth=0.6)
    figure.suptitle(title, fontsize=STYLE["axes.titlesize"], x=0.01, ha="left")
    return figure


def _overshoot(
    arrows: Float[ndarray, "link 2 row column"], rows: ndarray, cells: ndarray, height: int, width: int
) -> float:
    """Return by how many cells the longest way out of an arrow's tip leaves the field."""
    tips_x, tips_y = cells + arrows[:, 0], rows + arrows[:, 1]
    beyond = (-0.5 - tips_x, tips_x - width + 0.5, -0.5 - tips_y, tips_y - height + 0.5)
    return max(0.0, *(float(side.max()) for side in beyond))
