"""How frames are coloured and steps are worded, in grids of frames as in animations; the colour maps of radar and rain.

matplotlib is imported when a map is registered or something is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from stcore.errors import UserError

if TYPE_CHECKING:
    from matplotlib.colors import BoundaryNorm, Colormap, ListedColormap, Normalize

DBZ_COLORS = ("#0000F6", "#01A0F6", "#00ECEC", "#01FF00", "#00C800", "#019000", "#FFFF00", "#E7C000", "#FF9000",
              "#FF0000", "#D60000", "#C00000", "#FF00F0", "#780084", "#AD90F0")  # fmt: skip
RAIN_COLORS = ("#A6F28F", "#3DBA3D", "#61B8FF", "#0000E1", "#FA00FA")
RAIN_BOUNDS = (1.0, 1.5, 7.0, 15.0, 40.0, 50.0)
RAIN_ABOVE = "#800040"
ERROR_MAP = "RdBu_r"
"""Diverging, white at no error; red where the forecast is too high."""
MISSING = 0.78
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

    def moment(self, step: int) -> str:
        """Word the time of a step with its unit, such as −10 min or +1 frame."""
        unit = self.label_of_times
        one = abs(step * self.step) == 1.0 and unit.endswith("s") and len(unit) > 1
        return f"{self.label(step)} {unit.removesuffix('s') if one else unit}"

    @property
    def label_of_times(self) -> str:
        """Unit of the labels of steps."""
        return self.time_unit or "frames"

    @property
    def label_of_values(self) -> str:
        """Name and unit of the values."""
        return f"{self.name} ({self.unit})" if self.unit else self.name


def value_scale(style: FrameStyle, drawn: Sequence[Float[ndarray, "frame height width"] | None]) -> Normalize:
    """Return the scale of colours: that of the style, or from the least to the largest of what is drawn."""
    from matplotlib.colors import Normalize

    if style.norm is not None:
        return style.norm
    if style.value_range is not None:
        return Normalize(*style.value_range)
    finite = np.concatenate([part[np.isfinite(part)] for part in drawn if part is not None] or [np.zeros(0)])
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    return Normalize(low, high if high > low else low + 1.0)


def error_scale(error: Float[ndarray, "frame height width"]) -> Normalize:
    """Centre the scale of errors at 0; the largest 0.5 % of them saturate, so that a few cells do not hide the rest."""
    from matplotlib.colors import Normalize

    size = np.abs(error[np.isfinite(error)])
    top = float(np.quantile(size, 0.995)) if size.size else 0.0
    top = top or (float(size.max()) if size.size else 0.0) or 1.0
    return Normalize(-top, top)


def where_observed(
    forecast: Float[ndarray, "horizon height width"], history: Float[ndarray, "time height width"]
) -> Float[ndarray, "horizon height width"]:
    """Blank the cells that no frame of the history knows, such as land in the temperature of the sea: whatever is
    forecast there means nothing."""
    return np.where(np.isfinite(history).any(axis=0), forecast, np.nan)


def require_same_size(*parts: ndarray | None) -> None:
    """Refuse parts of other sizes: history, forecast and, perhaps, truth.

    Raises:
        UserError: frames differ in size, there are none, or the forecast and the truth differ in number.
    """
    shapes = [part.shape for part in parts if part is not None]
    if any(len(shape) != 3 or 0 in shape or shape[1:] != shapes[0][1:] for shape in shapes):
        raise UserError(f"frames: shapes {', '.join(map(str, shapes))}; expected (frame, height, width) of one size")
    if len(shapes) == 3 and shapes[1][0] != shapes[2][0]:
        raise UserError(f"frames: a forecast of {shapes[1][0]} frames for {shapes[2][0]} that came; "
                        "expected as many")  # fmt: skip
