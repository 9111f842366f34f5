"""Animations of frames: truth, forecast and error side by side. pillow and matplotlib (extra `plot`) come late."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from stcore.errors import UserError
from stcore.figures import GREY, ORANGE, styled
from stcore.files import write_atomically
from stcore.frame_style import (
    ERROR_MAP,
    MISSING,
    FrameStyle,
    error_scale,
    require_same_size,
    value_scale,
    where_observed,
)

if TYPE_CHECKING:
    from matplotlib.colors import Normalize


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
    require_same_size(history, forecast, truth)
    pictures = _animation(history, where_observed(forecast, history), truth, style or FrameStyle(), panel)
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
    colour = _painter(style.cmap, value_scale(style, (history, truth) if truth is not None else (history, forecast)))
    known = [*map(colour, history)]
    rows = [("history", "forecast", known, [*map(colour, forecast)])]
    if truth is not None:
        error = forecast - truth
        wrong = _painter(ERROR_MAP, error_scale(error), beneath=MISSING)
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
        pictures.append(_compose(shown, style.moment(step), panel))
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
    """Put panels side by side, each under its name and in its border, with the time on the right; those without a name
    are left out."""
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
        if not name:
            continue
        x = gap + at * (box_w + gap)
        pen.text((x, head - 6), name, fill="black", font=font, anchor="ls")
        pen.rectangle((x, head, x + box_w - 1, head + box_h - 1), fill=color)
        enlarged = Image.fromarray(pixels).resize((zoom * width, zoom * height), Image.Resampling.NEAREST)
        picture.paste(enlarged, (x + border, head + border))
    pen.text((picture.width - gap, head - 6), step, fill="black", font=font, anchor="rs")
    return picture


def _encode(pictures: Sequence[Any], stays: Sequence[int]) -> bytes:
    """Encode with one palette for all pictures, so that colours do not flicker, with pure black and white in it."""
    from PIL import Image

    width, height = pictures[0].size
    sheet = Image.new("RGB", (width, height * len(pictures)))
    for at, picture in enumerate(pictures):
        sheet.paste(picture, (0, at * height))
    palette = sheet.quantize(254, dither=Image.Dither.NONE)
    colors = [*(palette.getpalette() or []), *[0] * 762][:762] + [0] * 3 + [255] * 3
    palette.putpalette(colors)

    def indexed(picture: Any) -> Any:
        numbers = np.array(picture.quantize(palette=palette, dither=Image.Dither.NONE))
        for number, pure in ((254, 0), (255, 255)):  # where the search for the nearest colour is a little off
            numbers[(np.asarray(picture) == pure).all(axis=2)] = number
        image = Image.fromarray(numbers)
        image.putpalette(colors)
        return image

    first, *others = map(indexed, pictures)
    file = io.BytesIO()
    first.save(file, format="GIF", save_all=True, append_images=others, duration=list(stays), loop=0)
    return file.getvalue()
