"""TaxiBJ: inflow and outflow of taxis on a 32 x 32 grid of Beijing, counts in half hours, 0 to 1292.

Three published forms: the archive `dataset.npz` of windows in [-1, 1]; the yearly files `BJ13_M32x32_T30_InOut.h5` to
`BJ16_…` (ST-ResNet) with raw counts; folders of `example000001.npy`, raw counts of eight frames. All become counts.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stcore.errors import UserError
from stcore.frame_stores import ClipFrames, PickedFrames, join
from stcore.readers.examples import example_files, read_examples
from stcore.readers.frames import list_folder
from stcore.readers.grid_assembly import RawGrid
from stcore.readers.grid_files import ArrayFile, H5File, map_npy, require_grid_file
from stcore.readers.limits import short, shown
from stcore.time_steps import step_of

HIGHEST = 1292.0
"""Largest count of the published data; the scale of every published score."""
CHANNELS = ("inflow", "outflow")
UNIT = "taxis per half hour"
SLOTS = 48
TEST_FRAMES = 28 * SLOTS
"""Frames of the last four weeks, which test; the four weeks before them choose the model."""
_YEARLY = re.compile(r"BJ\d\d_M32x32_T30_InOut\.h5", re.IGNORECASE)


def yearly_files(folder: Path) -> list[Path]:
    """Return the yearly HDF5 files of a folder, in order."""
    return [one for one in list_folder(folder) if _YEARLY.fullmatch(one.name)]


def is_yearly(path: Path) -> bool:
    """Return whether a file is named as one of the yearly ones."""
    return _YEARLY.fullmatch(path.name) is not None


def _named(raw: RawGrid) -> RawGrid:
    return replace(raw, channels=CHANNELS, units=(UNIT,), value_range=(0.0, HIGHEST))


def is_archive(file: ArrayFile) -> bool:
    """Return whether an .npz file holds the windows of TaxiBJ."""
    return {"X_train", "Y_train", "X_test", "Y_test"} <= set(file.headers)


def read_archive(file: ArrayFile) -> dict[str, RawGrid]:
    """Read `X_train`, `Y_train`, `X_test`, `Y_test` (window, time, 2, row, column) in [-1, 1] as clips of counts.

    Raises:
        UserError: shapes do not fit together, or a value is outside [-1, 1].
    """
    loaded = file.load(["X_train", "Y_train", "X_test", "Y_test"])
    return {part: _windows(f"{file.where}: {part}", loaded[f"X_{part}"], loaded[f"Y_{part}"])
            for part in ("train", "test")}  # fmt: skip


def _windows(where: str, past: NDArray[Any], future: NDArray[Any]) -> RawGrid:
    for name, array in (("X", past), ("Y", future)):
        if array.ndim != 5 or array.dtype.kind != "f" or array.shape[2] != 2 or 0 in array.shape:
            raise UserError(
                f"{where}: {name} is {array.dtype} of shape {array.shape}; expected numbers (window, time, 2, row, "
                "column)"
            )
    if past.shape[0] != future.shape[0] or past.shape[2:] != future.shape[2:]:
        raise UserError(f"{where}: X {past.shape} and Y {future.shape}; expected as many windows on the same grid")
    windows, before, after = past.shape[0], past.shape[1], future.shape[1]
    both = join([ClipFrames(past), ClipFrames(future)])
    first = before * np.arange(windows)[:, None] + np.arange(before)
    then = windows * before + after * np.arange(windows)[:, None] + np.arange(after)
    rows = np.concatenate([first, then], axis=1).reshape(-1)
    # The publisher scaled counts by (2 v / highest - 1); this undoes it.
    return _named(
        RawGrid(
            where=where,
            values=PickedFrames(both, rows),
            clip=np.repeat(np.arange(windows, dtype=np.int64), before + after),
            factor=HIGHEST / 2.0,
            offset=HIGHEST / 2.0,
            step=np.timedelta64(30, "m"),
        )
    )


def has_examples(folder: Path) -> bool:
    """Return whether a folder holds sequences in files `example000001.npy`."""
    return bool(example_files(folder, ".npy"))


def read_flow_examples(folder: Path) -> RawGrid:
    """Read `example000001.npy` …, raw counts (8, 2, 32, 32) each, as clips.

    Raises:
        UserError: a file is damaged or of another shape.
    """
    return replace(_named(read_examples(folder, ".npy", _example)), step=np.timedelta64(30, "m"))


def _example(path: Path) -> NDArray[Any]:
    require_grid_file(path)
    array = map_npy(path)
    if array.ndim != 4 or array.shape[1] != 2 or array.dtype.kind not in "iuf" or 0 in array.shape:
        raise UserError(f"{shown(path)}: {array.dtype} of shape {array.shape}; expected counts (time, 2, row, column)")
    return np.asarray(array)


def read_years(paths: list[Path], max_bytes: int) -> dict[str, RawGrid]:
    """Read yearly files; the last four weeks (of frames there are) test, the four before them val.

    Raises:
        UserError: a file lacks `data` or `date`, they do not fit together, or a date does not exist.
    """
    years = [_year(path, max_bytes) for path in paths]
    where = shown(paths[0]) if len(paths) == 1 else f"{shown(paths[0].parent)}: {paths[0].name} to {paths[-1].name}"
    times = np.concatenate([times for _, times in years])
    if len(times) < 3 * TEST_FRAMES:
        whole = RawGrid(where=where, values=join([values for values, _ in years]), times=times)
        return {"": replace(_named(whole), step=np.timedelta64(30, "m"))}
    values = join([values for values, _ in years])
    parts: dict[str, RawGrid] = {}
    month = np.timedelta64(28, "D")
    last = times[-1] + np.timedelta64(30, "m")
    bounds = [times[0], last - 2 * month, last - month, last]
    for name, start, stop in zip(("train", "val", "test"), bounds[:-1], bounds[1:], strict=True):
        rows = np.flatnonzero((times >= start) & (times < stop))
        raw = RawGrid(where=f"{where}: {name}", values=PickedFrames(values, rows), times=times[rows])
        parts[name] = replace(_named(raw), step=np.timedelta64(30, "m"))
    return parts


def _year(path: Path, max_bytes: int) -> tuple[NDArray[Any], NDArray[np.datetime64]]:
    require_grid_file(path)
    file = H5File(path, max_bytes)
    for name in ("data", "date"):
        if name not in file.headers:
            raise UserError(f"{file.where}: no array {name}; expected data and date")
    shape, dtype = file.headers["data"]
    if len(shape) != 4 or shape[1] != 2 or dtype.kind not in "iuf":
        raise UserError(f"{file.where}: data is {dtype} of shape {shape}; expected numbers (time, 2, row, column)")
    if len(file.headers["date"][0]) != 1 or file.headers["date"][0][0] != shape[0]:
        raise UserError(
            f"{file.where}: date of shape {file.headers['date'][0]}; expected ({shape[0]},), one for each frame"
        )
    arrays = file.load(["data", "date"])
    times = _moments(file.where, arrays["date"])
    step = step_of(times, np.zeros(len(times), dtype=np.int64))
    if step is not None and step != np.timedelta64(30, "m"):
        raise UserError(f"{file.where}: most frames are {step} apart; expected half hours")
    return arrays["data"], times


def _moments(where: str, dates: NDArray[Any]) -> NDArray[np.datetime64]:
    """Return the moments of dates such as b"2013070101": the day, and the half hour of it from 01 to 48."""
    moments = np.empty(len(dates), dtype="datetime64[us]")
    for row, date in enumerate(dates):
        text = date.decode("ascii", "replace") if isinstance(date, bytes) else str(date)
        slot = int(text[8:]) if re.fullmatch(r"\d{10}", text) else 0
        try:
            day = np.datetime64(f"{text[:4]}-{text[4:6]}-{text[6:8]}", "us")
        except ValueError:
            slot = 0
            day = np.datetime64("NaT")
        if not 1 <= slot <= SLOTS:
            raise UserError(f"{where}: date {short(text)} at {row}; expected year, month, day, half hour 01 to 48")
        moments[row] = day + (slot - 1) * np.timedelta64(30, "m")
    return moments
