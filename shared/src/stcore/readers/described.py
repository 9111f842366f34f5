"""Anyone's own arrays, told in a few lines of TOML what they are.

    values = "fields.npy"              # or several, one after another in time
    layout = "TCHW"                    # letters of N (clip), T (time), C (channel), H (height), W (width)
    channels = ["t2m", "tcc"]
    units = ["K", "1"]
    start = "2019-03-01T00:00"         # and step; or times = "times.npy", or a list of moments
    step = "1 hour"
    latitude = { first = 58.0, last = 50.0 }    # or a list, or "lat.npy"; y and x where they are no degrees
    longitude = { first = -10.0, last = 2.0 }
    missing_value = -9999.0            # what stands for a missing cell
    mask = "land.npy"                  # True where there is data
    value_range = [180.0, 340.0]

Everything but `values` may be left out. Paths are relative to the file. Arrays are mapped, never loaded.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stcore.errors import UserError
from stcore.frame_stores import ScaledFrames, join
from stcore.readers import limits
from stcore.readers.grid_arrays import clips_of
from stcore.readers.grid_assembly import RawGrid
from stcore.readers.grid_files import map_npy, require_grid_file
from stcore.readers.grid_layout import with_layout
from stcore.readers.grid_options import GridReadOptions
from stcore.readers.grid_times import parse_step, parse_text, parse_times, regular_times
from stcore.readers.limits import short, shown

KEYS = ("values", "layout", "channels", "units", "start", "step", "times", "latitude", "longitude", "y", "x",
        "missing_value", "mask", "value_range")  # fmt: skip
_MAX_BYTES = 10 * 2**20


@dataclass(frozen=True)
class _Description:
    where: str
    folder: Path
    entries: dict[str, Any]

    def take(self, key: str, kinds: tuple[type, ...], expected: str) -> Any:
        """Return an entry if it is of a kind, None where there is none."""
        value = self.entries.get(key)
        if value is not None and (not isinstance(value, kinds) or isinstance(value, bool)):
            raise self.wrong(key, value, expected)
        return value

    def words(self, key: str) -> tuple[str, ...]:
        """Return an entry of one word or several."""
        value = self.take(key, (str, list), "a word, or a list of words")
        listed = [value] if isinstance(value, str) else value or []
        if lost := [one for one in listed if not isinstance(one, str)]:
            raise self.wrong(key, lost[0], "a word, or a list of words")
        return tuple(listed)

    def wrong(self, key: str, value: object, expected: str) -> UserError:
        return UserError(f"{self.where}: {key} is {short(value)}; expected {expected}")

    def array(self, name: str) -> NDArray[Any]:
        """Map an array that lies beside the file."""
        path = self.folder / name
        if path.suffix.lower() != ".npy":
            raise UserError(f"{self.where}: {short(name)}; expected an .npy file; netCDF, Zarr, .npz and HDF5 are read "
                            "as they are, without a description")  # fmt: skip
        require_grid_file(path)
        return map_npy(path)


def read_described(path: Path, options: GridReadOptions) -> RawGrid:
    """Read the arrays that a TOML file describes; options of the command line come after what it says.

    Raises:
        UserError: the file is no TOML, has an unknown entry, or does not fit its arrays.
    """
    told = _Description(shown(path), path.parent, _parsed(path))
    files = told.words("values")
    if not files:
        raise UserError(f"{told.where}: no entry 'values'; expected the name of an .npy file")
    layout = options.layout or (told.take("layout", (str,), "letters such as TCHW") or "")
    if layout:
        GridReadOptions(layout=layout)  # says what is wrong with it
    pieces = [with_layout(f"{told.where}: {name}", told.array(name), layout) for name in files]
    for name, (piece, _) in zip(files, pieces, strict=True):
        if piece.shape[1:] != pieces[0][0].shape[1:]:
            raise UserError(f"{told.where}: {name} has frames {piece.shape[1:]}; expected {pieces[0][0].shape[1:]} as "
                            f"{files[0]}")  # fmt: skip
    clips = pieces[0][1]
    if len(pieces) > 1 and clips > 1:
        raise UserError(f"{told.where}: {len(files)} files with clips in each; expected one file, or files without N")
    values = join([piece for piece, _ in pieces])
    missing = told.take("missing_value", (int, float), "a number")
    count, channels, height, width = values.shape
    step, start = told.take("step", (str,), "text such as '1 hour'"), told.take("start", (str,), "a moment as text")
    return RawGrid(
        where=told.where,
        values=values if missing is None else ScaledFrames(values, 1.0, 0.0, float(missing)),
        **clips_of(count, clips),
        times=_times(told, count, start, step),
        channels=_named(told, "channels", channels),
        units=_named(told, "units", channels),
        y=_coordinate(told, ("latitude", "y"), height),
        x=_coordinate(told, ("longitude", "x"), width),
        mask=_mask(told),
        value_range=_range(told),
        step=parse_step(step) if step else None,
        names={axis: name for axis, name in (("y", "latitude"), ("x", "longitude")) if name in told.entries},
    )


def _parsed(path: Path) -> dict[str, Any]:
    require_grid_file(path, "a description")
    limits.require_size(path, path.stat().st_size, _MAX_BYTES, "has")
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"{shown(path)}: no text in UTF-8; expected TOML") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UserError(f"{shown(path)}: {limits.one_line(error)}; expected TOML") from error
    if unknown := [key for key in entries if key not in KEYS]:
        raise UserError(f"{shown(path)}: unknown entry {short(unknown[0])}; expected {', '.join(KEYS)}")
    return entries


def _named(told: _Description, key: str, channels: int) -> tuple[str, ...]:
    words = told.words(key)
    if words and len(words) not in ((channels,) if key == "channels" else (1, channels)):
        raise UserError(f"{told.where}: {len(words)} {key}; expected {channels}, one for each channel of the values")
    return words


def _times(told: _Description, count: int, start: str | None, step: str | None) -> NDArray[np.datetime64] | None:
    given = told.take("times", (str, list), "the name of an .npy file, or a list of moments")
    if given is not None and (start or step):
        raise UserError(f"{told.where}: times beside start or step; expected one or the other")
    if isinstance(given, str):
        found = parse_times(told.where, given, told.array(given))
        if found is None:
            raise UserError(f"{told.where}: {short(given)} holds no moments; expected datetime64, or text such as "
                            "2024-05-01T12:30")  # fmt: skip
    elif given is not None:
        found = parse_text(f"{told.where}: times", [str(one) for one in given])
    elif start:
        if not step:
            raise UserError(f'{told.where}: start without step; expected both, such as step = "1 hour"')
        return regular_times(start, parse_step(step), count)
    else:
        return None
    if found.shape != (count,):
        raise UserError(f"{told.where}: {found.size} times; expected {count}, one for each frame of the values")
    return found


def _coordinate(told: _Description, names: tuple[str, str], size: int) -> NDArray[np.float64] | None:
    given = [name for name in names if name in told.entries]
    if len(given) > 1:
        raise UserError(f"{told.where}: {names[0]} and {names[1]}; expected one of them")
    if not given:
        return None
    kinds = "a list of numbers, {first, last}, or the name of an .npy file"
    value = told.take(given[0], (list, dict, str), kinds)
    read: dict[type, Callable[[Any], Any]] = {
        list: lambda numbers: np.array(numbers, dtype=np.float64),
        dict: lambda ends: np.linspace(float(ends["first"]), float(ends["last"]), size),
        str: lambda name: np.asarray(told.array(name), dtype=np.float64),
    }
    try:
        found = read[type(value)](value)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise told.wrong(given[0], value, kinds) from error
    if found.shape != (size,):
        raise UserError(f"{told.where}: {given[0]} of shape {found.shape}; expected ({size},) as the values have")
    return found


def _mask(told: _Description) -> NDArray[np.bool_] | None:
    name = told.take("mask", (str,), "the name of an .npy file")
    return None if name is None else np.asarray(told.array(name))


def _range(told: _Description) -> tuple[float, float] | None:
    bounds = told.take("value_range", (list,), "two numbers")
    if bounds is None:
        return None
    if len(bounds) != 2 or any(isinstance(one, bool) or not isinstance(one, int | float) for one in bounds):
        raise told.wrong("value_range", bounds, "two numbers")
    return float(bounds[0]), float(bounds[1])
