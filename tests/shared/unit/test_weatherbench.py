"""WeatherBench in the publisher's layout: sets, levels, steps, years, grids and forms of files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from weather_miniature import LAT, LON, dataset, field, file_of, hours, write_weather

from stcore.errors import UserError
from stcore.readers.grid_options import GridReadOptions
from stcore.readers.grids import read_grid_parts
from stcore.readers.weatherbench import LEVELS, SETS, describe_protocol, has_levels
from stcore.weather_paper import paper_parts
from stcore.windows import find_windows

YEARS = {2014: 24, 2015: 30, 2016: 26, 2017: 25, 2018: 20}
SHORT = (2014, 2015, 2016, 2016, 2017, 2018)


def read(folder: Path, *variable: str, **more: object):
    options = {"format": "weatherbench", "years": SHORT} | more
    return read_grid_parts(GridReadOptions(source=(str(folder),), variable=variable, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("inside", ["weather_5_625deg", "weather", "."])
def test_years_make_the_parts_and_nothing_is_loaded(inside: str, tmp_path: Path) -> None:
    write_weather(tmp_path / inside, ["t2m"], YEARS)
    parts = read(tmp_path, "t2m")
    assert [len(part) for part in parts.named().values()] == [54, 26, 45]
    assert parts.train.channels == ("t2m",) and parts.train.units == ("K",) and parts.train.axis_names == ("lat", "lon")
    expected = np.concatenate([field("t2m", 2014, 24)[[0, 23]], field("t2m", 2015, 30)[:1]])
    np.testing.assert_array_equal(parts.train.frames([0, 23, 24])[:, 0], expected)
    np.testing.assert_array_equal(parts.test.frames([25])[0, 0], field("t2m", 2018, 20)[0])
    np.testing.assert_array_equal(parts.val.y, LAT)
    np.testing.assert_array_equal(parts.val.x, LON)
    assert not isinstance(parts.train.values, np.ndarray)
    assert [len(run) for run in parts.train.runs()] == [24, 30]  # the miniature's years are short, so there is a gap


def test_variables_follow_one_another_and_levels_are_chosen(tmp_path: Path) -> None:
    keys = ("r", "t", "u", "v")
    write_weather(tmp_path, keys, {2014: 7, 2016: 26, 2017: 7})
    parts = read(tmp_path, "mv")
    assert parts.train.channels == SETS["mv"].channels
    assert parts.train.channels[:4] == ("r_150", "r_500", "r_850", "t_150")
    levels = [LEVELS.index(level) for level in (150.0, 500.0, 850.0)]
    expected = np.concatenate([field(key, 2016, 26)[:, levels] for key in keys], axis=1)
    np.testing.assert_array_equal(parts.val.frames([1]), expected[[6]])
    assert str(parts.val.step) == str(np.timedelta64(6 * 3600 * 10**6, "us"))
    windows = find_windows(parts.val, history=3, horizon=2)
    history, future = windows.load(np.array([0]))
    np.testing.assert_array_equal(np.concatenate([history, future], axis=1)[0], expected[[0, 6, 12, 18, 24]])
    one = read(tmp_path, "r")
    assert one.train.channels == ("r_1000",)
    np.testing.assert_array_equal(one.val.frames([3])[0, 0], field("r", 2016, 26)[3, -1])
    own = read(tmp_path, "u", "t", levels=(500.0, 50.0))
    assert own.val.channels == ("u_500", "u_50", "t_500", "t_50")
    np.testing.assert_array_equal(own.val.frames([3])[0, 3], field("t", 2016, 26)[3, 0])


def test_the_large_set_has_110_channels_in_the_published_order(tmp_path: Path) -> None:
    chosen = SETS["hmv"]
    years = {2014: 7, 2016: 7, 2017: 7}
    data = [xr.concat([dataset(key, year, 7) for year in years], dim="time") for key in chosen.variables]
    xr.merge(data).drop_encoding().to_zarr(tmp_path / "all.zarr", zarr_format=2, consolidated=False)
    parts = read(tmp_path / "all.zarr", "hmv")
    assert parts.train.num_channels == 110 == len(chosen.channels) == len(chosen.groups)
    assert parts.train.channels[104:] == ("u10", "v10", "t2m", "tisr", "tcc", "tp")
    np.testing.assert_array_equal(parts.test.frames([1])[0, 106], field("t2m", 2017, 7)[6])
    np.testing.assert_array_equal(parts.test.frames([1])[0, 13], field("pv", 2017, 7)[6, 0])
    assert SETS["mv"].groups == ("r", "t", "u", "v") and SETS["uv10"].groups == ()


def test_published_sets_have_the_published_counts_of_windows() -> None:
    hours_of = {"2010 to 2015": 24 * (6 * 365 + 1), "1979 to 2015": 24 * (37 * 365 + 9), "2017 to 2018": 24 * 730}
    published = (("t2m", "2010 to 2015", 52_559), ("t2m", "2017 to 2018", 17_495), ("mv", "1979 to 2015", 54_019),
                 ("mv", "2017 to 2018", 2_883))  # fmt: skip
    for name, years, count in published:
        chosen = SETS[name]
        kept = len(range(0, hours_of[years] - 1, chosen.hours))
        assert kept - (chosen.paper_outputs[-1] - chosen.paper_inputs[0]) - 1 == count, (name, years)


def test_the_paper_counts_six_hourly_offsets_in_rows_and_validates_on_test(tmp_path: Path) -> None:
    write_weather(tmp_path, ("r", "t", "u", "v"), {2015: 260, 2016: 7, 2017: 241})
    parts = read(tmp_path, "mv", protocol="paper")
    assert [len(part) for part in parts.named().values()] == [
        44,
        40,
        40,
    ]  # every 6th of all but the last hour, 259, 240
    paper = paper_parts(parts, SETS["mv"])
    assert [len(part) for part in paper.named().values()] == [44 - 36 - 1, 3, 3]
    np.testing.assert_array_equal(paper.test.windows.rows(np.array([1]))[0], [1, 7, 13, 18, 19, 25, 31, 37])
    np.testing.assert_array_equal(paper.test.anchors, [17, 18, 19])
    whole = parts.test.frames(range(40)).astype(np.float64)
    np.testing.assert_allclose(paper.val.mean, whole.mean(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(paper.test.report_std, whole.std(axis=(0, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize("form", ["stores", "folder of stores", "one store", "long names"])
def test_zarr_in_place_of_netcdf(form: str, tmp_path: Path) -> None:
    data = xr.concat([dataset("t2m", year, count) for year, count in YEARS.items()], dim="time")
    place = {"stores": "root/2m_temperature.zarr", "folder of stores": "root/2m_temperature/all.zarr",
             "one store": "root.zarr", "long names": "root.zarr"}[form]  # fmt: skip
    if form == "long names":  # WeatherBench 2: other names, longitude before latitude
        data = data.rename(t2m="2m_temperature", lat="latitude", lon="longitude").transpose("time", "longitude", ...)
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    data.drop_encoding().to_zarr(tmp_path / place, zarr_format=2, consolidated=False)
    parts = read(tmp_path / place.split("/")[0], "t2m")
    assert [len(part) for part in parts.named().values()] == [54, 26, 45]
    np.testing.assert_array_equal(parts.val.frames([3])[0, 0], field("t2m", 2016, 26)[3])


def test_a_folder_is_known_by_its_variables_and_a_set_must_be_named(tmp_path: Path) -> None:
    write_weather(tmp_path, ["tcc"], YEARS)
    parts = read(tmp_path, "tcc", format="auto")
    assert parts.train.channels == ("tcc",)
    with pytest.raises(UserError, match=r"data.variable: 'nothing'; expected a set of WeatherBench \(.*t2m"):
        read(tmp_path, format="auto")
    with pytest.raises(UserError, match="'temperature'; expected a set"):
        read(tmp_path, "temperature")


def test_a_report_says_in_words_which_protocol_is_in_force() -> None:
    strict = describe_protocol(GridReadOptions(variable=("t2m",)))
    assert strict.startswith("strict: trained on 2010 to 2015, validated on 2016, tested on 2017 to 2018")
    paper = describe_protocol(GridReadOptions(variable=("mv",), protocol="paper"))
    assert "validation and test both on 2017 to 2018" in paper and "[-17, -11, -5, 0]" in paper


def test_descending_latitudes_come_into_the_common_order(tmp_path: Path) -> None:
    turned = {
        ("t2m", year): dataset("t2m", year, count, values=field("t2m", year, count)[:, ::-1], lat=LAT[::-1])
        for year, count in YEARS.items()
    }
    write_weather(tmp_path, ["t2m"], YEARS, turned)
    parts = read(tmp_path, "t2m", order="common")
    np.testing.assert_array_equal(parts.val.y, LAT)
    np.testing.assert_array_equal(parts.val.frames([5])[0, 0], field("t2m", 2016, 26)[5])
    assert parts.val.turned is not None
    np.testing.assert_array_equal(parts.val.turned.y, LAT[::-1])


def test_every_variable_is_known_by_folder_and_kind() -> None:
    assert [key for key in SETS["hmv"].variables if has_levels(key)] == ["z", "pv", "r", "q", "t", "u", "v", "vo"]


@pytest.mark.parametrize(
    ("replaced", "expected"),
    [
        ({("u10", 2015): dataset("u10", 2015, 30, lat=LAT + 1.0)}, "lat of 4 values from -66.5 to 68.5; expected"),
        ({("u10", 2015): dataset("u10", 2015, 29)}, "v10 has a frame of 2015-01-02T05:00:00"),
        ({("v10", 2015): dataset("v10", 2015, 30, time=hours(2016, 30))}, "starts at 2016-01-01T00:00:00"),
    ],
)
def test_files_that_do_not_go_together_are_refused(
    replaced: dict[tuple[str, int], xr.Dataset], expected: str, tmp_path: Path
) -> None:
    write_weather(tmp_path, ["u10", "v10"], YEARS, replaced)
    with pytest.raises(UserError, match=r"10m_.*expected") as caught:
        read(tmp_path, "uv10")
    assert expected in str(caught.value)


def test_years_that_are_not_there_are_named(tmp_path: Path) -> None:
    write_weather(tmp_path, ["t2m"], {2015: 30, 2017: 25})
    with pytest.raises(UserError, match=r"no frame of 2016 to 2016 \(val\) from 2015-01-01 to 2017-01-02.*data.years"):
        read(tmp_path, "t2m")
    assert file_of(tmp_path, "t2m", 2015).is_file()
