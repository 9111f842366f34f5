"""Where data sets come from and how they become batches, as frozen dataclasses. Standard library only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from stcore.option_checks import require
from stcore.readers.grid_options import GridReadOptions

StampForm = Literal["auto", "name", "text", "index", "pair", "none"]
STAMP_FORMS = ("auto", "name", "text", "index", "pair", "none")
MOST_AROUND = 12
SLOTS_PER_DAY = 48
"""Slots of a day that the model tells apart (half hours)."""


@runtime_checkable
class SizedModel(Protocol):
    """Whatever says how many frames go in and come out, and how large they are; the model's configuration does."""

    @property
    def T(self) -> int: ...
    @property
    def T_out(self) -> int: ...
    @property
    def H(self) -> int: ...
    @property
    def W(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class WindowShape:
    """Frames that are given and forecast, and the grid that the model works on."""

    history: int = 6
    horizon: int = 6
    height: int = 32
    width: int = 32

    @classmethod
    def of(cls, model: SizedModel) -> WindowShape:
        """Take the sizes of a model's configuration."""
        return cls(history=model.T, horizon=model.T_out, height=model.H, width=model.W)

    @property
    def length(self) -> int:
        """Frames of one window."""
        return self.history + self.horizon


@dataclass(frozen=True, kw_only=True)
class DataConfig(GridReadOptions):
    """Which data sets are forecast, how they are read, and how they become batches."""

    source: tuple[str, ...] = ()
    """Data sets, each one file, folder or name of the catalogue: UniST JSON with its windows and parts, or a series of
    frames that is cut by `split`. Every channel of a series is forecast by itself."""
    stride: int = 1
    """Frames from the start of one window of a series to the start of the next."""
    split: tuple[float, float, float] = (0.7, 0.15, 0.15)
    """Shares of train, val and test of a series; cut in order of time, never at random. UniST files come with parts."""
    timestamps: tuple[str, ...] = ()
    """Form of the timestamps of UniST files: auto (seen from the data), name (by the names of the published files),
    text, index (running half hours), pair (weekday and slot); none leaves them out of every data set. One for all, or
    NAME=FORM for some."""
    slots_per_day: tuple[str, ...] = ()
    """Slots of a day that a UniST file counts, such as 24 of hourly or 288 of five-minute data, turned to the 48 of the
    model; by default as they are. One for all, or NAME=NUMBER for some."""
    resize: Literal["bilinear", "pad"] = "bilinear"
    """How another grid comes to that of the model: stretched (bilinear), or filled up below and to the right with
    cells that count nowhere."""
    scaler_fit: Literal["train", "all"] = "train"
    """Part that lowest and highest value are taken from: training, or everything as the original does (a leak)."""
    anomalies: Literal["none", "day", "week"] = "none"
    """Train on what differs from the usual frame of the time of day, or of weekday and time of day: means of three or
    more frames of the training windows (of fewer: of the time of day, or of all), which forecasts get back."""
    usual: Literal["mean", "median"] = "mean"
    """What the usual frame is: the mean, or the median, which suits counts that mostly are 0 and is learnt with all
    frames in memory."""
    usual_around: int = 0
    """Moments of the data before and after that count for the usual frame of a moment too; more make few days do."""
    usual_pooled: bool = False
    """Draw the usual frame of a weekday towards that of all workdays, or of the weekend, and this one towards that of
    all days, as far as they foretell each other's frames; for means of the moment itself by weekday (`anomalies week`),
    otherwise without effect."""
    constant: Literal["refuse", "span"] = "refuse"
    """What to do with a channel that has one value only: refuse it, or divide by 1."""
    mixing: Literal["concat", "temperature", "balanced", "homogeneous"] = "concat"
    """How data sets share batches: all samples shuffled; data sets drawn by a power of their size; all alike; or every
    batch from one data set."""
    temperature: float = 0.5
    """That power, 0 (all alike) to 1 (by size)."""
    batch: int = 32
    """Samples in a batch, over all processes."""
    batch_rule: Literal["fixed", "adaptive"] = "fixed"
    """`adaptive`: with a single data set less on larger grids, as the original does."""
    cache: str = ""
    """Folder for what was read of UniST files; empty takes the user's cache."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("stride", "batch"):
            require(getattr(self, name) >= 1, f"data.{name}", getattr(self, name), "at least 1")
        good = math.isfinite(self.temperature) and 0.0 <= self.temperature <= 1.0
        require(good, "data.temperature", self.temperature, "a power from 0 to 1")
        require(0 <= self.usual_around <= MOST_AROUND, "data.usual-around", self.usual_around, f"0 to {MOST_AROUND}")
        timed = self.anomalies == "none" or not self.timeless
        require(timed, "data.anomalies", self.anomalies, "none with data.timestamps none")
        for entry in self.timestamps:
            form = entry.rpartition("=")[2]
            require(form in STAMP_FORMS, "data.timestamps", entry, f"FORM or NAME=FORM, of {', '.join(STAMP_FORMS)}")
        for entry in self.slots_per_day:
            number = entry.rpartition("=")[2]
            good = number.isdecimal() and number.isascii() and len(number) < 6 and fits_a_day(int(number))
            expected = f"NUMBER or NAME=NUMBER, a multiple or a divisor of {SLOTS_PER_DAY}"
            require(good, "data.slots-per-day", entry, expected)

    def stamp_form(self, name: str) -> str:
        """Return the form of timestamps of the data set `name`."""
        return _for_name(self.timestamps, name, "auto")

    def slots(self, name: str) -> int:
        """Return the slots of a day that the data set `name` counts."""
        return int(_for_name(self.slots_per_day, name, str(SLOTS_PER_DAY)))

    @property
    def timeless(self) -> bool:
        """Whether models see no timestamps at all."""
        return "none" in self.timestamps


def dataset_name(source: str) -> str:
    """Return what a data set is called: its file without folder, ending and the `_short` or `_long` of UniST.

    >>> dataset_name("Data/TaxiBJ_short.json"), dataset_name("nyc_bike_grid"), dataset_name("/x/flow.v2.npz")
    ('TaxiBJ', 'nyc_bike_grid', 'flow.v2')
    """
    path = Path(source)
    stem = path.stem if path.suffix and len(path.suffix) <= 8 else path.name
    return stem.removesuffix("_short").removesuffix("_long") or stem


def fits_a_day(slots: int) -> bool:
    """Return whether so many slots of a day can be turned to half hours.

    >>> [fits_a_day(count) for count in (24, 48, 288, 96, 0, 100)]
    [True, True, True, True, False, False]
    """
    return slots > 0 and (SLOTS_PER_DAY % slots == 0 or slots % SLOTS_PER_DAY == 0)


def _for_name(entries: tuple[str, ...], name: str, default: str) -> str:
    chosen = default
    for entry in entries:
        whose, given, value = entry.rpartition("=")
        if whose == name:
            return value
        if not given:
            chosen = value
    return chosen
