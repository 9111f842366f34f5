"""Panels side by side with one scale: maps of weights, and tables of weights with their numbers.

Arrays in, figure out, in the style of `stcore.figures`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from stcore.figures import STYLE, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def weight_maps(
    fields: Mapping[str, Float[ndarray, "height width"]], *, title: str, label: str = "mean weight", cmap: str = "Blues"
) -> Figure:
    """Draw one map for each name, all with one scale from 0; the name of each says its mean as a share.

    Args:
        fields: weights of cells, by name.
        title: the title.
        label: what the colours are.
        cmap: name of a colour map.
    """
    from matplotlib.figure import Figure

    height, width = next(iter(fields.values())).shape
    side = 1.55 * min(1.0, width / height)
    figure = Figure(figsize=(len(fields) * side + 1.4, side * height / width + 0.9), layout="compressed")
    axes = np.atleast_1d(figure.subplots(1, len(fields)))
    top = max(max(float(field.max()) for field in fields.values()), 1e-6)
    shown: Any = None
    for axis, (name, field) in zip(axes, fields.items(), strict=True):
        shown = axis.imshow(field, cmap=cmap, vmin=0.0, vmax=top)
        axis.set(xticks=[], yticks=[])
        axis.set_title(f"{name}, {100.0 * float(field.mean()):.0f} %", fontsize=8.0, loc="center")
    figure.colorbar(shown, ax=list(axes), label=label, shrink=0.9)
    figure.suptitle(title, fontsize=STYLE["axes.titlesize"], x=0.01, ha="left")
    return figure


@styled
def weight_tables(
    tables: Mapping[str, Float[ndarray, "row column"]],
    *,
    title: str,
    rows: str,
    columns: str,
    label: str,
    cmap: str = "YlOrRd",
) -> Figure:
    """Draw one heat map for each name, all with one scale from 0, each cell with its number.

    Args:
        tables: weights, by name, all of one size.
        title: the title.
        rows: what the rows are.
        columns: what the columns are.
        label: what the colours are.
        cmap: name of a colour map.
    """
    from matplotlib.figure import Figure

    down, across = next(iter(tables.values())).shape
    panel = max(1.35, 0.42 * across), max(1.2, 0.34 * down)
    figure = Figure(figsize=(len(tables) * (panel[0] + 0.3) + 1.3, panel[1] + 1.0), layout="compressed")
    axes = np.atleast_1d(figure.subplots(1, len(tables), sharey=True))
    top = max(max(float(table.max()) for table in tables.values()), 1e-6)
    shown: Any = None
    for axis, (name, table) in zip(axes, tables.items(), strict=True):
        shown = axis.imshow(table, cmap=cmap, vmin=0.0, vmax=top, aspect="auto")
        axis.set(xlabel=columns, xticks=range(across), yticks=range(down))
        axis.set_title(name, fontsize=8.0, loc="center")
        for spine in axis.spines.values():
            spine.set_visible(True)
        for (row, column), value in np.ndenumerate(table):
            axis.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7.0,
                      color="white" if value > 0.6 * top else "black")  # fmt: skip
    axes[0].set_ylabel(rows)
    figure.colorbar(shown, ax=list(axes), label=label)
    figure.suptitle(title, fontsize=STYLE["axes.titlesize"], x=0.01, ha="left")
    return figure
