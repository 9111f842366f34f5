"""Figures of forecasts: every function takes arrays and returns a matplotlib figure, without a display.

One style for all: a palette that the colour-blind can tell apart (Okabe and Ito), text of 8 to 10 points at the size
it prints, units on the axes, titles in words. matplotlib (extra `plot`) is imported when a figure is drawn.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from stcore.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Given = ParamSpec("Given")
Drawn = TypeVar("Drawn")

BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#6E6E6E"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, RED, "#56B4E9", "#F0E442", "#000000")
STYLE: dict[Any, Any] = {
    "font.size": 9.0, "axes.titlesize": 10.0, "axes.labelsize": 9.0, "xtick.labelsize": 8.0, "ytick.labelsize": 8.0,
    "legend.fontsize": 8.0, "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8,
    "axes.titlelocation": "left", "axes.axisbelow": True, "lines.linewidth": 1.6, "legend.frameon": False,
    "figure.facecolor": "white", "savefig.facecolor": "white", "pdf.fonttype": 42,
}  # fmt: skip
WIDTH = 4.6
"""Inches; a single column with room for its labels."""


def canvas(*, height: float, rows: int = 1, width: float = WIDTH, square: bool = False) -> tuple[Figure, list[Axes]]:
    """Make a figure of stacked panels; `square` ones have a fixed aspect, around which the rest is packed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="compressed" if square else "constrained")
    axes = np.atleast_1d(figure.subplots(rows, 1, sharex=True))
    return figure, list(axes)


def styled(draw: Callable[Given, Drawn]) -> Callable[Given, Drawn]:
    """Run a figure function under the house style, leaving matplotlib's settings as they were."""

    @wraps(draw)
    def run(*args: Given.args, **options: Given.kwargs) -> Drawn:
        import matplotlib

        with matplotlib.rc_context(STYLE):
            return draw(*args, **options)

    return run


@styled
def save_figure(figure: Figure, path: str | Path, *, dots_per_inch: int = 200) -> Path:
    """Write a figure as its suffix says (png, pdf, svg): whole or not at all.

    Raises:
        UserError: a suffix that is no picture format, or a folder that cannot be written.
    """
    target = Path(path)
    kind = target.suffix.removeprefix(".").lower()
    if kind not in ("png", "pdf", "svg"):
        raise UserError(f"{target}: suffix {target.suffix!r}; expected .png, .pdf or .svg")
    temporary = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, suffix=".partial", delete=False) as file:
            temporary = Path(file.name)
            figure.savefig(file, format=kind, dpi=dots_per_inch, bbox_inches="tight", pad_inches=0.06)
        temporary.chmod(0o644)
        os.replace(temporary, target)
    except OSError as problem:
        raise UserError(f"{target}: {problem.strerror}; expected a folder that can be written") from problem
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return target


@styled
def location_map(
    samples: Float[ndarray, "sample 2"],
    *,
    truth: Float[ndarray, "2"] | None = None,
    history: Float[ndarray, "event 2"] | None = None,
    box: tuple[float, float, float, float] | None = None,
    unit: str = "",
    degrees: bool = False,
    title: str = "Where the next event is expected",
) -> Figure:
    """Draw the density of sampled locations with the regions that hold 50 and 90 % of it.

    Args:
        samples: locations of one event, at least three.
        truth: where the event came.
        history: locations of the events before it, oldest first; later ones are drawn darker.
        box: low x, high x, low y, high y of the map; by default around everything drawn.
        unit: unit of the coordinates, for the axes.
        degrees: coordinates are longitude and latitude: degrees on the axes, east-west distances to scale.
        title: the title.
    """
    import torch

    from stcore.metrics.density import density_on_grid, fit_kernel, leave_one_out

    drawn = [samples] + [extra.reshape(-1, 2) for extra in (truth, history) if extra is not None]
    left, right, low, high = box or _around(np.concatenate(drawn))
    x, y = np.linspace(left, right, 160), np.linspace(low, high, 160)
    kernel = fit_kernel(torch.from_numpy(np.asarray(samples, dtype=np.float64))[None])
    grid = density_on_grid(kernel, torch.from_numpy(x)[None], torch.from_numpy(y)[None])[0].numpy().T
    inner, outer = np.quantile(leave_one_out(kernel)[0].numpy(), [0.5, 0.1])

    figure, axis = map_axes((left, right, low, high), unit=unit, degrees=degrees, title=title)
    shade = axis.pcolormesh(x, y, grid, cmap="Blues", shading="gouraud", rasterized=True)
    levels = sorted({float(outer), float(inner)})
    if 0.0 < levels[0] < grid.max():
        axis.contour(x, y, grid, levels=levels, colors=[BLUE], linewidths=[1.0, 2.0][-len(levels) :])
    history_points(axis, history)
    axis.plot([], [], color=BLUE, lw=2.0, label="50 % region")
    axis.plot([], [], color=BLUE, lw=1.0, label="90 % region")
    if truth is not None:
        axis.plot(*truth, marker="*", ms=13, color=RED, mec="white", mew=0.8, ls="none", label="what came", zorder=5)
    area = "degree²" if degrees else f"{unit}²" if unit else "unit area"
    figure.colorbar(shade, ax=axis, label=f"density (1 / {area})")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def map_axes(box: tuple[float, float, float, float], *, unit: str, degrees: bool, title: str) -> tuple[Figure, Axes]:
    """Make a figure with one map: low x, high x, low y, high y of `box`, to scale."""
    left, right, low, high = box
    ratio = 1.0 / max(np.cos(np.deg2rad((low + high) / 2.0)), 0.1) if degrees else 1.0
    height = np.clip(WIDTH * 0.72 * (high - low) / (right - left) * ratio, 2.4, 5.4) + 1.15
    figure, (axis,) = canvas(height=float(height), square=True)
    names = ("longitude (degrees east)", "latitude (degrees north)") if degrees else _units(("x", "y"), unit)
    axis.set(xlabel=names[0], ylabel=names[1], title=title, xlim=(left, right), ylim=(low, high), aspect=ratio)
    return figure, axis


