"""Every published layout and file type, in miniature: what is read has the values, names, times and parts it should."""

from __future__ import annotations

import gzip
import os
import struct
import time
from pathlib import Path
from typing import Any

import h5netcdf
import h5py
import numpy as np
import pytest
import xarray as xr
from malformed_grids import frames, npy, npz, picture, video_bytes

from stcore import catalog
from stcore.errors import UserError
from stcore.readers.grid_options import GridReadOptions
from stcore.readers.grids import read_grid, read_grid_parts, read_grids_or_parts
from stcore.readers.moving_mnist import read_idx_images, read_idx_labels
from stcore.windows import find_windows

RANDOM = np.random.default_rng(0)


def saved(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_the_standard_test_file_is_mapped_and_time_first(tmp_path: Path) -> None:
    digits = RANDOM.integers(0, 256, (20, 7, 64, 64), dtype=np.uint8)
    series = read_grid(str(saved(tmp_path / "mnist_test_seq.npy", npy(digits))), GridReadOptions())
    assert series.shape == (140, 1, 64, 64) and series.num_clips == 7 and series.value_range == (0.0, 255.0)
    assert isinstance(series.values.values.base, np.memmap)
    windows = find_windows(series, history=10, horizon=10)
    assert len(windows) == 7
    history, future = windows.load(np.array([3]))
    np.testing.assert_array_equal(np.concatenate([history[0], future[0]])[:, 0], digits[:, 3].astype(np.float32))


@pytest.mark.parametrize(
    ("shape", "layout", "expected", "clips"),
    [
        ((30, 16, 12), "", (30, 1, 16, 12), 1),
        ((30, 2, 16, 12), "", (30, 2, 16, 12), 1),
        ((30, 16, 12, 3), "", (30, 3, 16, 12), 1),
        ((5, 9, 2, 16, 12), "", (45, 2, 16, 12), 5),
        ((5, 9, 16, 12, 1), "", (45, 1, 16, 12), 5),
        ((9, 5, 16, 12), "TNHW", (45, 1, 16, 12), 5),
        ((16, 12, 30), "HWT", (30, 1, 16, 12), 1),
        ((9, 5, 2, 16, 12), "tnchw", (45, 2, 16, 12), 5),
    ],
)
def test_any_layout_becomes_the_same_axes(
    shape: tuple[int, ...], layout: str, expected: tuple[int, ...], clips: int, tmp_path: Path
) -> None:
    array = RANDOM.random(shape, dtype=np.float32)
    series = read_grid(str(saved(tmp_path / "a.npy", npy(array))), GridReadOptions(layout=layout))
    assert series.shape == expected and series.num_clips == clips
    inferred = {3: "THW", 4: "TCHW" if shape[1] < 5 else "THWC", 5: "NTCHW" if shape[2] < 5 else "NTHWC"}
    letters = layout.upper() or inferred[len(shape)]
    full = array.reshape(shape + (1,) * (5 - len(shape)))
    whole = np.transpose(full, [(letters + "".join(set("NTCHW") - set(letters))).index(one) for one in "NTCHW"])
    np.testing.assert_array_equal(series.frames(range(len(series))), whole.reshape(expected))


def test_npz_with_coordinates_text_times_and_step(tmp_path: Path) -> None:
    times = np.array(
        ["2024-05-01T00:00", "2024-05-01T01:00", "2024-05-01T03:00"] + [f"2024-05-02T{h:02d}:00" for h in range(9)]
    )
    content = npz(
        t2m=frames(12), lat=np.linspace(58, 50, 16), lon=np.linspace(-10, 2, 12), time=times, other=np.zeros(3)
    )
    series = read_grid(str(saved(tmp_path / "a.npz", content)), GridReadOptions(units=("K",), channels=("t2m",)))
    assert series.times is not None and series.y is not None and series.y[0] == 58.0 and series.units == ("K",)
    assert [len(run) for run in series.runs()] == [2, 1, 9]
    stepped = saved(tmp_path / "b.npz", npz(flow=frames(12, 2, 16, 12), step_minutes=30, start="2024-05-01T12:00"))
    series = read_grid(str(stepped), GridReadOptions())
    assert series.times is not None and str(series.times[-1]) == "2024-05-01T17:30:00.000000"


def test_start_and_step_make_times(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npy", npy(frames(14)))
    monthly = read_grid(str(path), GridReadOptions(start="1999-11", step="1 month"))
    assert monthly.times is not None and str(monthly.times[-1].astype("M8[D]")) == "2000-12-01"
    assert monthly.step == np.timedelta64(1, "M") and len(monthly.runs()) == 1
    film = read_grid(str(path), GridReadOptions(step="0.04 s", cuts=(4, 9)))
    assert film.times is None and film.step == np.timedelta64(40_000, "us") and film.num_clips == 3


def test_parts_by_the_names_of_arrays_and_files_and_by_time(tmp_path: Path) -> None:
    arrays = {f"{part}_clip{n}": frames(20) + n for part in ("train", "val", "test") for n in range(2)}
    parts = read_grid_parts(GridReadOptions(source=(str(saved(tmp_path / "a.npz", npz(**arrays))),)))
    assert [part.num_clips for part in parts.named().values()] == [2, 2, 2]
    assert parts.val.clip_names == ("val_clip0", "val_clip1")
    for name, count in (("train", 30), ("test", 20)):
        saved(tmp_path / "folder" / f"my_{name}.npy", npy(frames(count)))
    parts = read_grid_parts(GridReadOptions(source=(str(tmp_path / "folder"),)))
    assert [len(part) for part in parts.named().values()] == [27, 3, 20]
    one = str(saved(tmp_path / "one.npy", npy(frames(50))))
    parts = read_grid_parts(GridReadOptions(source=(one,), split=(0.6, 0.2, 0.2)))
    np.testing.assert_array_equal(parts.val.frames([0])[0, 0], frames(50)[30])
    clips = str(saved(tmp_path / "clips.npy", npy(frames(10, 5, 1, 16, 12))))
    parts = read_grid_parts(GridReadOptions(source=(clips,)))
    assert [part.num_clips for part in parts.named().values()] == [8, 1, 1]
    assert set(read_grids_or_parts(GridReadOptions(source=(one,)))) == {"all"}


def test_missing_cells_are_masked_filled_or_refused(tmp_path: Path) -> None:
    land = np.where(np.arange(12) < 3, -32768, (100 * frames()).astype(np.int16)).astype(np.int16)
    path = str(saved(tmp_path / "land.npy", npy(land)))
    centi = {"missing_value": -32768.0, "factor": 0.01}
    series = read_grid(path, GridReadOptions(missing="mask", **centi))
    assert series.mask is not None and series.mask.shape == (16, 12) and series.mask.sum() == 16 * 9
    assert np.nanmax(series.frames(range(60))) == pytest.approx(0.99, abs=0.011)
    filled = read_grid(path, GridReadOptions(missing="fill", fill=-1.0, **centi))
    assert filled.mask is None and filled.frames([5]).min() == -1.0
    moving = frames().copy()
    moving[7, 2, 3] = np.nan
    series = read_grid(str(saved(tmp_path / "moving.npy", npy(moving))), GridReadOptions(missing="mask"))
    assert series.mask is not None and series.mask.shape == series.shape and (~series.mask).sum() == 1
    assert not series.valid([7])[0, 0, 2, 3]


def test_netcdf_is_lazy_with_levels_as_channels_and_years_in_order(tmp_path: Path) -> None:
    values = RANDOM.random((6, 2, 16, 12), dtype=np.float32)
    for year in (2001, 2000):
        times = np.datetime64(f"{year}-01-01") + np.arange(6)
        axes = {"time": times, "level": [500, 850], "lat": np.linspace(58, 50, 16), "lon": np.arange(12.0)}
        data = xr.Dataset({"t": (("time", "level", "lat", "lon"), values + (year - 1730))}, coords=axes)
        data["t"].attrs["units"] = "K"
        (tmp_path / "t").mkdir(exist_ok=True)
        data.to_netcdf(tmp_path / "t" / f"t_{year}.nc", engine="h5netcdf")
    series = read_grid(str(tmp_path / "t"), GridReadOptions())
    assert series.shape == (12, 2, 16, 12) and series.channels == ("t_500", "t_850") and series.units == ("K", "K")
    np.testing.assert_allclose(series.frames([1, 7]), np.stack([values[1] + 270, values[1] + 271]))
    assert [len(run) for run in series.runs()] == [6, 6]
    data.to_zarr(tmp_path / "t.zarr", zarr_format=2, consolidated=False)
    again = read_grid(str(tmp_path / "t.zarr"), GridReadOptions(variable=("t",)))
    np.testing.assert_allclose(again.frames([0, 5, 2]), values[[0, 5, 2]] + 270)


@pytest.mark.parametrize("form", ["NETCDF3_CLASSIC", "NETCDF3_64BIT"])
@pytest.mark.parametrize("unlimited", [False, True])
def test_netcdf_3_is_read_like_netcdf_4(form: Any, unlimited: bool, tmp_path: Path) -> None:
    values = RANDOM.random((5, 6, 4), dtype=np.float32) + 280
    values[2, 3, 1] = np.nan
    axes = {"time": np.datetime64("2020-01-30", "ns") + np.arange(5) * np.timedelta64(1, "D"),
            "lat": np.linspace(58, 50, 6), "lon": np.arange(4.0)}  # fmt: skip
    data = xr.Dataset({"sst": (("time", "lat", "lon"), values, {"units": "K"})}, coords=axes)
    series: list[Any] = []
    for name, how in (("a.nc", {"engine": "scipy", "format": form}), ("b.nc", {"engine": "h5netcdf"})):
        data.to_netcdf(tmp_path / name, unlimited_dims=["time"] * unlimited, **how)
        series.append(read_grid(str(tmp_path / name), GridReadOptions(missing="mask")))
    old, new = series
    assert (tmp_path / "a.nc").read_bytes().startswith(b"CDF") and not isinstance(old.values, np.ndarray)
    for part in ("shape", "channels", "units", "clip_names", "value_range"):
        assert getattr(old, part) == getattr(new, part)
    for part in ("times", "y", "x", "mask"):
        np.testing.assert_array_equal(getattr(old, part), getattr(new, part))
    np.testing.assert_array_equal(old.frames([4, 0, 2]), values[[4, 0, 2], None])


def test_frame_folders_sort_by_number_and_break_where_one_is_missing(tmp_path: Path) -> None:
    for number in (*range(1, 12), *range(15, 20)):
        saved(tmp_path / "film" / f"frame{number}.png", picture(seed=number))
    series = read_grid(str(tmp_path / "film"), GridReadOptions())
    assert (
        series.shape == (16, 1, 16, 12) and series.clip_names == ("film", "film@15") and series.value_range == (0, 255)
    )
    want = np.random.default_rng(10).integers(0, 256, (16, 12), dtype=np.uint8)
    np.testing.assert_array_equal(series.frames([9])[0, 0], want)
    for clip in ("a", "b"):
        for number in range(4):
            saved(tmp_path / "two" / clip / f"{number}.jpg", picture(mode="RGB", ending="JPEG"))
    series = read_grid(str(tmp_path / "two"), GridReadOptions(size=(8, 8), color="gray"))
    assert series.shape == (8, 1, 8, 8) and series.clip_names == ("a", "b")


def test_large_collections_of_images_are_decoded_when_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stcore.readers import frames as frame_reader

    for number in range(5):
        saved(tmp_path / f"{number}.png", picture(seed=number))
    at_once = read_grid(str(tmp_path), GridReadOptions())
    monkeypatch.setattr(frame_reader, "AT_ONCE_BYTES", 0)
    lazy = read_grid(str(tmp_path), GridReadOptions())
    assert isinstance(lazy.values, frame_reader.ImageFrames) and isinstance(at_once.values, np.ndarray)
    np.testing.assert_array_equal(lazy.frames([4, 1]), at_once.frames([4, 1]))


def test_videos_are_clips_with_a_step(tmp_path: Path) -> None:
    saved(tmp_path / "one.avi", video_bytes(20))
    series = read_grid(str(tmp_path / "one.avi"), GridReadOptions(color="gray"))
    assert series.shape == (20, 1, 32, 48) and series.step == np.timedelta64(40_000, "us")
    first = series.frames([0, 10])[:, 0]
    assert abs(first[0, 12, 4] - 200) < 12 and abs(first[1, 12, 4] - 40) < 12 and abs(first[1, 12, 14] - 200) < 12
    saved(tmp_path / "two.avi", video_bytes(8))
    both = read_grid(str(tmp_path), GridReadOptions())
    assert both.shape == (28, 3, 32, 48) and both.clip_names == ("one.avi", "two.avi")


def test_split_folders_of_digits_and_flows(tmp_path: Path) -> None:
    for part, count in (("train", 3), ("validation", 1), ("test", 2)):
        for number in range(1, count + 1):
            both = frames(20, 1, 8, 8) * number / 4
            saved(tmp_path / "mnist" / part / f"example{number:06d}.npz", npz(inputs=both[:10], labels=both[10:]))
            flow = RANDOM.integers(0, 1293, (8, 2, 8, 8)).astype(np.float64)
            saved(tmp_path / "taxi" / part / f"example{number:06d}.npy", npy(flow))
    parts = read_grid_parts(GridReadOptions(source=(str(tmp_path / "mnist"),)))
    assert [part.num_clips for part in parts.named().values()] == [3, 1, 2] and parts.train.value_range == (0.0, 1.0)
    history, future = find_windows(parts.test, history=10, horizon=10).load(np.array([1]))
    np.testing.assert_allclose(np.concatenate([history[0], future[0]]), frames(20, 1, 8, 8) / 2)
    parts = read_grid_parts(GridReadOptions(source=(str(tmp_path / "taxi"),)))
    assert parts.test.shape == (16, 2, 8, 8) and parts.test.value_range == (0.0, 1292.0)
    np.testing.assert_array_equal(parts.test.frames(range(8, 16)), flow.astype(np.float32))


def test_split_folders_of_frames_are_grey(tmp_path: Path) -> None:
    for part, count in (("train", 2), ("validation", 1), ("test", 1)):
        for clip in range(1, count + 1):
            for number in range(20):
                name = f"{part}/example{clip:06d}/frame_{number}.png"
                saved(tmp_path / name, picture((8, 8), mode="RGB", seed=number))
    parts = read_grid_parts(GridReadOptions(source=(str(tmp_path),)))
    assert parts.train.shape == (40, 1, 8, 8) and parts.train.clip_names == ("example000001", "example000002")
    red, green, blue = np.random.default_rng(10).integers(0, 256, (8, 8, 3), dtype=np.uint8).transpose(2, 0, 1)
    gray = 0.299 * red + 0.587 * green + 0.114 * blue
    assert np.abs(parts.test.frames([10])[0, 0] - gray).max() < 1.0


def test_kth_is_split_by_person_and_cut_by_its_rule(tmp_path: Path) -> None:
    for kind in ("boxing", "jogging"):
        for person in (1, 2, 16, 17):
            for number in [*range(1, 13), *range(40, 52)]:
                name = f"{kind}/person{person:02d}_{kind}_d1_uncomp/image_{number:04d}.jpg"
                saved(tmp_path / name, picture((12, 16), mode="RGB", ending="JPEG", seed=person))
    parts = read_grid_parts(GridReadOptions(source=(str(tmp_path),), size=(16, 16)))
    persons = {
        name: {clip[clip.index("person") :][6:8] for clip in part.clip_names} for name, part in parts.named().items()
    }
    assert persons == {"train": {"01"}, "val": {"02", "16"}, "test": {"17"}}
    assert parts.test.shape == (48, 1, 16, 16) and parts.test.num_clips == 4 and parts.test.step is not None
    windows = find_windows(parts.test, history=3, horizon=3, rule="kth")
    assert windows.starts.tolist() == [0, 6, 12, 18, 24, 27, 30, 36, 39, 42]
    assert read_grid_parts(GridReadOptions(source=(str(tmp_path),))).train.shape[2:] == (128, 128)


def test_kth_videos_are_read_as_they_are_published(tmp_path: Path) -> None:
    for person in (1, 2, 20):
        saved(tmp_path / f"person{person:02d}_walking_d1_uncomp.avi", video_bytes(6))
    parts = read_grid_parts(GridReadOptions(source=(str(tmp_path),), size=(16, 24)))
    assert parts.train.clip_names == ("walking/person01_walking_d1_uncomp",) and parts.test.shape == (6, 1, 16, 24)


KTH_LIST = """
This database contains sequences of six classes of actions.
Training:   person11, 12
Test:       person22, 02, 03


person01_walking_d1\t\tframes\t1-3, 6-8, 8-9, 5-5
person02_walking_d1    \tframes\t2-4, 5-40
person02_walking_d3\t*missing*
"""


def test_kth_keeps_the_frames_that_the_publisher_lists(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for person in (1, 2, 20):
        saved(tmp_path / "videos/walking" / f"person{person:02d}_walking_d1_uncomp.avi", video_bytes(10))
        for number in range(1, 11):
            name = f"images/walking/person{person:02d}_walking_d1/image_{number:04d}.jpg"
            saved(tmp_path / name, picture((12, 16), mode="RGB", ending="JPEG", seed=number))
    whole = read_grid(str(tmp_path / "videos"), GridReadOptions(size=(16, 24))).frames(range(30))
    for kind in ("videos", "images"):
        saved(tmp_path / kind / "00sequences.txt", KTH_LIST.encode())
        caplog.clear()
        parts = read_grid_parts(GridReadOptions(source=(str(tmp_path / kind),), size=(16, 24)))
        tail = "_uncomp" * (kind == "videos")
        first, second = f"person01_walking_d1{tail}", f"person02_walking_d1{tail}"
        assert parts.train.clip_names == (f"walking/{first}", f"walking/{first}@5")
        assert parts.val.clip_names == (f"walking/{second}",)
        assert [len(run) for run in parts.train.runs()] == [3, 5] and (len(parts.val), len(parts.test)) == (9, 10)
        assert "no ranges of walking/person20" in caplog.text  # not in the list: as it is
        if kind == "videos":
            np.testing.assert_array_equal(parts.train.frames(range(8)), whole[[0, 1, 2, 4, 5, 6, 7, 8]])
            assert "ends at frame 10, before its last range" in caplog.text


@pytest.mark.parametrize(("text", "found"), [
    ("person01_walking_d1 frames 1-3, 5", r"line 1: range '5'; expected two rising frame numbers"),
    ("\nperson01_walking_d1 frames 9-3", r"line 2: range '9-3'; expected two rising"),
    ("person01_walking_d1 frames 0-3", r"range '0-3'"),
    ("person01_walking_d1 1-3", r"line 1: 'person01_walking_d1 1-3'; expected a name, the word frames"),
    ("nothing of that kind", r"no line such as 'person01_boxing_d1 frames"),
    ("person01_walking_d1 frames 90-99", r"person01_walking_d1: 4 frames; expected some in its ranges, from 90"),
    ("person01_walking_d1 frames 1-\0", r"no list of frame ranges"),
])  # fmt: skip
def test_a_wrong_list_of_kth_is_refused(text: str, found: str, tmp_path: Path) -> None:
    for person in (1, 2, 20):
        saved(tmp_path / f"person{person:02d}_walking_d1.avi", video_bytes(4))
    saved(tmp_path / "00sequences.txt", text.encode())
    with pytest.raises(UserError, match=rf"00sequences\.txt: .*{found}"):
        read_grid_parts(GridReadOptions(source=(str(tmp_path),), size=(16, 24)))


def test_the_taxibj_archive_becomes_counts(tmp_path: Path) -> None:
    counts = RANDOM.integers(0, 1293, (6, 8, 2, 8, 8))
    scaled = (2.0 * counts / 1292.0 - 1.0).astype(np.float32)
    arrays = {"X_train": scaled[:4, :4], "Y_train": scaled[:4, 4:], "X_test": scaled[4:, :4], "Y_test": scaled[4:, 4:]}
    parts = read_grid_parts(GridReadOptions(source=(str(saved(tmp_path / "dataset.npz", npz(**arrays))),)))
    assert [part.num_clips for part in parts.named().values()] == [3, 1, 2]
    assert parts.train.channels == ("inflow", "outflow") and parts.train.value_range == (0.0, 1292.0)
    history, future = find_windows(parts.test, history=4, horizon=4).load(np.array([0, 1]))
    np.testing.assert_allclose(np.concatenate([history, future], 1), counts[4:], atol=1e-3)


def test_yearly_taxibj_files_have_gap_free_windows_and_test_on_the_last_weeks(tmp_path: Path) -> None:
    for year, count in ((13, 70), (14, 60)):
        dates = [f"20{year}{month:02d}{day:02d}{slot:02d}".encode() for month in (5, 6, 7) for day in range(1, 31)
                 for slot in range(1, 49)][: count * 48]  # fmt: skip
        del dates[100:103]  # a hole of an hour and a half
        with h5py.File(tmp_path / f"BJ{year}_M32x32_T30_InOut.h5", "w") as file:
            file["data"] = RANDOM.integers(0, 1293, (len(dates), 2, 4, 4)).astype(np.float32)
            file["date"] = np.array(dates)
    parts = read_grid_parts(GridReadOptions(source=(str(tmp_path),)))
    assert len(parts.test) == 28 * 48 and parts.train.channels == ("inflow", "outflow")
    assert parts.test.times is not None and parts.val.times is not None and parts.train.times is not None
    assert parts.test.times[0] - parts.val.times[-1] == np.timedelta64(30, "m")
    windows = find_windows(parts.train, history=4, horizon=4)
    moments = windows.times(np.arange(len(windows)))
    assert moments is not None and (np.diff(moments, axis=1) == np.timedelta64(30, "m")).all()
    assert str(parts.train.times[0]) == "2013-05-01T00:00:00.000000" and parts.train.step == np.timedelta64(30, "m")


def test_files_that_would_unpack_to_more_than_memory_are_refused_from_their_headers(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("flow", (10**6, 1000, 1000), "f4", chunks=(1, 100, 100), compression="gzip")
    with h5netcdf.File(tmp_path / "a.nc", "w") as file:
        file.dimensions = {"time": 100, "lat": 10**6, "lon": 10**6}
        file.create_variable("flow", ("time", "lat", "lon"), "f4", chunks=(1, 100, 100), compression="gzip")
    for name, found in (("a.h5", "arrays of 4,000,000,000,000 bytes"), ("a.nc", "100 frames of 4,000,000,000,000")):
        start = time.process_time()
        with pytest.raises(UserError, match=found):
            read_grid(str(tmp_path / name), GridReadOptions())
        assert time.process_time() - start < 2.0
    data = xr.Dataset({"t": (("time", "lat", "lon"), np.zeros((64, 32, 32), np.float32))})
    data.to_zarr(tmp_path / "a.zarr", zarr_format=2, consolidated=False, encoding={"t": {"chunks": (64, 32, 32)}})
    with pytest.raises(UserError, match="chunks of 262,144 bytes; expected at most 100,000"):
        read_grid(str(tmp_path / "a.zarr"), GridReadOptions(max_bytes=100_000))


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_of_digits(packed: bool, tmp_path: Path) -> None:
    digits = RANDOM.integers(0, 256, (5, 28, 28), dtype=np.uint8)
    pack = gzip.compress if packed else bytes
    images = saved(tmp_path / "i", pack(struct.pack(">4I", 2051, 5, 28, 28) + digits.tobytes()))
    labels = saved(tmp_path / "l", pack(struct.pack(">2I", 2049, 5) + bytes([3, 1, 4, 1, 5])))
    np.testing.assert_array_equal(read_idx_images(images), digits)
    assert read_idx_labels(labels).tolist() == [3, 1, 4, 1, 5]
    with pytest.raises(UserError, match="idx file of bytes with 3 axes"):
        read_idx_images(labels)
    whole = digits.tobytes()
    for wrong, found in ((whole[:-1], "3,919 bytes for 5 x 28 x 28"), (whole + b"1", "more bytes")):
        cut = saved(tmp_path / "c", pack(struct.pack(">4I", 2051, 5, 28, 28) + wrong))
        with pytest.raises(UserError, match=rf"{found}.*expected 3,920"):
            read_idx_images(cut)
    huge = saved(tmp_path / "h", pack(struct.pack(">4I", 2051, 2**31, 2**16, 2**16) + bytes(9)))
    with pytest.raises(UserError, match="declares 9,223,372,036,854,775,808 bytes"):
        read_idx_images(huge)


@pytest.mark.parametrize(
    "options",
    [
        {"layout": "TCH"}, {"layout": "TTHW"}, {"layout": "TXHW"}, {"split": (0.5, 0.1, 0.1)}, {"max_bytes": -1},
        {"value_range": (1.0, 1.0)}, {"factor": 0.0}, {"fill": float("nan")}, {"size": (0, 4)}, {"cuts": (3, 3)},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_options_are_refused_before_any_file_is_opened(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"data\.\S+: .*; expected"):
        GridReadOptions(**options)


def test_cards_of_grids_are_complete_and_apart_from_those_of_events() -> None:
    for name, card in catalog.cards("grids", "digits").items():
        assert card.name == name and name not in catalog.CARDS and "commit" in card.source and card.size_mb > 0
        assert all(len(bytes.fromhex(file.sha256)) == 32 for file in card.files) and len(card.licence) > 2
        assert bool(card.files) != bool(card.by_hand) and card.content and card.axes and card.units
        if card.kind == "grids":
            assert catalog.reading_options(card, GridReadOptions()) != GridReadOptions()
    assert catalog.known("taxi_grid_40") is None and catalog.find("TAXI_grid_40", "grids").kind == "grids"
    with pytest.raises(UserError, match=r"'t'.*expected one of kth_clips_32, small_videos"):
        catalog.find("t", "grids")


def test_published_sets_are_read_by_name_from_what_was_put_there_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(catalog.DATA_VARIABLE, str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, lost in (("moving-mnist", "mnist_test_seq.npy"), ("kth", "class folders"), ("taxibj", "dataset.npz")):
        card = catalog.find(name, "grids")
        (tmp_path / card.folders[0]).mkdir()  # an empty folder is not the data set
        with pytest.raises(
            UserError, match=rf"^{name}: not found under STCORE_DATA=.*{lost}.*; download .*{lost}.* by hand"
        ):
            read_grid(name, GridReadOptions())
        with pytest.raises(UserError, match=rf"^{name}: no address .*by hand .*a folder {card.folders[0]} under"):
            catalog.fetch(card)
        assert not catalog.is_here(card)
    moving = RANDOM.integers(0, 256, (20, 7, 64, 64), dtype=np.uint8)
    saved(tmp_path / "moving_mnist/mnist_test_seq.npy", npy(moving))
    saved(tmp_path / "moving_mnist/train-images-idx3-ubyte.gz", gzip.compress(struct.pack(">4I", 2051, 0, 28, 28)))
    series = read_grid("moving-mnist", GridReadOptions())
    assert (series.num_clips, series.units, series.value_range) == (7, ("gray value",), (0.0, 255.0))
    np.testing.assert_array_equal(series.frames(range(40, 60))[:, 0], moving[:, 2])
    for person in (1, 2, 17):
        for number in range(1, 4):
            name = f"kth/boxing/person{person:02d}_boxing_d1_uncomp/image_{number:04d}.jpg"
            saved(tmp_path / name, picture((12, 16), mode="RGB", ending="JPEG", seed=person))
    assert read_grid_parts(GridReadOptions(source=("KTH",))).test.shape == (3, 1, 128, 128)
    arrays = {name: np.full((2, 4, 2, 4, 4), 0.5, np.float32) for name in ("X_train", "Y_train", "X_test", "Y_test")}
    saved(tmp_path / "taxibj/dataset.npz", npz(**arrays))
    assert read_grid_parts(GridReadOptions(source=("taxibj",))).train.frames([0]).max() == 969.0
    assert all(catalog.is_here(catalog.find(name, "grids")) for name in ("moving-mnist", "kth", "taxibj"))


PUBLISHED = {
    "kth_clips_32": ((375, 1, 32, 32), 5), "small_videos": ((120, 1, 72, 88), 1),
    "taxi_grid_40": ((2304, 2, 40, 40), 1), "small_videos_bikes": ((250, 1, 68, 160), 6),
    "nyc_bike_grid": ((1369, 2, 16, 8), 1),
    "era5_t2m_uk": ((744, 1, 33, 49), 1), "ersst_monthly": ((128, 1, 89, 180), 1),
    "hadgem_north_america": ((480, 1, 37, 49), 2),
}  # fmt: skip


@pytest.mark.skipif(not os.environ.get(catalog.DATA_VARIABLE), reason="STCORE_DATA is not set: no published data here")
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sets_have_their_sizes_and_checksums(name: str) -> None:
    card = catalog.find(name, "grids")
    folder = catalog.locate(card)
    assert [catalog.checksum(folder / file.path) for file in card.files] == [file.sha256 for file in card.files]
    series = read_grid(name, GridReadOptions())
    assert (series.shape, series.num_clips) == PUBLISHED[name]
    assert sum(len(part) for part in read_grid_parts(GridReadOptions(source=(name,))).named().values()) == len(series)
    if name == "ersst_monthly":
        assert series.mask is not None and 1.0 - series.mask.mean() == pytest.approx(0.314, abs=1e-3)


@pytest.mark.skipif(not os.environ.get(catalog.DATA_VARIABLE), reason="STCORE_DATA is not set: no published data here")
def test_the_published_digits_are_read() -> None:
    folder = catalog.locate(catalog.find("mnist_t10k", "digits"))
    images = read_idx_images(folder / "t10k-images-idx3-ubyte.gz")
    labels = read_idx_labels(folder / "t10k-labels-idx1-ubyte.gz")
    assert images.shape == (10_000, 28, 28) and np.bincount(labels).tolist()[:3] == [980, 1135, 1032]
