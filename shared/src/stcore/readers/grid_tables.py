"""Frames from text with a line for each cell and moment, or a line for each moment and a column for each cell.

    time,row,column,inflow,outflow          time,r0c0,r0c1,r1c0,r1c1
    2024-05-01T00:00,0,0,12,7               2024-05-01T00:00,12,3,0,5

Rows and columns are numbers of cells or coordinates (lat, lon, y, x); they are put in rising order. A line that is not
there is a missing cell. Times are moments, or numbers that only say the order of the frames.
"""

from __future__ import annotations

import csv
import re
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stcore.errors import UserError
from stcore.readers import limits
from stcore.readers.grid_assembly import RawGrid
from stcore.readers.grid_options import GridReadOptions
from stcore.readers.grid_times import parse_text
from stcore.readers.limits import short, shown

TABLE_ENDINGS = (".csv", ".tsv")
_TIME = ("time", "timestamp", "datetime", "date", "frame")
_ROW = ("row", "y", "lat", "latitude", "i")
_COLUMN = ("column", "col", "x", "lon", "lng", "longitude", "j")
_CELL = re.compile(r"\D*(\d+)\D+(\d+)\D*")
_MISSING = {"", "na", "n/a", "nan", "null", "none"}
_MEMORY_PER_BYTE = 6
"""Bytes that a byte of text takes while it is read, about."""


def read_grid_table(path: Path, options: GridReadOptions) -> RawGrid:
    """Read frames from a text file with a header line.

    Raises:
        UserError: no such text, a column is missing, a cell is no number or there twice; names the line.
    """
    where, size = shown(path), limits.require_file(path, "frames")
    limits.require_size(path, _MEMORY_PER_BYTE * size, limits.size_limit(options.max_bytes), "the table needs about")
    with limits.open_file(path) as file:
        head = file.read(4096)
    if b"\x00" in head:
        raise UserError(f"{where}: starts with {limits.looks_like(head[:8])}; expected lines of text")
    try:
        with path.open(encoding="utf-8-sig", newline="") as text:
            lines = csv.reader(text, delimiter=_separator(head))
            header = [name.strip() for name in next(lines, [])]
            rows = _checked(lines, len(header), where)
            time = _only(header, _TIME, where)
            if time is None:
                raise UserError(f"{where}: columns {short(', '.join(header))}; expected a header line with time, and "
                                "row and column or a column for each cell")  # fmt: skip
            places = _only(header, _ROW, where), _only(header, _COLUMN, where)
            if places[0] is not None and places[1] is not None:
                return _long(rows, header, time, (places[0], places[1]), options, where)
            return _wide(rows, header, time, where)
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: byte {error.start} is not UTF-8; expected text in UTF-8") from error
    except csv.Error as error:
        raise UserError(f"{where}: {error}; expected lines of text") from error


def _separator(head: bytes) -> str:
    first = head.decode("utf-8", "replace").partition("\n")[0]
    return max(",;\t", key=first.count)


def _only(header: Sequence[str], names: Sequence[str], where: str) -> int | None:
    hits = [at for at, name in enumerate(header) if name.lower() in names]
    if len(hits) > 1:
        raise UserError(f"{where}: columns {header[hits[0]]} and {header[hits[1]]}; expected one of them")
    return hits[0] if hits else None


def _checked(lines: Iterator[list[str]], width: int, where: str) -> Iterator[tuple[int, list[str]]]:
    """Yield lines with their numbers, the header being the first; empty lines are passed over."""
    for number, line in enumerate(lines, 2):
        if not line:
            continue
        if len(line) != width:
            raise UserError(f"{where}: line {number} has {len(line)} cells; expected {width} as the header")
        yield number, line


def _number(text: str, name: str, where: str, line: int, *, missing: bool = True) -> float:
    try:
        return float(text)
    except ValueError:
        if missing and text.strip().lower() in _MISSING:
            return float("nan")
        raise UserError(f"{where}: line {line}, column {name}: {short(text)}; expected a number") from None