def _around(points: Float[ndarray, "point 2"]) -> tuple[float, float, float, float]:
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.18 * np.maximum(high - low, 1e-9 + 1e-6 * np.abs(high))
    return (low - margin)[0], (high + margin)[0], (low - margin)[1], (high + margin)[1]


def history_points(axis: Axes, history: Float[ndarray, "event 2"] | None) -> None:
    if history is None or len(history) == 0:
        return
    ages = np.linspace(0.15, 0.9, len(history))
    axis.scatter(*history.T, s=14, color=[(0.1, 0.1, 0.1, age) for age in ages], linewidths=0, zorder=4)
    axis.scatter([], [], s=14, color="black", linewidths=0, label="events before (darker: later)")


def _units(names: Sequence[str], unit: str) -> list[str]:
    return [f"{name} ({unit})" if unit else name for name in names]


@styled
def gap_density(
    samples: Float[ndarray, "sample"],
    *,
    truth: float | None = None,
    unit: str = "units",
    exact: tuple[Float[ndarray, "point"], Float[ndarray, "point"]] | None = None,
    levels: Sequence[float] = (0.5, 0.9),
    title: str = "When the next event is expected",
) -> Figure:
    """Draw the sampled law of the gap, its one-sided intervals [0, quantile] and what came.

    Args:
        samples: gaps of one event, at least 0.
        truth: the gap that came.
        unit: unit of time.
        exact: gaps and their exact density, drawn as a curve.
        levels: levels of the intervals, ascending.
        title: the title.
    """
    figure, (axis,) = canvas(height=3.2)
    ends = np.quantile(samples, levels)
    limit = 1.05 * max(float(np.quantile(samples, 0.99)), float(ends[-1]), 0.0 if truth is None else float(truth))
    axis.hist(samples, bins=np.linspace(0.0, limit, 41).tolist(), density=True, color=BLUE, alpha=0.35, label="samples")
    if exact is not None:
        axis.plot(*exact, color=BLUE, label="exact density")
    if truth is not None:
        axis.axvline(truth, color=RED, lw=1.8, label="what came")
    top = axis.get_ylim()[1]
    for rank, (level, end) in enumerate(zip(levels, ends, strict=True)):
        height = -top * 0.045 * (rank + 1)
        axis.plot([0.0, end], [height, height], color=SERIES[rank + 1], lw=4, solid_capstyle="butt",
                  label=f"{100 * level:.0f} % interval: 0 to {end:.3g}")  # fmt: skip
    axis.axhline(0.0, color="black", lw=0.8)
    axis.set(xlabel=f"time to the next event ({unit})", ylabel=f"density (1 / {unit})", title=title, xlim=(0.0, limit),
             ylim=(-top * 0.045 * (len(levels) + 0.8), top * 1.02))  # fmt: skip
    axis.set_yticks([tick for tick in axis.get_yticks() if 0.0 <= tick <= top])
    axis.legend(loc="upper right")
    return figure


