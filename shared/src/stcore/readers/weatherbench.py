"""WeatherBench: reanalysis on a global grid of 5.625, 2.8125 or 1.40625 degrees, a folder for each variable.

Layout of the publisher: `2m_temperature/2m_temperature_1979_5.625deg.nc` and so on, hourly, a file for each year;
variables with levels have axes (time, level, lat, lon). The folders lie in the one that is named, or in one inside it
called `weather_5_625deg` or `weather`, as OpenSTL has it. Instead of netCDF files there may be Zarr stores, one for
each variable or one for all. Nothing but coordinates is loaded: frames are read when they are asked for.

Protocols: `strict` trains, validates and tests on years of their own, frames of sets with a step of 6 hours are 6 hours
apart. `paper` is how published scores came about (OpenSTL, `openstl/datasets/dataloader_weather.py`): validation on the
test years, the last frame and the last window of a part dropped, every part scaled by its own mean and deviation, and
offsets of the 6-hourly sets counted in hours but applied to frames 6 hours apart.

Source: Rasp et al., "WeatherBench: A Benchmark Data Set for Data-Driven Weather Forecasting", JAMES 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stcore.errors import UserError
from stcore.frame_stores import StackedFrames, join, pick
from stcore.readers.frames import list_folder
from stcore.readers.grid_assembly import RawGrid
from stcore.readers.grid_options import GridReadOptions
from stcore.readers.limits import shown
from stcore.readers.netcdf import XarrayFrames, is_zarr, read_netcdf, read_zarr

FOLDERS = {
    "u10": "10m_u_component_of_wind",
    "v10": "10m_v_component_of_wind",
    "t2m": "2m_temperature",
    "tisr": "toa_incident_solar_radiation",
    "tcc": "total_cloud_cover",
    "tp": "total_precipitation",
    "z": "geopotential",
    "pv": "potential_vorticity",
    "r": "relative_humidity",
    "q": "specific_humidity",
    "t": "temperature",
    "u": "u_component_of_wind",
    "v": "v_component_of_wind",
    "vo": "vorticity",
}
"""Folder of each variable, by its key; those from `z` on have levels."""
LEVELS = (50.0, 100.0, 150.0, 200.0, 250.0, 300.0, 400.0, 500.0, 600.0, 700.0, 850.0, 925.0, 1000.0)
"""Levels of the publisher in hectopascal."""
PLACES = ("weather_5_625deg", "weather_2_8125deg", "weather_1_40625deg", "weather")
LOOK_BYTES = 2**26
"""Bytes that are looked at before work starts; a store made of the data was looked at as a whole."""
_ENDINGS = (".nc", ".nc4", ".netcdf")
_HOUR = np.timedelta64(1, "h")


@dataclass(frozen=True, kw_only=True)
class WeatherSet:
    """What a set of OpenSTL is made of."""

    variables: tuple[str, ...]
    levels: tuple[float, ...] = ()
    years: tuple[int, ...] = (2010, 2015, 2016, 2016, 2017, 2018)
    """First and last year of train, val and test."""
    hours: int = 1
    """Hours from one frame to the next."""
    history: int = 12
    horizon: int = 12

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels, variable after variable."""
        return tuple(
            name
            for key in self.variables
            for name in ([f"{key}_{level:g}" for level in self.levels] if has_levels(key) else [key])
        )

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups that published scores are means over; none where the set is scored as a whole."""
        if self.hours == 1:
            return ()
        return self.variables if all(map(has_levels, self.variables)) else self.channels

    @property
    def paper_inputs(self) -> tuple[int, ...]:
        """Frames of the history as published, relative to its last: hours for hourly sets."""
        return tuple(range(1 - self.history, 1)) if self.hours == 1 else (-17, -11, -5, 0)

    @property
    def paper_outputs(self) -> tuple[int, ...]:
        """Frames that are to be told as published."""
        return tuple(1 + (1 if self.hours == 1 else 6) * lead for lead in range(self.horizon))


_SIX_HOURLY: dict[str, Any] = {"hours": 6, "history": 4, "horizon": 4}
_THREE = (150.0, 500.0, 850.0)
SETS: dict[str, WeatherSet] = {
    "r": WeatherSet(variables=("r",), levels=(1000.0,)),
    "uv10": WeatherSet(variables=("u10", "v10")),
    "mv": WeatherSet(variables=("r", "t", "u", "v"), levels=_THREE, years=(1979, 2015, 2016, 2016, 2017, 2018),
                     **_SIX_HOURLY),
    "mv5": WeatherSet(variables=("z", "r", "t", "u", "v"), levels=_THREE, years=(1979, 2015, 2016, 2016, 2017, 2018),
                      **_SIX_HOURLY),
    "hmv": WeatherSet(variables=("z", "pv", "r", "q", "t", "u", "v", "vo", "u10", "v10", "t2m", "tisr", "tcc", "tp"),
                      levels=LEVELS, years=(1980, 2015, 2016, 2016, 2017, 2018), **_SIX_HOURLY),
} | {key: WeatherSet(variables=(key,)) for key in ("t2m", "tcc")}  # fmt: skip
"""The sets of OpenSTL by what `data.variable` calls them."""


def has_levels(key: str) -> bool:
    """Return whether a variable has levels."""
    return list(FOLDERS).index(key) >= list(FOLDERS).index("z")


def weather_set(options: GridReadOptions) -> WeatherSet:
    """Return what is to be read: a set, or variables of one's own choice, hourly.

    Raises:
        UserError: nothing is chosen, or there is no such variable.
    """
    chosen = options.variable
    if len(chosen) == 1 and chosen[0] in SETS:
        found = SETS[chosen[0]]
    elif chosen and all(name in FOLDERS for name in chosen):
        found = WeatherSet(variables=chosen, levels=LEVELS)
    else:
        wrong = next((name for name in chosen if name not in FOLDERS), "nothing")
        raise UserError(f"data.variable: {wrong!r:.60}; expected a set of WeatherBench ({', '.join(SETS)}) or keys of "
                        f"{', '.join(FOLDERS)}")  # fmt: skip
    return replace(found, levels=options.levels or found.levels, years=options.years or found.years)


def place_of(folder: Path) -> Path | None:
    """Return the folder that holds the variables: this one, or a single one in it with a known name.

    Raises:
        UserError: there are several.
    """
    if _holds_variables(folder):
        return folder
    inside = [folder / name for name in PLACES if _holds_variables(folder / name)]
    if len(inside) > 1 and inside[-1].name == "weather":
        inside.pop()
    if len(inside) > 1:
        raise UserError(f"{shown(folder)}: {', '.join(one.name for one in inside)}; expected to know which; pass the "
                        "path of one")  # fmt: skip
    return inside[0] if inside else None


def _holds_variables(folder: Path) -> bool:
    return folder.is_dir() and not is_zarr(folder) and any(
        (folder / f"{name}{ending}").is_dir() for name in FOLDERS.values() for ending in ("", ".zarr")
    )  # fmt: skip


def read_weatherbench(folder: Path, options: GridReadOptions) -> dict[str, RawGrid]:
    """Read train, val and test by years, lazily.

    Raises:
        UserError: a variable, a level or a year is missing, files do not go together, or one is damaged.
    """
    chosen = weather_set(options)
    place = folder if is_zarr(folder) else place_of(folder)
    if place is None:
        raise UserError(f"{shown(folder)}: no variable of WeatherBench; expected folders such as "
                        f"{FOLDERS[chosen.variables[0]]} in it or in {PLACES[0]}")  # fmt: skip
    variables = [_variable(place, key, chosen, options) for key in chosen.variables]
    first = variables[0]
    for other in variables[1:]:
        _require_same(other, first)
    whole = replace(
        first,
        where=shown(place),
        values=StackedFrames(tuple(one.values for one in variables)) if len(variables) > 1 else first.values,
        channels=tuple(name for one in variables for name in one.channels),
        units=tuple(unit for one in variables for unit in one.units),
        look_bytes=LOOK_BYTES,
    )
    return _by_years(whole, chosen, paper=options.protocol == "paper")


def _variable(place: Path, key: str, chosen: WeatherSet, options: GridReadOptions) -> RawGrid:
    """Read one variable: all its files in time, with the levels that are wanted."""
    pieces = [_with_levels(raw, key, chosen) for raw in _files_of(place, key, options)]
    for piece in pieces:
        if piece.times is None or not len(piece.times):
            raise UserError(f"{piece.where}: no times; expected the moment of each frame")
        if piece.channels != pieces[0].channels:
            raise UserError(f"{piece.where}: levels {', '.join(piece.channels)}; expected "
                            f"{', '.join(pieces[0].channels)} as {pieces[0].where}")  # fmt: skip
        _require_same_grid(piece, pieces[0])
    pieces.sort(key=lambda piece: np.asarray(piece.times)[0])
    for earlier, later in pairwise(pieces):
        start, end = np.asarray(later.times)[0], np.asarray(earlier.times)[-1]
        if start <= end:
            raise UserError(f"{later.where}: starts at {start:.19}, when {Path(earlier.where).name} goes on to "
                            f"{end:.19}; expected every hour once")  # fmt: skip
    times = np.concatenate([np.asarray(piece.times) for piece in pieces])
    where = pieces[0].where if len(pieces) == 1 else shown(place / FOLDERS[key])
    return replace(pieces[0], where=where, values=join([piece.values for piece in pieces]), times=times)


def _files_of(place: Path, key: str, options: GridReadOptions) -> list[RawGrid]:
    """Open the netCDF files or the Zarr store of a variable."""
    name, folder = FOLDERS[key], place / FOLDERS[key]
    stores = [one for one in (place, folder.with_suffix(".zarr"), folder) if is_zarr(one)]
    if stores:
        for variable in (key, name):
            if _has(stores[0], variable):
                return [read_zarr(stores[0], replace(options, variable=(variable,)))]
        raise UserError(f"{shown(stores[0])}: no variable {key} or {name}; expected one of them")
    if not folder.is_dir():
        raise UserError(f"{shown(place)}: no folder {name}; expected one with the files of {key}")
    inside = list_folder(folder)
    if stores := [one for one in inside if is_zarr(one)]:
        return [read_zarr(one, replace(options, variable=(key,))) for one in stores]
    files = [one for one in inside if one.suffix.lower() in _ENDINGS]
    if not files:
        raise UserError(f"{shown(folder)}: no netCDF file; expected files such as {name}_1979_5.625deg.nc")
    return [read_netcdf([one], replace(options, variable=(key,))) for one in files]


def _has(store: Path, name: str) -> bool:
    return (store / name).is_dir()


def _with_levels(raw: RawGrid, key: str, chosen: WeatherSet) -> RawGrid:
    """Return a variable with the wanted levels only, and channels named by its key."""
    if not has_levels(key):
        if raw.values.shape[1] != 1:
            raise UserError(f"{raw.where}: {key} has {raw.values.shape[1]} levels; expected a single one")
        return replace(raw, channels=(key,), units=raw.units[:1] or ("",))
    have = [name.rpartition("_")[2] for name in raw.channels]
    wanted = [f"{level:g}" for level in chosen.levels]
    if lost := [level for level in wanted if level not in have]:
        raise UserError(f"{raw.where}: no level {lost[0]} of {key} among {', '.join(have):.100}; expected it; pass "
                        "--data.levels")  # fmt: skip
    places = [have.index(level) for level in wanted]
    (lazy,) = raw.values.variables
    if lazy.ndim == 4:
        lazy = lazy.isel({lazy.dims[1]: places})
    return replace(
        raw,
        values=XarrayFrames((lazy,), raw.where),
        channels=tuple(f"{key}_{level}" for level in wanted),
        units=(raw.units[0] if raw.units else "",) * len(wanted),
    )


def _require_same_grid(one: RawGrid, other: RawGrid) -> None:
    for name in ("y", "x"):
        mine, theirs = np.asarray(getattr(one, name)), np.asarray(getattr(other, name))
        if mine.shape != theirs.shape or not np.array_equal(mine, theirs):
            raise UserError(f"{one.where}: {one.names.get(name, name)} of {_span(mine)}; expected {_span(theirs)} as "
                            f"{other.where}")  # fmt: skip


def _span(values: NDArray[Any]) -> str:
    return f"{values.size} values from {values.flat[0]} to {values.flat[-1]}" if values.size else "no values"


def _require_same(one: RawGrid, other: RawGrid) -> None:
    """Refuse variables that do not lie on one grid in space and time."""
    _require_same_grid(one, other)
    mine, theirs = np.asarray(one.times), np.asarray(other.times)
    if np.array_equal(mine, theirs):
        return
    lost, more = np.setdiff1d(theirs, mine), np.setdiff1d(mine, theirs)
    said = f"no frame of {lost[0]:.19}" if len(lost) else f"a frame of {more[0]:.19}"
    raise UserError(f"{one.where}: {one.channels[0]} has {said}; expected the same moments as {other.channels[0]} of "
                    f"{other.where}")  # fmt: skip


def _by_years(whole: RawGrid, chosen: WeatherSet, *, paper: bool) -> dict[str, RawGrid]:
    times = np.asarray(whole.times)
    years = times.astype("datetime64[Y]").astype(np.int64) + 1970
    bounds = dict(zip(("train", "val", "test"), zip(chosen.years[::2], chosen.years[1::2], strict=True), strict=True))
    if paper:
        bounds["val"] = bounds["test"]
    parts: dict[str, RawGrid] = {}
    for name, (first, last) in bounds.items():
        rows = np.flatnonzero((years >= first) & (years <= last))
        if not rows.size:
            raise UserError(f"{whole.where}: no frame of {first} to {last} ({name}) from {times[0]:.10} to "
                            f"{times[-1]:.10}; expected some; pass --data.years")  # fmt: skip
        rows = _every(times, rows, chosen.hours, paper=paper)
        if not rows.size:
            raise UserError(f"{whole.where}: a single frame of {first} to {last} ({name}); expected more")
        parts[name] = replace(whole, where=f"{whole.where}: {name}", values=pick(whole.values, rows), times=times[rows])
    return parts


def _every(times: NDArray[np.datetime64], rows: NDArray[np.int64], hours: int, *, paper: bool) -> NDArray[np.int64]:
    """Return the rows that are whole steps after the first; the publication drops the last frame and counts rows."""
    if paper:
        return rows[:-1:hours]
    return rows[(times[rows] - times[rows[0]]) % (hours * _HOUR) == np.timedelta64(0, "us")]


def describe_protocol(options: GridReadOptions) -> str:
    """Return in a sentence how a set is cut, for reports."""
    chosen = weather_set(options)
    train, val, test = (f"{a}" if a == b else f"{a} to {b}" for a, b in _pairs(chosen.years))
    if options.protocol == "paper":
        return (
            f"paper: trained on {train}; validation and test both on {test}; every part scaled by its own statistics; "
            f"last frame and last window of a part dropped; frames {chosen.hours} h apart at places "
            f"{list(chosen.paper_inputs)} and {list(chosen.paper_outputs)}"
        )
    return f"strict: trained on {train}, validated on {val}, tested on {test}; statistics of the training part only"


def _pairs(years: Sequence[int]) -> list[tuple[int, int]]:
    return list(zip(years[::2], years[1::2], strict=True))
