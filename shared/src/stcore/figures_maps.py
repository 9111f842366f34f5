"""Maps in degrees, panels of truth, forecast and error by lead time, and spectra of fields.

Rows go with latitude, upwards, whatever their order in the array. Coast lines would need data from elsewhere; axes in
degrees say where a map is. matplotlib (extra `plot`) is imported when something is drawn. Curves by lead time are in
`stcore.figures_grids`, styles in `stcore.frame_style`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from stcore.coordinates import is_latitude, is_longitude
from stcore.errors import UserError
from stcore.figures import GREY, ORANGE, SERIES, STYLE, styled
from stcore.frame_style import ERROR_MAP, MISSING, FrameStyle, error_scale, value_scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

Rows = Sequence[tuple[str, Float[ndarray, "lead height width"], "Normalize", Any, str]]
_TALLEST, _WIDEST = 1.6, 2.6
"""Width over height of a map at least over its inverse, and at most: longer fields are stretched."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Place:
    """Where the cells of a field lie."""

    y: Float[ndarray, "height"]
    x: Float[ndarray, "width"]
    names: tuple[str, str] = ("lat", "lon")
    """What rows and columns are called."""

    @classmethod
    def of(cls, series: Any) -> Place:
        """Return the place of a `GridSeries`; rows and columns are counted where it has no coordinates."""
        y, x = series.y, series.x
        return cls(
            y=-np.arange(series.height, dtype=float) if y is None else y,
            x=np.arange(series.width, dtype=float) if x is None else x,
            names=("row" if y is None else series.axis_names[0], "column" if x is None else series.axis_names[1]),
        )

    @property
    def edges(self) -> tuple[Float[ndarray, "columns"], Float[ndarray, "rows"]]:
        """Borders of the columns and of the rows, half way between their centres."""
        return _edges(self.x), _edges(self.y, bound=90.0 if is_latitude(self.names[0]) else None)

    @property
    def aspect(self) -> float:
        """Width over height of a map: a degree of longitude shrinks with the cosine of the middle latitude."""
        across, up = (abs(float(edges[-1] - edges[0])) or 1.0 for edges in self.edges)
        if is_latitude(self.names[0]) and is_longitude(self.names[1]):
            across *= max(float(np.cos(np.deg2rad(np.mean(self.y)))), 0.2)
        return min(max(across / up, 1.0 / _TALLEST), _WIDEST)


def _edges(centres: Float[ndarray, "cell"], bound: float | None = None) -> Float[ndarray, "edge"]:
    if len(centres) == 1:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    middle = (centres[1:] + centres[:-1]) / 2.0
    edges = np.concatenate([[2.0 * centres[0] - middle[0]], middle, [2.0 * centres[-1] - middle[-1]]])
    return edges if bound is None else edges.clip(-bound, bound)


@styled
def field_map(
    field: Float[ndarray, "height width"],
    place: Place,
    *,
    style: FrameStyle | None = None,
    diverging: bool = False,
    title: str = "",
) -> Figure:
    """Draw one field on its coordinates; missing cells are grey.

    Args:
        field: values of the cells.
        place: where they lie.
        style: colours and units.
        diverging: centre the colours at 0, for errors and anomalies.
        title: the title; by default what the values are.

    Raises:
        UserError: the field has another size than its place.
    """
    from matplotlib.figure import Figure

    style = style or FrameStyle(cmap="viridis")
    _require_place(field[None], place)
    width = 5.2
    figure = Figure(figsize=(width, 0.9 + (width - 1.4) / place.aspect), layout="constrained")
    axis = figure.subplots()
    norm = error_scale(field[None]) if diverging else value_scale(style, (field[None],))
    mesh = _mesh(axis, field, place, norm, ERROR_MAP if diverging else style.cmap)
    _label(axis, place)
    axis.set_title(title or style.name)
    figure.colorbar(mesh, ax=axis, shrink=0.9, pad=0.02).set_label(style.label_of_values, fontsize=8.0)
    return figure