@styled
def coverage_curve(
    levels: Float[ndarray, "level"],
    observed: Mapping[str, Float[ndarray, "level"]],
    *,
    events: int,
    title: str = "How often intervals hold what comes",
) -> Figure:
    """Draw observed against nominal coverage, with the band of a perfect forecaster of independent events.

    Args:
        levels: nominal levels in (0, 1), ascending.
        observed: the share covered at each level, by the name of the curve.
        events: number of events, for the band (95 %, binomial).
        title: the title.
    """
    from matplotlib.ticker import PercentFormatter

    figure, (axis,) = canvas(height=4.3, width=4.2, square=True)
    nominal = np.linspace(0.0, 1.0, 101)
    band = 1.96 * np.sqrt(nominal * (1.0 - nominal) / max(events, 1))
    axis.fill_between(nominal, nominal - band, nominal + band, color=GREY, alpha=0.25, lw=0)
    axis.plot(nominal, nominal, color=GREY, lw=1.0, ls="--", label=f"perfect (band: 95 %, {events:,} events)")
    for (name, share), color, marker in zip(observed.items(), SERIES, "osD^vP*X", strict=False):
        axis.plot(levels, share, color=color, marker=marker, ms=4, label=name)
    axis.set(xlabel="nominal level", ylabel="share of events covered", title=title, xlim=(0, 1), ylim=(0, 1), aspect=1)
    axis.xaxis.set_major_formatter(PercentFormatter(1.0))
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    axis.legend(loc="upper left")
    return figure


@styled
def pit_histogram(counts: Float[ndarray, "bin"], *, title: str = "Rank of the true gap among the samples") -> Figure:
    """Draw the histogram of the probability integral transform; within the band it is flat."""
    figure, (axis,) = canvas(height=3.0)
    bins, total = len(counts), float(np.sum(counts))
    share = np.asarray(counts) * bins / max(total, 1.0)
    spread = 1.96 * np.sqrt((bins - 1.0) / max(total, 1.0))
    axis.bar((np.arange(bins) + 0.5) / bins, share, width=0.94 / bins, color=BLUE, alpha=0.5, lw=0)
    axis.axhspan(1.0 - spread, 1.0 + spread, facecolor=ORANGE, alpha=0.25, lw=0,
                 label=f"perfect forecaster (95 %, {total:,.0f} events)")  # fmt: skip
    for end in (1.0 - spread, 1.0 + spread):
        axis.axhline(end, color=ORANGE, lw=1.0, ls="--")
    axis.set(xlabel="share of samples below the truth", ylabel="events, relative to flat", title=title, xlim=(0.0, 1.0),
             ylim=(0.0, 1.28 * max(float(share.max()), 1.0 + spread)))  # fmt: skip
    axis.legend(loc="upper right")
    return figure


@styled
def reliability_diagram(
    confidence: Float[ndarray, "bin"],
    accuracy: Float[ndarray, "bin"],
    count: Float[ndarray, "bin"],
    *,
    title: str = "How often the predicted mark is right",
) -> Figure:
    """Draw accuracy against confidence per bin, with how many events each bin holds; empty bins are left out."""
    from matplotlib.ticker import PercentFormatter

    figure, (upper, lower) = _canvas_with_counts()
    bins, some = len(count), np.asarray(count) > 0
    stated, right, events = (np.asarray(values)[some] for values in (confidence, accuracy, count))
    error = _wilson(right, events)
    upper.plot([0, 1], [0, 1], color=GREY, lw=1.0, ls="--", label="perfect")
    upper.errorbar(
        stated, right, yerr=error, color=BLUE, marker="o", ms=5, lw=1.2, capsize=2.5, label="forecast (95 %)"
    )
    upper.set(ylabel="share that is right", title=title, xlim=(0, 1), ylim=(0, 1.02))
    upper.yaxis.set_major_formatter(PercentFormatter(1.0))
    upper.legend(loc="upper left")
    lower.bar((np.arange(bins) + 0.5) / bins, count, width=0.94 / bins, color=BLUE, alpha=0.6)
    lower.set(xlabel="confidence of the prediction", ylabel="events")
    lower.xaxis.set_major_formatter(PercentFormatter(1.0))
    return figure


def _wilson(share: Float[ndarray, "bin"], events: Float[ndarray, "bin"]) -> Float[ndarray, "2 bin"]:
    """Measure how far the 95 % Wilson interval of a share reaches below and above it."""
    spread = 1.96**2 / events
    centre = (share + spread / 2.0) / (1.0 + spread)
    half = np.sqrt(share * (1.0 - share) * spread + spread**2 / 4.0) / (1.0 + spread)
    return np.maximum(np.stack([share - centre + half, centre + half - share]), 0.0)


def _canvas_with_counts() -> tuple[Figure, tuple[Axes, Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 4.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1.0])
    return figure, (upper, lower)


