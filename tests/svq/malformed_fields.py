"""Fields that are wrong in one way each, with what the message must say: for readers and for the commands of svq.

Those of weather, films and described arrays are made here; what can be wrong with any frames comes from
`malformed_grids`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from malformed_grids import MalformedGrid, frames, malformed_grid_files, npy, picture, with_cell
from weather_miniature import LAT, dataset, file_of, hours, write_weather

from stcore.grids import GridSeries
from stcore.readers.grid_store import to_store


@dataclass(frozen=True)
class MalformedField:
    """One wrong source of fields."""

    name: str
    """What is wrong with it, in a few words; all different."""
    paths: tuple[Path, ...]
    """Value of `--data`."""
    expected: tuple[str, ...]
    """What the message must hold: file, place, what was found, what was expected."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of reading that differ from the defaults, by field name."""
    history: int = 4
    """Frames that are given; 4 and 4 unless the fault is that there are too few."""
    horizon: int = 4

    @property
    def extra_flags(self) -> tuple[str, ...]:
        """The options of reading and the lengths of windows as flags of `svq train`."""
        flags: list[str] = []
        for name, value in self.options.items():
            flags += [f"--data.{name.replace('_', '-')}", *map(str, value if isinstance(value, tuple) else (value,))]
        lengths = ("--data.history", str(self.history), "--data.horizon", str(self.horizon))
        return ("--preset", "demo", *lengths, *flags)


FOREIGN = ("digits as frames", "labels as digits", "digits without labels", "digits of another length")
"""Causes of `malformed_grids` that are no matter of svq."""


def malformed_field_files(folder: Path) -> list[MalformedField]:
    """Write every wrong source into `folder` and return the list of them, those of fields first."""
    own = folder / "fields"
    own.mkdir()
    cases: list[MalformedField] = []
    for write in (_netcdf, _times, _zarr, _years, _weather, _films, _cars, _described):
        write(own, cases)
    common = folder / "grids"
    common.mkdir()
    return cases + [_from_grids(case) for case in malformed_grid_files(common) if case.name not in FOREIGN]


def _from_grids(case: MalformedGrid) -> MalformedField:
    return MalformedField(case.name, case.paths, case.expected, case.options, case.history, case.horizon)


def _add(cases: list[MalformedField], name: str, path: Path, expected: str, **options: Any) -> None:
    lengths = {key: options.pop(key) for key in ("history", "horizon") if key in options}
    cases.append(MalformedField(name, (path,), tuple(expected.split(" | ")), options, **lengths))


Values = np.ndarray[Any, Any]


def field_of(values: Values | None = None, **changes: Any) -> xr.Dataset:
    """Return an hourly field in degrees; `changes` replace `name`, `time`, `lat`, `lon` or attributes."""
    values = 280.0 + frames() if values is None else values
    name = changes.pop("name", "t2m")
    coords = {
        "time": np.datetime64("2024-05-01", "ns") + np.arange(len(values)) * np.timedelta64(1, "h"),
        "lat": np.linspace(58.0, 50.0, values.shape[-2]),
        "lon": np.linspace(-10.0, 2.0, values.shape[-1]),
    }
    coords |= {key: changes.pop(key) for key in ("time", "lat", "lon") if key in changes}
    return xr.Dataset({name: (("time", "lat", "lon"), values, changes)}, coords=coords)


def netcdf(data: xr.Dataset) -> bytes:
    return bytes(data.to_netcdf(engine="h5netcdf"))