@styled
def forecast_maps(
    forecast: Float[ndarray, "lead height width"],
    place: Place,
    *,
    truth: Float[ndarray, "lead height width"] | None = None,
    history: Float[ndarray, "time height width"] | None = None,
    style: FrameStyle | None = None,
    columns: int = 4,
    title: str = "Truth, forecast and error",
) -> Figure:
    """Draw maps in columns by lead time: truth and forecast on one scale, the error on its own, centred at 0.

    Args:
        forecast: the forecast fields, from the first lead time on.
        place: where the cells lie.
        truth: what came.
        history: what was known; its last field is drawn on the left.
        style: colours, units and time between fields.
        columns: at most so many lead times are drawn, evenly chosen, the last among them.
        title: the title.

    Raises:
        UserError: fields differ in size or number, or do not fit the place.
    """
    from matplotlib.figure import Figure

    style = style or FrameStyle(cmap="viridis")
    for part in (forecast, truth, history):
        if part is not None:
            _require_place(part, place)
    if truth is not None and len(truth) != len(forecast):
        raise UserError(f"maps: a forecast of {len(forecast)} fields for {len(truth)} that came; expected as many")
    picks = np.unique(np.linspace(0, len(forecast) - 1, min(len(forecast), columns)).round().astype(int)).tolist()
    norm = value_scale(style, (None if history is None else history[-1:], forecast if truth is None else truth))
    rows: Rows = [("forecast", forecast, norm, style.cmap, ORANGE)]
    if truth is not None:
        rows = [("truth", truth, norm, style.cmap, GREY), *rows]
        rows += [("error", forecast - truth, error_scale(forecast - truth), ERROR_MAP, ORANGE)]
    known = history is not None
    panel = 1.75
    figure = Figure(figsize=(1.5 + panel * (len(picks) + known), 0.75 + len(rows) * (panel / place.aspect + 0.12)),
                    layout="constrained")  # fmt: skip
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.01, hspace=0.01)  # pyright: ignore
    axes = np.atleast_2d(figure.subplots(len(rows), len(picks) + known, squeeze=False))
    if history is not None:
        _history(axes[:, 0], history[-1], place, norm, style)
    drawn: dict[str, tuple[Any, list[Axes]]] = {}
    for row, (name, fields, scale, cmap, color) in zip(axes[:, int(known) :], rows, strict=True):
        mesh = [_panel(axis, fields[pick], place, scale, cmap, color) for axis, pick in zip(row, picks, strict=True)]
        label = "forecast − truth" if name == "error" else style.label_of_values
        drawn[label] = (mesh[-1], [*drawn.get(label, (None, []))[1], *row])
        row[0].text(0.03, 0.95, name, transform=row[0].transAxes, va="top", fontsize=8.0, bbox=_BOX)
    for label, (mesh, panels) in drawn.items():  # one bar for truth and forecast, which share their scale
        bar = figure.colorbar(mesh, ax=panels, shrink=0.92, pad=0.01, aspect=9.0 * len(panels) / len(picks))
        bar.set_label(label, fontsize=8.0)
    for axis, pick in zip(axes[0, int(known) :], picks, strict=True):
        axis.set_title(f"{style.label(pick + 1)} {style.label_of_times}", fontsize=8.0, pad=2.5, loc="center")
    _label(axes[0 if known else -1, 0], place)
    figure.suptitle(title, fontsize=STYLE["axes.titlesize"], x=0.01, ha="left")
    return figure


_BOX = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.5}


def _history(axes: Any, last: Any, place: Place, norm: Normalize, style: FrameStyle) -> None:
    """Draw the last known field at the top of the left column, and leave the rest of the column empty."""
    _panel(axes[0], last, place, norm, style.cmap, GREY)
    axes[0].set_title(f"0 {style.label_of_times}", fontsize=8.0, pad=2.5, loc="center")
    axes[0].text(0.03, 0.95, "last known", transform=axes[0].transAxes, va="top", fontsize=8.0, bbox=_BOX)
    for axis in axes[1:]:
        axis.set_axis_off()


def _panel(axis: Axes, field: Any, place: Place, norm: Normalize, cmap: Any, color: str) -> Any:
    mesh = _mesh(axis, field, place, norm, cmap)
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set(visible=True, color=color, linewidth=1.2 if color == ORANGE else 0.8)
    return mesh


def _mesh(axis: Axes, field: Any, place: Place, norm: Normalize, cmap: Any) -> Any:
    """Paint the cells between their borders, north up."""
    columns, rows = place.edges
    axis.set_facecolor(str(MISSING))
    mesh = axis.pcolormesh(columns, rows, np.ma.masked_invalid(field), norm=norm, cmap=cmap, rasterized=True)
    axis.set_xlim(float(columns.min()), float(columns.max()))
    axis.set_ylim(float(rows.min()), float(rows.max()))
    axis.set_box_aspect(1.0 / place.aspect)
    return mesh


