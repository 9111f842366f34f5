"""How series on the nodes of a graph are to be read: options that every package with such data shares. Standard
library only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from stcore.errors import UserError

GraphFormat = Literal["auto", "gpd", "table", "pandas", "arrays", "cells", "od", "described"]
BUILT_ADJACENCIES = ("none", "distance", "correlation")
"""Words in the place of an adjacency file: no edges, nearest neighbours by position, most alike series."""


@dataclass(frozen=True, kw_only=True)
class GraphReadOptions:
    """Where series on the nodes of a graph come from and what their files mean."""

    source: tuple[str, ...] = ()
    """Files, folders or names of the catalogue, one for each city."""
    format: GraphFormat = "auto"
    """How a source is read; `auto` goes by its ending or by what a folder holds. `gpd` is a folder with dataset.npy and
    matrix.npy, `pandas` an HDF5 file of a data frame, `cells` a grid whose cells become nodes, `od` a series of
    origin-destination matrices whose zones become nodes, `described` a TOML file of these options for one city."""
    adjacency: str = ""
    """File of the graph (.csv of weights or of edges, .npy, .npz, .pkl), looked for beside the source too; the name of
    an array of an .npz source; or `none`, `distance` (nearest neighbours by coordinates), `correlation` (most alike
    series). Empty takes the one that comes with the source."""
    coordinates: str = ""
    """File of positions (.csv with node, latitude and longitude, or x and y), looked for beside the source too."""
    features: tuple[str, ...] = ()
    """Channels to keep, in order; the first is the one that is forecast. Names of columns, or of arrays of an .npz or
    HDF5 source. Empty keeps all."""
    channels: tuple[str, ...] = ()
    """Names of the channels, where the file has none."""
    units: tuple[str, ...] = ()
    """Units of the channels, one for each or one for all."""
    weights: Literal["auto", "given", "kernel", "binary"] = "auto"
    """What the numbers of edges mean: `given` are weights, `kernel` turns distances into exp(-(d / deviation)²),
    `binary` makes every edge 1; `auto` takes a column called distance, cost or length as distances."""
    cutoff: float = 0.1
    """Weights below this are no edges, where weights are made of distances or correlations."""
    neighbours: int = 8
    """Neighbours of each node, where a graph is built."""
    graph_share: tuple[float, float] = (0.3, 0.7)
    """Stretch of the series, as shares of its length, that a graph of correlations or of flows is made from; by default
    one that lies in the training part of every split."""
    missing: Literal["error", "mask", "fill"] = "error"
    """What to do with readings that are missing: refuse them, keep them as missing, or put `fill` there."""
    missing_value: float | None = None
    """A number that stands for a missing reading in the file, such as 0 or -1."""
    fill: float = 0.0
    """What missing readings become with `missing = fill`."""
    dead: Literal["refuse", "keep", "drop"] = "refuse"
    """What to do with nodes that never change, or have no reading at all."""
    negative: Literal["allow", "missing"] = "allow"
    """What negative values are: values as any other, or missing readings, as -1 in a series of counts."""
    step: str = ""
    """Time from one step to the next, such as `5 minutes`, where the file has no times."""
    start: str = ""
    """Moment of the first step, such as 2012-03-01T00:00, where the file has no times."""
    steps_per_day: int = 0
    """Steps of one day where nights are cut out of the series, such as 108 of 10 minutes from 05:00 to 23:00; 0 means
    that the series runs through the night."""
    weekdays: bool = False
    """The series has no Saturdays and Sundays; the days that `start` and `step` give leave them out."""
    max_bytes: int = 0
    """Largest size in memory of one file; 0 means half of this machine's memory, and for compressed files not more
    than 200 times their size (from 64 MB)."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.cutoff < 1.0:
            raise UserError(f"data.cutoff: {self.cutoff}; expected 0 or more and below 1")
        if self.neighbours < 1:
            raise UserError(f"data.neighbours: {self.neighbours}; expected at least 1")
        low, high = self.graph_share
        if not 0.0 <= low < high <= 1.0:
            raise UserError(f"data.graph-share: {low} {high}; expected two rising shares from 0 to 1")
        if not math.isfinite(self.fill):
            raise UserError(f"data.fill: {self.fill}; expected a finite number")
        if self.missing_value is not None and not math.isfinite(self.missing_value):
            raise UserError(f"data.missing-value: {self.missing_value}; expected a finite number; NaN is missing "
                            "in any case")  # fmt: skip
        if self.steps_per_day < 0:
            raise UserError(f"data.steps-per-day: {self.steps_per_day}; expected 0 (whole days) or more")
        if (self.steps_per_day or self.weekdays) and not (self.start and self.step):
            name = "steps-per-day" if self.steps_per_day else "weekdays"
            raise UserError(f"data.{name}: given without data.start and data.step; expected both; pass --data.start "
                            "2016-02-29T05:00 --data.step '10 minutes'")  # fmt: skip
        if len(set(self.features)) != len(self.features):
            raise UserError(f"data.features: {' '.join(self.features)}; expected different names")
        if self.max_bytes < 0:
            raise UserError(f"data.max-bytes: {self.max_bytes}; expected 0 (half of memory) or more")