@styled
def intensity_in_time(
    time: Float[ndarray, "point"],
    curves: Mapping[str, Float[ndarray, "point"]],
    *,
    event_time: Float[ndarray, "event"],
    event_mark: Int[ndarray, "event"] | None = None,
    mark_names: Sequence[str] = (),
    unit: str = "units",
    known_until: float | None = None,
    title: str = "Rate of events",
) -> Figure:
    """Draw rates over time with the events as ticks below, one row of ticks for each mark.

    Args:
        time: times of the curves, ascending.
        curves: events per unit of time at them, by name.
        event_time: times of the events.
        event_mark: their marks.
        mark_names: names of the marks.
        unit: unit of time.
        known_until: time up to which events are known, where the curves go on after it.
        title: the title.
    """
    rows = list(mark_names) if event_mark is not None else ["events"]
    figure, (axis, ticks) = _canvas_with_ticks(len(rows))
    for (name, rate), color, style in zip(curves.items(), SERIES, ("-", "--", "-.", ":") * 2, strict=False):
        axis.plot(time, rate, color=color, ls=style, lw=1.3, label=name)
    axis.set(ylabel=f"events per {unit.removesuffix('s')}", title=title, xlim=(time[0], time[-1]))
    axis.set_ylim(0.0, 1.3 * max(float(np.max(rate)) for rate in curves.values()))
    if known_until is not None and known_until < time[-1]:
        axis.axvspan(known_until, float(time[-1]), color=GREY, alpha=0.15, lw=0, label="after the last event")
    axis.legend(loc="upper right", ncols=min(3, len(curves) + (known_until is not None)))
    inside = (event_time >= time[0]) & (event_time <= time[-1])
    for row in range(len(rows)):
        chosen = inside if event_mark is None else inside & (event_mark == row)
        ticks.eventplot(event_time[chosen], lineoffsets=-row, linelengths=0.7, linewidths=0.9, colors="black")
    ticks.set_yticks([-row for row in range(len(rows))], rows)
    ticks.set(xlabel=f"time ({unit})", ylim=(0.6 - len(rows), 0.6))
    ticks.tick_params(axis="y", length=0)
    ticks.spines["left"].set_visible(False)
    return figure


def _canvas_with_ticks(rows: int) -> tuple[Figure, tuple[Axes, Axes]]:
    from matplotlib.figure import Figure

    below = 0.25 * rows
    figure = Figure(figsize=(6.4, 3.0 + below), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2.2, below])
    return figure, (upper, lower)


@styled
def training_curves(log: str | Path, *, title: str = "Training") -> Figure:
    """Draw the losses of a run from its `metrics.jsonl`: one panel for each loss term, training beside validation.

    A term that never was anything but 0 gets none.

    Args:
        log: the file; one JSON object a line with `step` and values such as `train/loss` and `val/loss`.
        title: the title.

    Raises:
        UserError: a line that is no JSON object, or no loss in the file.
    """
    series = _read_series(Path(log))
    moved = {name for name, points in series.items() if any(value != 0.0 for _, value in points)}
    terms = sorted(
        {name.split("/", 1)[1] for name in moved or series},
        key=lambda term: (term != "loss", term == "learning_rate", term),
    )[:5]
    figure, axes = canvas(height=1.0 + 1.75 * len(terms), rows=len(terms), width=5.2)
    for axis, term in zip(axes, terms, strict=True):
        for part, color, marker in (("train", BLUE, ""), ("val", ORANGE, "o")):
            if f"{part}/{term}" in series:
                axis.plot(*zip(*series[f"{part}/{term}"], strict=True), color=color, marker=marker, ms=3, lw=1.3,
                          label={"train": "training", "val": "validation"}[part])  # fmt: skip
        axis.set(ylabel=term.replace("_", " ").replace("/", " "))
        axis.margins(x=0.02)
    axes[0].set_title(title)
    # A kind of line that only a lower panel has is named in the first panel that has it.
    named: set[str] = set()
    for axis in axes:
        lines, labels = axis.get_legend_handles_labels()
        if not named.issuperset(labels):
            axis.legend(lines, labels, loc="upper right")
        named.update(labels)
    axes[-1].locator_params(axis="x", integer=True)
    axes[-1].set_xlabel("step")
    return figure


def _read_series(path: Path) -> dict[str, list[tuple[int, float]]]:
    series: dict[str, list[tuple[int, float]]] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as problem:
        raise UserError(f"{path}: {problem.strerror}; expected the metrics.jsonl of a run") from problem
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            step = int(entry["step"])
        except (ValueError, KeyError, TypeError) as problem:
            raise UserError(f"{path}: line {number} is {line[:40]!r}; expected a JSON object with a step") from problem
        for name, value in entry.items():
            if name.startswith(("train/", "val/")) and isinstance(value, int | float) and not isinstance(value, bool):
                series.setdefault(name, []).append((step, float(value)))
    if not series:
        raise UserError(f"{path}: no value of training or validation; expected names such as train/loss and val/loss")
    return series