def _label(axis: Axes, place: Place) -> None:
    """Give an axis ticks, in degrees with their directions where they are such."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    known = (is_latitude(place.names[0]), is_longitude(place.names[1]))
    for side, degrees, words in ((axis.yaxis, known[0], _north), (axis.xaxis, known[1], _east)):
        steps = [1, 1.5, 3, 4.5, 6, 9, 10] if degrees else None
        side.set_major_locator(MaxNLocator(4, steps=steps))
        if degrees:
            side.set_major_formatter(FuncFormatter(words))
        elif side is axis.yaxis and place.names[0] == "row":
            side.set_major_formatter(FuncFormatter(lambda value, _: f"{abs(value):g}"))
    axis.tick_params(labelsize=7.0, width=0.6, length=2.5)
    if not known[0]:
        axis.set_ylabel(place.names[0], fontsize=8.0)
    if not known[1]:
        axis.set_xlabel(place.names[1], fontsize=8.0)


def _north(degrees: float, _: int | None = None) -> str:
    return "0°" if degrees == 0 else f"{abs(degrees):g}°{'N' if degrees > 0 else 'S'}"


def _east(degrees: float, _: int | None = None) -> str:
    around = (degrees + 180.0) % 360.0 - 180.0
    return f"{abs(around):g}°" if around in (0.0, -180.0) else f"{abs(around):g}°{'E' if around > 0 else 'W'}"


def _require_place(fields: Any, place: Place) -> None:
    if fields.ndim != 3 or fields.shape[1:] != (len(place.y), len(place.x)) or not len(fields):
        raise UserError(f"maps: fields of shape {fields.shape}; expected (field, {len(place.y)}, {len(place.x)})")


def radial_spectrum(
    fields: Float[ndarray, "field height width"], *, spacing: tuple[float, float] = (1.0, 1.0), periodic: bool = False
) -> tuple[Float[ndarray, "wave"], Float[ndarray, "wave"]]:
    """Return wavenumbers, and the variance of fields by wavenumber, averaged over directions and fields.

    The variances add up to that of the fields, but for the largest wavenumbers along diagonals, which are left out. A
    missing cell counts as the mean of its field.

    Args:
        fields: fields to average over.
        spacing: distance of rows and of columns.
        periodic: fields go on at the other side, as around the globe; else their edges are faded out (Hann window), so
            that the jump between them is no signal.

    Returns:
        Wavenumbers in cycles per unit of `spacing`, rising, and the variance in each band of one step.
    """
    height, width = fields.shape[1:]
    mean = np.nanmean(fields, axis=(1, 2), keepdims=True)
    off = np.where(np.isfinite(fields), fields - mean, 0.0).astype(np.float64)
    if not periodic:
        window = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1])
        off = off * window / np.sqrt((window**2).mean())
    power = (np.abs(np.fft.fft2(off)) ** 2).mean(axis=0) / (height * width) ** 2
    waves = np.hypot(np.fft.fftfreq(height, spacing[0])[:, None], np.fft.fftfreq(width, spacing[1]))
    step = max(1.0 / (height * spacing[0]), 1.0 / (width * spacing[1]))
    band = np.rint(waves / step).astype(int)
    bands = np.arange(1, round(min(0.5 / spacing[0], 0.5 / spacing[1]) / step) + 1)
    variance = np.bincount(band.reshape(-1), power.reshape(-1), minlength=int(bands[-1]) + 1 if len(bands) else 1)
    return bands * step, variance[bands]


@styled
def power_spectra(
    spectra: Mapping[str, tuple[Float[ndarray, "wave"], Float[ndarray, "wave"]]],
    *,
    unit: str = "",
    length_unit: str = "cells",
    title: str = "Variance by wavelength",
) -> Figure:
    """Draw spectra of truth and forecasts; what a forecast has too little of at short waves it has smoothed away.

    Args:
        spectra: wavenumbers and variances (`radial_spectrum`) by name; the first, the truth, is black.
        unit: unit of the values.
        length_unit: unit of the wavelengths.
        title: the title.

    Raises:
        UserError: no spectrum is given.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if not spectra:
        raise UserError("spectra: none; expected at least one")
    figure = Figure(figsize=(4.6, 3.4 + 0.17 * -(-len(spectra) // 3)), layout="constrained")
    axis = figure.subplots()
    for (name, (waves, power)), color in zip(spectra.items(), ("#000000", *SERIES * 2), strict=False):
        axis.plot(1.0 / waves, power, color=color, label=name, lw=2.2 if color == "#000000" else 1.4)
    axis.set(xscale="log", yscale="log", xlabel=f"wavelength ({length_unit}), short to the right", title=title,
             ylabel=f"variance ({unit})²" if unit else "variance")  # fmt: skip
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.invert_xaxis()
    axis.grid(which="major", lw=0.5, alpha=0.4)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=min(3, len(spectra)))
    return figure
