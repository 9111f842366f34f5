"""Pictures of frames: grids of history, truth, forecast and error, animations, errors by lead time, flow fields.

Frames are drawn with the first row at the top. Every function takes arrays of one sample and one channel. matplotlib
and pillow (extra `plot`) are imported when something is drawn. The style is that of `stcore.figures`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from stcore.errors import UserError
from stcore.figures import GREY, ORANGE, RED, SERIES, STYLE
from stcore.figures import _styled as styled  # pyright: ignore[reportPrivateUsage]
from stcore.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import BoundaryNorm, Colormap, ListedColormap, Normalize
    from matplotlib.figure import Figure

DBZ_COLORS = ("#0000F6", "#01A0F6", "#00ECEC", "#01FF00", "#00C800", "#019000", "#FFFF00", "#E7C000", "#FF9000",
              "#FF0000", "#D60000", "#C00000", "#FF00F0", "#780084", "#AD90F0")  # fmt: skip
RAIN_COLORS = ("#A6F28F", "#3DBA3D", "#61B8FF", "#0000E1", "#FA00FA")
RAIN_BOUNDS = (1.0, 1.5, 7.0, 15.0, 40.0, 50.0)
RAIN_ABOVE = "#800040"
ERROR_MAP = "RdBu_r"
"""Diverging, white at no error; red where the forecast is too high."""
_TITLE_WIDTH = 0.085
"""Inches that a letter of a title takes at most, on average."""
_MISSING = 0.78
"""Grey behind errors, seen where data are missing."""


def register_dbz_cmap() -> ListedColormap:
    """Register the 15 steps of radar reflectivity as the colour map `dbz`, and return it."""
    import matplotlib
    from matplotlib.colors import ListedColormap

    found = ListedColormap(DBZ_COLORS, name="dbz")
    matplotlib.colormaps.unregister(found.name)  # else a second call would warn
    matplotlib.colormaps.register(found)
    return found


def register_rain_cmap() -> tuple[Colormap, BoundaryNorm]:
    """Register the colours of rain as the colour map `rain`; return it with the bounds of its steps.

    Below 1 and where data are missing the map is transparent, above 50 it is dark red.
    """
    import matplotlib
    from matplotlib.colors import BoundaryNorm, ListedColormap

    found = ListedColormap(RAIN_COLORS, name="rain").with_extremes(bad="none", under="none", over=RAIN_ABOVE)
    found.colorbar_extend = "max"  # pyright: ignore[reportAttributeAccessIssue]
    matplotlib.colormaps.unregister(found.name)
    matplotlib.colormaps.register(found)
    return found, BoundaryNorm(RAIN_BOUNDS, found.N)


@dataclass(frozen=True, eq=False, kw_only=True)
class FrameStyle:
    """How values become colours and steps become words, the same in grids and animations."""

    cmap: str | Colormap = "gray"
    """Name of a colour map, or one."""
    norm: Normalize | None = None
    """Bounds of a stepped map; by default `value_range` from end to end."""
    value_range: tuple[float, float] | None = None
    """Values of the ends of the map; by default the extremes of what is drawn."""
    unit: str = ""
    """Unit of the values."""
    name: str = "value"
    """What the values are, for the bar of colours."""
    step: float = 1.0
    """Time between frames, in `time_unit`."""
    time_unit: str = ""
    """Unit of `step`, such as min; without one, frames are counted."""

    def label(self, step: int) -> str:
        """Word the time of a step relative to the last frame of the history, which is 0; without its unit."""
        return f"{step * self.step:+.6g}".replace("-", "−") if step else "0"

    @property
    def label_of_times(self) -> str:
        """Unit of the labels of steps."""
        return self.time_unit or "frames"

    @property
    def label_of_values(self) -> str:
        """Name and unit of the values."""
        return f"{self.name} ({self.unit})" if self.unit else self.name


def _scale(style: FrameStyle, drawn: Sequence[Float[ndarray, "frame height width"] | None]) -> Normalize:
    from matplotlib.colors import Normalize

    if style.norm is not None:
        return style.norm
    if style.value_range is not None:
        return Normalize(*style.value_range)
    finite = np.concatenate([part[np.isfinite(part)] for part in drawn if part is not None] or [np.zeros(0)])
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    return Normalize(low, high if high > low else low + 1.0)


def _error_scale(error: Float[ndarray, "frame height width"]) -> Normalize:
    """Centre the scale of errors at 0; the largest 0.5 % of them saturate, so that a few cells do not hide the rest."""
    from matplotlib.colors import Normalize

    size = np.abs(error[np.isfinite(error)])
    top = float(np.quantile(size, 0.995)) if size.size else 0.0
    top = top or (float(size.max()) if size.size else 0.0) or 1.0
    return Normalize(-top, top)


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
    _same_size(history, forecast, truth)
    norm = _scale(style, (history, truth) if truth is not None else (history, forecast))
    ahead = range(1, len(forecast) + 1)
    rows = [_Row(name="history", frames=history, steps=range(1 - len(history), 1), norm=norm, cmap=style.cmap,
                 border=GREY)]  # fmt: skip
    if truth is not None:
        rows.append(_Row(name="truth", frames=truth, steps=ahead, norm=norm, cmap=style.cmap, border=GREY))
    rows.append(_Row(name="forecast", frames=forecast, steps=ahead, norm=norm, cmap=style.cmap, border=ORANGE))
    if truth is not None:
        error = forecast - truth
        rows.append(_Row(name="error", frames=error, steps=ahead, norm=_error_scale(error), cmap=ERROR_MAP,
                         border=ORANGE))  # fmt: skip
    return _draw_rows(rows, style, columns, title)


def _same_size(*parts: ndarray | None) -> None:
    shapes = [part.shape for part in parts if part is not None]
    if any(len(shape) != 3 or 0 in shape or shape[1:] != shapes[0][1:] for shape in shapes):
        raise UserError(f"frames: shapes {', '.join(map(str, shapes))}; expected (frame, height, width) of one size")
    if len(shapes) == 3 and shapes[1][0] != shapes[2][0]:
        raise UserError(f"frames: a forecast of {shapes[1][0]} frames for {shapes[2][0]} that came; "
                        "expected as many")  # fmt: skip


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
    axis.set(xticks=[], yticks=[], facecolor=str(_MISSING) if row.name == "error" else "white")
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
    from matplotlib.ticker import MaxNLocator

    style = style or FrameStyle()
    figure = Figure(figsize=(4.6, 3.3 + 0.17 * -(-len(curves) // 3)), layout="constrained")
    axis = figure.subplots()
    for (name, values), color, marker in zip(curves.items(), SERIES * 2, "osD^vP*X" * 2, strict=False):
        lead = style.step * np.arange(1, len(values) + 1)
        axis.plot(lead, np.asarray(values, dtype=float), color=color, marker=marker, ms=4, label=name)
    better = "lower is better" if lower_is_better else "higher is better"
    axis.set(xlabel=f"lead time ({style.label_of_times})", ylabel=f"{metric}, {better}",
             title=title or f"{metric} by lead time")  # fmt: skip
    if float(style.step).is_integer():
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
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
        axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), aspect=1, xticks=[], yticks=[])
        axis.set_title(f"link {link + 1}", fontsize=8.0, pad=2.5)
        for spine in axis.spines.values():
            spine.set(visible=True, linewidth=0.6)
    figure.suptitle(title, fontsize=STYLE["axes.titlesize"], x=0.01, ha="left")
    return figure


@styled
def save_animation(
    path: str | Path,
    history: Float[ndarray, "time height width"],
    forecast: Float[ndarray, "horizon height width"],
    *,
    truth: Float[ndarray, "horizon height width"] | None = None,
    style: FrameStyle | None = None,
    panel: int = 192,
    milliseconds: int = 250,
) -> Path:
    """Write an animated GIF: the truth, the forecast and its error side by side, forecast frames in an orange border.

    Args:
        path: the file, ending in .gif.
        history: the frames that were known, shown first.
        forecast: the predicted frames.
        truth: what came.
        style: colours, units and time steps.
        panel: width of a panel in pixels, rounded to whole cells.
        milliseconds: how long a frame stays; the last one stays four times as long.

    Raises:
        UserError: another suffix, frames of different sizes, or a folder that cannot be written.
    """
    target = Path(path)
    if target.suffix.lower() != ".gif":
        raise UserError(f"{target}: suffix {target.suffix!r}; expected .gif")
    _same_size(history, forecast, truth)
    pictures = _animation(history, forecast, truth, style or FrameStyle(), panel)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise UserError(f"{target}: {problem.strerror}; expected a folder that can be written") from problem
    stays = [milliseconds] * (len(pictures) - 1) + [4 * milliseconds]
    write_atomically(target, [_encode(pictures, stays)])
    return target


def _animation(
    history: Float[ndarray, "time height width"],
    forecast: Float[ndarray, "horizon height width"],
    truth: Float[ndarray, "horizon height width"] | None,
    style: FrameStyle,
    panel: int,
) -> list[Any]:
    """Draw every picture of the animation, as pillow images."""
    colour = _painter(style.cmap, _scale(style, (history, truth) if truth is not None else (history, forecast)))
    known = [*map(colour, history)]
    rows = [("history", "forecast", known, [*map(colour, forecast)])]
    if truth is not None:
        error = forecast - truth
        wrong = _painter(ERROR_MAP, _error_scale(error), beneath=_MISSING)
        blank = np.full_like(known[0], 255)
        rows = [("truth", "truth", known, [*map(colour, truth)]), *rows,
                ("", "error", [blank] * len(known), [*map(wrong, error)])]  # fmt: skip
    pictures: list[Any] = []
    for step in range(1 - len(history), len(forecast) + 1):
        past = step <= 0
        at = step + len(history) - 1 if past else step - 1
        shown = [
            (before if past else after, (old if past else new)[at], GREY if past or after == "truth" else ORANGE)
            for before, after, old, new in rows
        ]
        pictures.append(_compose(shown, f"{style.label(step)} {style.label_of_times}", panel))
    return pictures


def _painter(
    cmap: Any, norm: Normalize, *, beneath: float = 1.0
) -> Callable[[ndarray], UInt8[ndarray, "height width 3"]]:
    """Make the function from values to colours; where the map is transparent, a grey shines through (1: white)."""
    import matplotlib

    table = matplotlib.colormaps[cmap] if isinstance(cmap, str) else cmap

    def paint(frame: ndarray) -> UInt8[ndarray, "height width 3"]:
        colour = np.asarray(table(norm(np.ma.masked_invalid(frame))), dtype=np.float64)
        alpha = colour[..., 3:]
        return np.rint(255.0 * (alpha * colour[..., :3] + beneath * (1.0 - alpha))).astype(np.uint8)

    return paint


def _compose(shown: Sequence[tuple[str, UInt8[ndarray, "height width 3"], str]], step: str, panel: int) -> Any:
    """Put panels side by side, each under its name and in its border, with the time on the right."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    height, width = shown[0][1].shape[:2]
    zoom = max(1, round(panel / width))
    border, gap, head = 4, 10, 26
    box_w, box_h = zoom * width + 2 * border, zoom * height + 2 * border
    picture = Image.new("RGB", (gap + len(shown) * (box_w + gap), head + box_h + gap), "white")
    pen = ImageDraw.Draw(picture)
    font = ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")), 13)
    for at, (name, pixels, color) in enumerate(shown):
        x = gap + at * (box_w + gap)
        pen.text((x, head - 6), name, fill="black", font=font, anchor="ls")
        pen.rectangle((x, head, x + box_w - 1, head + box_h - 1), fill=color)
        enlarged = Image.fromarray(pixels).resize((zoom * width, zoom * height), Image.Resampling.NEAREST)
        picture.paste(enlarged, (x + border, head + border))
    pen.text((picture.width - gap, head - 6), step, fill="black", font=font, anchor="rs")
    return picture


def _encode(pictures: Sequence[Any], stays: Sequence[int]) -> bytes:
    """Encode with one palette for all pictures, so that colours do not flicker."""
    from PIL import Image

    width, height = pictures[0].size
    sheet = Image.new("RGB", (width, height * len(pictures)))
    for at, picture in enumerate(pictures):
        sheet.paste(picture, (0, at * height))
    palette = sheet.quantize(256, dither=Image.Dither.NONE)
    indexed = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    file = io.BytesIO()
    indexed[0].save(file, format="GIF", save_all=True, append_images=indexed[1:], duration=list(stays), loop=0)
    return file.getvalue()