def _long(
    rows: Iterator[tuple[int, list[str]]], header: list[str], time: int, places: tuple[int, int],
    options: GridReadOptions, where: str,
) -> RawGrid:  # fmt: skip
    """Read a line for each cell and moment."""
    names = [name for at, name in enumerate(header) if at not in (time, *places)]
    for name in options.variable:
        if name not in names:
            raise UserError(f"{where}: no column {short(name)} among {short(', '.join(names))}; expected it, as "
                            "--data.variable says")  # fmt: skip
    chosen = list(options.variable) or names
    if not chosen:
        raise UserError(f"{where}: columns {short(', '.join(header))}; expected one with values beside time, row and "
                        "column")  # fmt: skip
    wanted = [header.index(name) for name in chosen]
    moments: dict[str, int] = {}
    frames, values, lines = array("q"), array("d"), array("q")
    cells = (array("d"), array("d"))
    for number, line in rows:
        frames.append(moments.setdefault(line[time].strip(), len(moments)))
        lines.append(number)
        for cell, at in zip(cells, places, strict=True):
            place = _number(line[at], header[at], where, number, missing=False)
            if not np.isfinite(place):
                raise UserError(f"{where}: line {number}, column {header[at]}: {line[at]}; expected a finite number")
            cell.append(place)
        values.extend(_number(line[at], header[at], where, number) for at in wanted)
    if not len(frames):
        raise UserError(f"{where}: a header line only; expected cells")
    order, times = _moments(list(moments), where)
    axes = [np.unique(np.frombuffer(cell, dtype=np.float64), return_inverse=True) for cell in cells]
    (y, row), (x, column) = axes
    shape = (len(moments), len(chosen), len(y), len(x))
    needed = 4 * int(np.prod(shape, dtype=np.float64))
    if needed > limits.size_limit(options.max_bytes):
        raise UserError(f"{where}: {len(y):,} rows by {len(x):,} columns need {needed:,} bytes; expected coordinates "
                        "of a grid, alike in all frames; pass --data.max-bytes if this is right")  # fmt: skip
    frame = order[np.frombuffer(frames, dtype=np.int64)]
    flat = (frame * len(y) + row) * len(x) + column
    _require_once(flat, np.frombuffer(lines, dtype=np.int64), where)
    grid = np.full((shape[0] * shape[2] * shape[3], shape[1]), np.nan, dtype=np.float64)
    grid[flat] = np.frombuffer(values, dtype=np.float64).reshape(-1, shape[1])
    frames_first = np.moveaxis(grid.reshape(shape[0], shape[2], shape[3], shape[1]), 3, 1)
    named = {"y": header[places[0]].lower(), "x": header[places[1]].lower()}
    return RawGrid(where=where, values=_single(frames_first), times=times, channels=tuple(chosen), y=y, x=x,
                   names={axis: name for axis, name in named.items() if name.startswith(("lat", "lon"))})  # fmt: skip


def _require_once(flat: NDArray[np.int64], lines: NDArray[np.int64], where: str) -> None:
    order = np.argsort(flat, kind="stable")
    twice = np.flatnonzero(np.diff(flat[order]) == 0)
    if len(twice):
        first, second = lines[order[twice[0]]], lines[order[twice[0] + 1]]
        raise UserError(f"{where}: line {second}: the cell of line {first} again; expected each cell once a moment")


def _wide(rows: Iterator[tuple[int, list[str]]], header: list[str], time: int, where: str) -> RawGrid:
    """Read a line for each moment."""
    others = [at for at in range(len(header)) if at != time]
    matches = [_CELL.fullmatch(header[at]) for at in others]
    for at, match in zip(others, matches, strict=True):
        if match is None:
            raise UserError(f"{where}: column {short(header[at])}; expected row and column as columns, or names of "
                            "cells such as r3c5")  # fmt: skip
    cells = [(int(match[1]), int(match[2])) for match in matches if match]
    low = np.array(cells).min(axis=0) if cells else np.zeros(2, np.int64)
    height, width = np.array(cells).max(axis=0) - low + 1 if cells else (0, 0)
    if len(set(cells)) != len(cells) or len(cells) != height * width:
        raise UserError(f"{where}: {len(set(cells))} different cells in {len(cells)} columns; expected one for each of "
                        f"{height} x {width}")  # fmt: skip
    place = [(row - low[0]) * width + column - low[1] for row, column in cells]
    moments: dict[str, int] = {}
    values = array("d")
    for number, line in rows:
        if line[time].strip() in moments:
            raise UserError(f"{where}: line {number}: time {short(line[time])} again; expected each once")
        moments[line[time].strip()] = len(moments)
        values.extend(_number(line[at], header[at], where, number) for at in others)
    if not moments:
        raise UserError(f"{where}: a header line only; expected frames")
    order, times = _moments(list(moments), where)
    found = np.empty((len(moments), height * width))
    found[np.ix_(order, np.array(place))] = np.frombuffer(values, dtype=np.float64).reshape(len(moments), -1)
    return RawGrid(where=where, values=_single(found.reshape(-1, 1, height, width)), times=times)


def _moments(texts: list[str], where: str) -> tuple[NDArray[np.int64], NDArray[np.datetime64] | None]:
    """Return the frame of each moment as it comes, and the moments in order; none where they are numbers."""
    times: NDArray[np.datetime64] | None = None
    try:
        keys: Any = np.array([float(text) for text in texts])
    except ValueError:
        keys = times = parse_text(f"{where}: time", texts)
    if times is None and not np.isfinite(keys).all():
        lost = texts[int(np.argmin(np.isfinite(keys)))]
        raise UserError(f"{where}: time {short(lost)}; expected a finite number or a moment")
    order = np.argsort(keys, kind="stable")
    back = np.empty(len(order), dtype=np.int64)
    back[order] = np.arange(len(order))
    return back, None if times is None else times[order]


def _single(values: NDArray[np.float64]) -> NDArray[Any]:
    """Return values as float32 where all fit; larger ones are named when they are looked at."""
    largest = np.abs(values[np.isfinite(values)]).max(initial=0.0)
    return np.ascontiguousarray(values, dtype=np.float32 if largest <= np.finfo(np.float32).max else np.float64)
