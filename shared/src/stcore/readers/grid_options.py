"""How fields on a grid are to be read: options that every package with such data shares. Standard library only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from stcore.errors import UserError

GridFormat = Literal[
    "auto", "array", "frames", "video", "netcdf", "zarr", "described", "moving-mnist", "kth", "kth-examples", "taxibj",
    "weatherbench", "human36m", "kitti-caltech",
]  # fmt: skip
LAYOUT_LETTERS = "NTCHW"


@dataclass(frozen=True, kw_only=True)
class GridReadOptions:
    """Where fields on a grid come from and what the axes and values of their files mean."""

    source: tuple[str, ...] = ()
    """Files, folders or names of the catalogue: one (split by `split`, or a folder with a train, val and test
    part) or three (train, val, test)."""
    format: GridFormat = "auto"
    """How the source is read; `auto` goes by its ending, or by what a folder holds."""
    layout: str = ""
    """Axes of an array in order, of the letters N (clip), T (time), C (channel), H (height), W (width), such as
    TCHW; empty infers them where only one order is possible."""
    key: tuple[str, ...] = ()
    """Arrays of an .npz or HDF5 file to read; several of them are clips. Empty takes the only one that can be meant."""
    variable: tuple[str, ...] = ()
    """Variables of a netCDF or Zarr file to read, as channels; empty takes all that lie on the same grid. Of
    WeatherBench: one of its sets (t2m, r, uv10, tcc, mv, mv5, hmv), or keys such as t2m u10 z."""
    levels: tuple[float, ...] = ()
    """Levels to read of variables that have any, such as 500 850; empty takes all, or those of the set."""
    years: tuple[int, ...] = ()
    """First and last year of train, val and test, such as 2010 2015 2016 2016 2017 2018, of WeatherBench; empty takes
    those of the set."""
    protocol: Literal["strict", "paper"] = "strict"
    """`paper` cuts published sets as the published scores did, validation on the test part included."""
    channels: tuple[str, ...] = ()
    """Names of the channels, where the file has none."""
    units: tuple[str, ...] = ()
    """Units of the channels, one for each or one for all, where the file has none."""
    value_range: tuple[float, float] | None = None
    """Lowest and highest value there can be, such as 0 255; a value outside is refused."""
    missing: Literal["error", "mask", "fill"] = "error"
    """What to do with cells that are not finite: refuse them, keep them as missing, or put `fill` there."""
    missing_value: float | None = None
    """A number that stands for a missing cell in the file, such as -32768."""
    fill: float = 0.0
    """What missing cells become with `missing = fill`."""
    factor: float = 1.0
    """Number that the values of the file are multiplied by, such as 0.01 for hundredths."""
    offset: float = 0.0
    """Number that is added after that."""
    step: str = ""
    """Time from one frame to the next, such as `30 minutes`, where the file has no times."""
    start: str = ""
    """Moment of the first frame, such as 2019-03-01T00:00, where the file has no times."""
    calendar: Literal["refuse", "ignore"] = "refuse"
    """What to do with moments of a calendar that is not the usual one: refuse them, or read frames without times."""
    order: Literal["file", "common"] = "file"
    """Order of rows and columns; `common` turns degrees so that latitude rises and longitudes join without a jump."""
    cuts: tuple[int, ...] = ()
    """Frames, from 0, at which a new clip begins in a single long one, such as the cuts of a film."""
    color: Literal["auto", "gray", "rgb"] = "auto"
    """Channels of images and videos; `auto` keeps those of the files."""
    size: tuple[int, int] | None = None
    """Height and width that images and videos are resized to (bilinear)."""
    split: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """Shares of train, val and test when one source holds everything; cut in order, never at random."""
    split_by: Literal["auto", "time", "clip"] = "auto"
    """Cut every clip along time, or keep clips whole; `auto` keeps them whole where there are three or more."""
    max_bytes: int = 0
    """Largest size in memory of one file; 0 means half of this machine's memory, and for compressed files not more
    than 200 times their size (from 64 MB)."""

    def __post_init__(self) -> None:
        self._check_split()
        self._check_layout()
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise UserError(f"data.value-range: {self.value_range}; expected the lower bound first, then the higher")
        for name in ("factor", "offset", "fill"):
            value: float = getattr(self, name)
            if not math.isfinite(value) or (name == "factor" and value == 0.0):
                raise UserError(f"data.{name}: {value}; expected a finite number{' but 0' if name == 'factor' else ''}")
        if self.size is not None and min(self.size) < 1:
            raise UserError(f"data.size: {self.size}; expected a height and a width of at least 1")
        if self.years and (len(self.years) != 6 or list(self.years[::2]) > list(self.years[1::2])):
            raise UserError(f"data.years: {self.years}; expected the first and last year of train, val and test")
        if any(cut < 1 for cut in self.cuts) or sorted(set(self.cuts)) != list(self.cuts):
            raise UserError(f"data.cuts: {self.cuts}; expected rising numbers of frames from 1 on")
        if self.max_bytes < 0:
            raise UserError(f"data.max-bytes: {self.max_bytes}; expected 0 (half of memory) or more")

    def _check_split(self) -> None:
        if any(share < 0.0 for share in self.split) or not 0.999 < sum(self.split) < 1.001 or self.split[0] <= 0.0:
            raise UserError(f"data.split: {self.split}; expected three shares that sum to 1, the first above 0")

    def _check_layout(self) -> None:
        letters = self.layout.upper()
        if not self.layout:
            return
        if (
            set(letters) - set(LAYOUT_LETTERS)
            or len(set(letters)) != len(letters)
            or not {"T", "H", "W"} <= set(letters)
        ):
            raise UserError(
                f"data.layout: {self.layout[:20]!r}; expected each of T, H, W once and perhaps N, C, such as TCHW"
            )