def _netcdf(folder: Path, cases: list[MalformedField]) -> None:
    """Single netCDF files: variables, values, units, coordinates."""

    def add(name: str, content: xr.Dataset | bytes, expected: str, **options: Any) -> None:
        path = folder / f"{name.replace(' ', '_')}.nc"
        path.write_bytes(content if isinstance(content, bytes) else netcdf(content))
        place = "" if "one value only" in expected else f"{path.name} | "  # scaling speaks of the training part
        _add(cases, name, path, f"{place}{expected}", **options)

    whole = netcdf(field_of())
    land = np.where(np.arange(12) < 5, np.float32(np.nan), 280.0 + frames())
    add("missing variable", field_of(name="z"), "no variable 't2m' among z | --data.variable", variable=("t2m",))
    add("truncated netcdf", whole[: len(whole) // 2], "cannot be read | expected a whole netCDF")
    add("web page as netcdf", b"<!DOCTYPE html><html>", "starts with b'<!DOCT' | expected an HDF5")
    add("netcdf of variant 5", b"CDF\x05" + bytes(99), "netCDF of variant b'\\x05' | nccopy")
    add("five axes", xr.Dataset({"t": (("time", "member", "level", "lat", "lon"), np.zeros((60, 2, 2, 8, 9)))}),
        "'t' has axes time, member, level, lat, lon | one more axis at most")  # fmt: skip
    add("curvilinear grid", xr.Dataset({"t": (("time", "j", "i"), frames())}), "axes time, j, i | unclear: row, column")
    add("no data variable", xr.Dataset(coords={"time": np.arange(60)}), "variables none | expected one with time")
    add("nan over land", field_of(land), "frame 0, row 0, column 0: nan | --data.missing mask", missing="error")
    add("infinite wind", field_of(with_cell(np.inf, (7, 2, 3)), name="u10"), "frame 7, row 2, column 3: inf")
    add("constant field", field_of(np.full((60, 16, 12), 281.0, np.float32)), "channel t2m has one value only | varies",
        history=2, horizon=2)  # fmt: skip
    two = field_of().assign(tcc=(("time", "lat", "lon"), np.zeros((60, 16, 12), np.float32)))
    add("constant channel", two, "channel tcc has one value only", history=2, horizon=2)
    add("fill value in the data", field_of(with_cell(-9999.0, (30, 4, 5), 280.0 + frames())),
        "frame 30, row 4, column 5: -9999 | expected 150 to 350", value_range=(150.0, 350.0))  # fmt: skip
    add(
        "kelvin that are celsius",
        field_of(15.0 + frames(), units="K"),
        "t2m has unit 'K' and a median of 15.5 | Celsius",
    )
    add("celsius that are kelvin", field_of(units="degC"), "unit 'degC' and a median of 280.5 | kelvin")
    add("pascal that are hectopascal", field_of(1000.0 + frames(), name="msl", units="Pa"), "'Pa' | as of hectopascal")
    add("hectopascal that are pascal", field_of(1e5 + frames(), name="sp", units="hPa"), "'hPa' | as of pascal")
    add("share in per cent", field_of(50.0 + frames(), name="tcc", units="(0 - 1)"), "median of 50.5 | as of per cent")
    add("latitude beyond the pole", field_of(lat=np.linspace(80.0, 95.0, 16)), "lat is 91 at 11 | at most 90 degrees")
    add("longitude beyond the globe", field_of(lon=np.linspace(300.0, 410.0, 12)), "lon is 370 at 7 | at most 360")
    add("latitude lost", field_of(lat=with_cell(np.nan, (3,), np.linspace(50.0, 58.0, 16))), "lat is nan at 3 | finite")
    add("words as field", field_of(np.full((60, 16, 12), "a")), "'t2m' of | expected real numbers")
    add("single time", field_of(frames(1)), "1 frames | expected at least 3")
    add("too large for single precision", field_of(with_cell(1e300, (2, 0, 1), frames().astype(np.float64))),
        "frame 2, row 0, column 1: 1e+300, too large for single precision")  # fmt: skip


def _times(folder: Path, cases: list[MalformedField]) -> None:
    """Calendars and moments."""

    def add(name: str, time: Any, expected: str, attributes: Mapping[str, str] | None = None) -> None:
        path = folder / f"{name.replace(' ', '_')}.nc"
        data = field_of(time=("time", time, dict(attributes or {})))
        data.to_netcdf(path, engine="h5netcdf")
        _add(cases, name, path, f"{path.name} | {expected}")

    count = np.arange(60)
    moments = np.datetime64("2024-05-01", "ns") + count * np.timedelta64(1, "h")
    since = "hours since 2024-05-01"
    usual = "expected units such as 'hours since 1979-01-01' in the standard calendar | --data.calendar ignore"
    add("calendar without leap days", count, f"calendar 'noleap' | {usual}",
        {"units": "days since 2001-01-01", "calendar": "noleap"})  # fmt: skip
    add("calendar of 360 days", count, f"calendar '360_day' | {usual}", {"units": since, "calendar": "360_day"})
    add("calendar of nobody", count, f"calendar 'martian' | {usual}", {"units": since, "calendar": "martian"})
    add("hours since nothing", count, f"units 'hours since the storm' | {usual}", {"units": "hours since the storm"})
    add("hours since no day", count, f"units 'hours since 2023-02-30' | {usual}", {"units": "hours since 2023-02-30"})
    add("duplicated hour", np.where(count == 9, moments[8], moments), "frame 9 has the same time as | rising times")
    add("hours out of order", moments[np.r_[:20, 40:60, 20:40]], "frame 40 has 2024-05-01T20:00:00 | before")
    add("hour lost", np.where(count == 5, np.datetime64("NaT"), moments), "frame 5 has no time | a moment for each")
    gaps = moments + (count // 6) * np.timedelta64(5, "h")
    add("gaps in time", gaps, "the longest stretch without a gap has 6 | expected at least 8 frames")


def _zarr(folder: Path, cases: list[MalformedField]) -> None:
    """Zarr stores."""

    def add(name: str, harm: Callable[[Path], None], expected: str, data: xr.Dataset | None = None) -> None:
        path = folder / f"{name.replace(' ', '_')}.zarr"
        (field_of() if data is None else data).to_zarr(path, zarr_format=2, consolidated=False)
        harm(path)
        _add(cases, name, path, f"{path.name} | {expected}")

    def drop(*names: str) -> Callable[[Path], None]:
        return lambda path: [(path / name).unlink() for name in names] and None

    def told(name: str, **changes: Any) -> Callable[[Path], None]:
        def harm(path: Path) -> None:
            facts = json.loads((path / name).read_text()) | changes
            (path / name).write_text(json.dumps(facts))

        return harm

    add("zarr without metadata", drop(".zgroup", ".zattrs"), "no zarr.json, .zgroup or .zarray | expected a Zarr store")
    add("zarr of no json", lambda path: (path / "t2m" / ".zarray").write_text("{not json") and None, "cannot be read")
    add("zarr of a huge shape", told("t2m/.zarray", shape=[60, 10**9, 10**9]), "expected")
    add("zarr of another type", told("t2m/.zarray", dtype="<c8"), "expected")
    add("zarr chunk cut short", lambda path: _cut(path / "t2m" / "0.0.0"), "cannot be read")
    store = folder / "store_of_ours_without_a_chunk.zarr"
    to_store(GridSeries(values=frames(60, 1, 16, 12)), store, chunk_frames=20)
    (store / "values" / "1.0.0.0").unlink()
    _add(cases, "store of ours without a chunk", store, "array values has 2 of 3 chunks | the store is damaged")
    empty = folder / "nothing.zarr"
    empty.mkdir()
    _add(cases, "empty folder called zarr", empty, "nothing.zarr: no zarr.json | expected a Zarr store")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def _years(folder: Path, cases: list[MalformedField]) -> None:
    """Folders of files that are to follow one another."""

    def add(name: str, files: Mapping[str, xr.Dataset], expected: str) -> None:
        path = folder / name.replace(" ", "_")
        path.mkdir()
        for file, data in files.items():
            data.to_netcdf(path / file, engine="h5netcdf")
        _add(cases, name, path, expected)

    first = field_of()
    later = field_of(time=np.datetime64("2024-06-01", "ns") + np.arange(60) * np.timedelta64(1, "h"))
    add("files that overlap", {"a.nc": first, "b.nc": later.assign_coords(time=first.time + np.timedelta64(30, "h"))},
        "files_that_overlap | frame 60 has 2024-05-02T06:00:00 | before")  # fmt: skip
    add("files of two grids", {"a.nc": first, "b.nc": later.assign_coords(lat=later.lat + 1.0)},
        "b.nc: other variables or another grid | expected those of")  # fmt: skip
    add("files of two variables", {"a.nc": first, "b.nc": later.rename(t2m="sst")}, "b.nc: other variables")
    add(
        "a file without times",
        {"a.nc": first, "b.nc": later.drop_vars("time")},
        "b.nc: no times | to put files in order",
    )


_YEARS = {2015: 30, 2016: 26, 2017: 25}


def _weather(folder: Path, cases: list[MalformedField]) -> None:
    """WeatherBench."""
    chosen: dict[str, Any] = {"format": "weatherbench", "years": (2015, 2015, 2016, 2016, 2017, 2017)}

    def add(name: str, keys: tuple[str, ...], expected: str, *, variable: tuple[str, ...], harm: Any = None,
            replaced: Mapping[tuple[str, int], xr.Dataset] | None = None, **options: Any) -> None:  # fmt: skip
        path = write_weather(folder / name.replace(" ", "_"), keys, _YEARS, replaced)
        if harm is not None:
            harm(path)
        _add(cases, name, path, expected, **(chosen | {"variable": variable} | options))

    wind, short = ("u10", "v10"), np.arange(4, dtype=np.int32) * 100 + 100
    values = dataset("r", 2016, 26).r.values
    mixed = dataset("r", 2016, 26, level=short, values=values[:, :4])
    add("no folder of a variable", ("u10",), "no folder 10m_v_component_of_wind | expected one with the files of v10",
        variable=("uv10",))  # fmt: skip
    add("mixed levels", ("r",), "relative_humidity_2016_5.625deg.nc | no level 1000 of r among 100, 200, 300, 400",
        variable=("r",), replaced={("r", 2016): mixed})  # fmt: skip
    add("level not there", ("r",), "no level 333 of r among 50, 100 | --data.levels", variable=("r",), levels=(333.0,))
    add("year not there", ("t2m",), "no frame of 2016 to 2016 (val) | --data.years", variable=("t2m",),
        harm=lambda path: file_of(path, "t2m", 2016).unlink())  # fmt: skip
    add("year twice", ("t2m",), "again.nc: starts at 2016-01-01T00:00:00 | expected every hour once",
        variable=("t2m",), harm=lambda path: _again(file_of(path, "t2m", 2016)))  # fmt: skip
    add("hours of one variable only", wind, "v10 has a frame of 2016-01-02T01:00:00 | the same moments as u10",
        variable=("uv10",), replaced={("u10", 2016): dataset("u10", 2016, 25)})  # fmt: skip
    add("grids of two variables", wind, "10m_v_component_of_wind | lat of 4 values from -66.5 to 68.5; expected",
        variable=("uv10",), replaced={("v10", year): dataset("v10", year, _YEARS[year], lat=LAT + 1.0)
                                      for year in _YEARS})  # fmt: skip
    add("unknown set", ("t2m",), "data.variable: 't3m'; expected a set of WeatherBench | uv10", variable=("t3m",))
    add("no set", ("t2m",), "data.variable: 'nothing'; expected a set of WeatherBench", variable=())
    add("variable of another name", ("t2m",), "no variable 't2m' among temperature", variable=("t2m",),
        replaced={("t2m", 2015): dataset("t2m", 2015, 30).rename(t2m="temperature")})  # fmt: skip
    add("surface on levels", ("u10",), "u10 has 13 levels | expected a single one", variable=("u10",),
        replaced={("u10", 2015): dataset("u", 2015, 30).rename(u="u10")})  # fmt: skip
    add("year cut short", ("t2m",), "2m_temperature_2016_5.625deg.nc: cannot be read", variable=("t2m",),
        harm=lambda path: _cut_half(file_of(path, "t2m", 2016)))  # fmt: skip
    add("pipe among the years", ("t2m",), "2m_temperature_2016_5.625deg.nc: a pipe", variable=("t2m",),
        harm=lambda path: _pipe(file_of(path, "t2m", 2016)))  # fmt: skip
    add("folder without files", ("t2m",), "2m_temperature: no netCDF file | 2m_temperature_1979_5.625deg.nc",
        variable=("t2m",), harm=lambda path: [one.unlink() for one in path.glob("*/*.nc")])  # fmt: skip
    lost = dataset("t2m", 2016, 26, values=with_cell(np.nan, (25, 3, 7), dataset("t2m", 2016, 26).t2m.values))
    add("last value of a year lost", ("t2m",), "val: frame 25, row 3, column 7: nan", variable=("t2m",),
        replaced={("t2m", 2016): lost})  # fmt: skip
    add("years of other hours", ("t2m",), "starts at 2015-01-01T00:00:00, when | goes on to 2015-01-02T05:00:00",
        variable=("t2m",), replaced={("t2m", 2016): dataset("t2m", 2016, 26, time=hours(2015, 26))})  # fmt: skip
    several = folder / "two_resolutions"
    for place in ("weather_5_625deg", "weather_1_40625deg"):
        write_weather(several / place, ("t2m",), {2015: 2})
    _add(cases, "two resolutions", several, "weather_5_625deg, weather_1_40625deg | pass the path of one",
         **(chosen | {"variable": ("t2m",)}))  # fmt: skip


def _again(path: Path) -> None:
    shutil.copy(path, path.with_name("again.nc"))


def _cut_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _films(folder: Path, cases: list[MalformedField]) -> None:
    """Human3.6M."""
    lines = {"train": ["S1_A_,0,40", "S8_A_,0,40"], "test": ["S9_A_,0,40"]}
    images = {f"S{person}_A_{number:06d}.jpg": picture((16, 16), "RGB", "JPEG", number) for person in (1, 8, 9)
              for number in range(0, 40, 5)}  # fmt: skip

    def add(name: str, expected: str, lists: Mapping[str, Any], images: Mapping[str, bytes] = images) -> None:
        path = folder / name.replace(" ", "_")
        (path / "images").mkdir(parents=True)
        for file, content in images.items():
            (path / "images" / file).write_bytes(content)
        for file, content in lists.items():
            text = content if isinstance(content, bytes) else "".join(f"{line}\n" for line in content).encode()
            (path / f"{file}.txt").write_bytes(text)
        _add(cases, name, path, expected, format="human36m", size=(16, 16))

    add("no list for test", "no test.txt | expected train.txt, test.txt and images/", {"train": lines["train"]})
    add("line without a beginning", "train.txt: line 2 is 'S8_A_,x,40' | expected prefix,begin,end",
        lines | {"train": ["S1_A_,0,40", "S8_A_,x,40"]})  # fmt: skip
    add("empty list", "test.txt: empty file", lines | {"test": []})
    add("list of no text", "train.txt: no text in UTF-8", lines | {"train": b"S1_\xff\xfe,0,40\n"})
    add("image of the list lost", "test.txt: line 1: no image S9_A_000035.jpg | expected 8 frames",
        lines, {name: data for name, data in images.items() if name != "S9_A_000035.jpg"})  # fmt: skip
    add("nobody in the name", "no person in 'walk_' | S11_Walking_", lines | {"train": ["walk_,0,40"]},
        images | {f"walk_{number:06d}.jpg": images["S1_A_000000.jpg"] for number in range(0, 40, 5)})  # fmt: skip
    add("nobody to test on", "no window of S9, S11 (test) | --data.protocol paper", lines | {"test": ["S1_A_,0,40"]})
    add(
        "path out of the folder",
        "line 1 is '../../S1_A_,0,40' | expected prefix",
        lines | {"train": ["../../S1_A_,0,40"]},
    )


def _cars(folder: Path, cases: list[MalformedField]) -> None:
    """KITTI and Caltech."""
    video = np.zeros((40, 8, 10, 3), np.uint8)
    good = {"train_data": video, "train_idx": np.repeat([0, 1], 20), "test_data": video, "test_idx": np.zeros(40, int)}

    def add(name: str, expected: str, **changes: Any) -> None:
        path = folder / name.replace(" ", "_")
        path.mkdir()
        for file, array in (good | changes).items():
            if array is not None:
                (path / f"{file}.npy").write_bytes(npy(array))
        _add(cases, name, path, expected, format="kitti-caltech")

    add(
        "cars in grey",
        "train_data.npy: uint8 of shape (40, 8, 10) | (frame, height, width, 3)",
        train_data=video[..., 0],
    )
    add("cars in 16 bits", "values of uint16 | expected uint8", train_data=video.astype(np.uint16))
    add("clips of fewer frames", "train_idx.npy: shape (39,) | expected (40,)", train_idx=np.zeros(39, int))
    add("clip that comes back", "clip '0' comes back at frame 30 | in one piece",
        train_idx=np.repeat([0, 1, 0], [10, 20, 10]))  # fmt: skip
    add("no test frames", "test_data.npy | no such file", test_data=None)
    add("cars of objects", "Python objects | expected", test_idx=None)
    path = cases[-1].paths[0] / "test_idx.npy"
    path.write_bytes(npy(np.array([{}] * 40), pickled=True))
    raw = folder / "hickle" / "kitti_hkl"
    raw.mkdir(parents=True)
    (raw / "X_train.hkl").write_bytes(b"\x89HDF\r\n\x1a\n")
    _add(cases, "hickle files", raw.parent, "hickle files or .seq films | kitticaltech_npy | numpy.save",
         format="kitti-caltech")  # fmt: skip


def _described(folder: Path, cases: list[MalformedField]) -> None:
    """Arrays with a description in TOML."""
    place = folder / "described"
    place.mkdir()
    (place / "a.npy").write_bytes(npy(frames()))
    (place / "b.npy").write_bytes(npy(frames(60, 8, 9)))
    (place / "words.npy").write_bytes(npy(np.full(60, "soon")))
    (place / "none.npy").write_bytes(npy(np.zeros((16, 12), np.bool_)))
    (place / "numbers.npy").write_bytes(npy(np.ones((16, 12))))

    def add(name: str, lines: str | bytes, expected: str) -> None:
        path = place / f"{name.replace(' ', '_')}.toml"
        path.write_bytes(lines if isinstance(lines, bytes) else lines.replace("; ", "\n").encode())
        _add(cases, name, path, f"{path.name} | {expected}")

    add("no toml", "values = [", "expected TOML")
    add("toml of no text", b'values = "\xff"', "no text in UTF-8 | expected TOML")
    add(
        "entry unknown",
        'values = "a.npy"; chanels = ["t"]',
        "unknown entry 'chanels' | expected values, layout, channels",
    )
    add("no values", 'units = "K"', "no entry 'values'")
    add("values of numbers", "values = 3", "values is 3 | expected a word")
    add("values not there", 'values = "c.npy"', "expected")
    cases[-1] = MalformedField(
        "values not there", cases[-1].paths, ("c.npy", "no such file", "expected a file of frames")
    )
    add("values in a table", 'values = "a.csv"', "'a.csv' | expected an .npy file")
    add("values of two sizes", 'values = ["a.npy", "b.npy"]', "b.npy has frames (1, 8, 9) | expected (1, 16, 12)")
    add("axes of another rank", 'values = "a.npy"; layout = "TCHW"', "has 3 axes | expected 4")
    add("axes of other letters", 'values = "a.npy"; layout = "TYX"', "")
    cases[-1] = MalformedField(
        "axes of other letters", cases[-1].paths, ("data.layout: 'TYX'", "expected each of T, H, W")
    )
    add("channels of another count", 'values = "a.npy"; channels = ["u", "v"]', "2 channels | expected 1")
    add("units of another count", 'values = "a.npy"; units = ["K", "K", "K"]', "3 units | expected 1")
    add("start without step", 'values = "a.npy"; start = "2020-01-01"', "start without step | expected both")
    add("start and times", 'values = "a.npy"; step = "1 h"; times = "words.npy"', "times beside start or step")
    add("times of words", 'values = "a.npy"; times = "words.npy"', "entry 0 is 'soon' | a moment that exists")
    add("times of another count", 'values = "a.npy"; times = ["2020-01-01"]', "1 times | expected 60")
    add("times without moments", 'values = "a.npy"; times = "numbers.npy"', "'numbers.npy' holds no moments")
    add(
        "latitudes of another count",
        'values = "a.npy"; latitude = [1, 2, 3]',
        "latitude of shape (3,) | expected (16,)",
    )
    add("latitude and y", 'values = "a.npy"; latitude = [1]; y = [1]', "latitude and y | expected one of them")
    add("latitudes of words", 'values = "a.npy"; latitude = ["north"]', "latitude is ['north'] | a list of numbers")
    add(
        "latitudes from nowhere", 'values = "a.npy"; latitude = {first = 3}', "latitude is {'first': 3} | {first, last}"
    )
    add("latitudes in metres", 'values = "a.npy"; latitude = {first = 0, last = 3e5}', "at most 90 degrees")
    add("mask of numbers", 'values = "a.npy"; mask = "numbers.npy"', "mask of type float64 | expected True")
    add("mask of nothing", 'values = "a.npy"; mask = "none.npy"', "the mask is False everywhere")
    add("range of one number", 'values = "a.npy"; value_range = [1]', "value_range is [1] | expected two numbers")
    add("range upside down", 'values = "a.npy"; value_range = [2, 1]', "value range 2.0 to 1.0 | the lower bound first")
    add("value beyond the range", 'values = "a.npy"; value_range = [0, 0.5]', "expected 0 to 0.5")
    add("step of no time", 'values = "a.npy"; start = "2020-01-01"; step = "1 fortnight"', "")
    cases[-1] = MalformedField("step of no time", cases[-1].paths, ("data.step: '1 fortnight'", "a number and a unit"))
