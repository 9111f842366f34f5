"""Anyone's arrays, told in TOML; Human3.6M and KITTI in their publishers' layouts, in miniature."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stcore.errors import UserError
from stcore.grids import GridSeries
from stcore.readers.grid_options import GridReadOptions
from stcore.readers.grids import read_grid, read_grid_parts
from stcore.readers.human36m import SUBJECTS, cubic_weights, resize_cubic
from stcore.splits import Parts
from stcore.windows import find_windows, spaced_windows

RNG = np.random.default_rng(3)
WHOLE = """
values = "fields.npy"
layout = "THWC"
channels = ["t2m", "tcc"]
units = ["K", "1"]
start = "2019-03-01T00:00"
step = "6 hours"
latitude = { first = 58.0, last = 50.0 }
longitude = [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
missing_value = -9999
mask = "land.npy"
value_range = [0, 400]
"""


def fields(count: int = 40, *shape: int) -> np.ndarray:
    return RNG.uniform(270.0, 290.0, (count, *(shape or (5, 6, 2)))).astype(np.float32)


def described(folder: Path, text: str, **arrays: np.ndarray) -> str:
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    (folder / "grid.toml").write_text(text)
    return str(folder / "grid.toml")


def test_a_few_lines_tell_everything(tmp_path: Path) -> None:
    values, land = fields(), RNG.random((5, 6)) > 0.3
    values[:, ~land] = -9999.0
    series = read_grid(described(tmp_path, WHOLE, fields=values, land=land), GridReadOptions())
    assert series.shape == (40, 2, 5, 6) and series.channels == ("t2m", "tcc") and series.units == ("K", "1")
    assert series.times is not None and str(series.times[-1]) == "2019-03-10T18:00:00.000000"
    assert series.y is not None and series.y.tolist() == [58.0, 56.0, 54.0, 52.0, 50.0]
    assert series.axis_names == ("latitude", "longitude") and series.value_range == (0.0, 400.0)
    np.testing.assert_array_equal(series.mask, land)
    np.testing.assert_array_equal(series.frames([9])[0, 1][land], values[9, ..., 1][land])
    turned = read_grid(str(tmp_path / "grid.toml"), GridReadOptions(order="common"))
    np.testing.assert_array_equal(turned.frames([9]), series.frames([9])[:, :, ::-1])


def test_files_follow_one_another_and_are_mapped(tmp_path: Path) -> None:
    first, second = fields(20, 5, 6), fields(13, 5, 6)
    series = read_grid(described(tmp_path, 'values = ["a.npy", "b.npy"]', a=first, b=second), GridReadOptions())
    np.testing.assert_array_equal(series.frames([19, 20])[:, 0], np.stack([first[19], second[0]]))
    assert isinstance(series.values.pieces[1].base, np.memmap) and series.axis_names == ("y", "x")


def test_times_from_a_file_or_a_list_and_clips(tmp_path: Path) -> None:
    times = np.datetime64("2001-01", "M") + np.arange(4)
    text = 'values = "a.npy"\ntimes = "when.npy"\ny = "lat.npy"'
    series = read_grid(described(tmp_path, text, a=fields(4, 5, 6), when=times, lat=np.arange(5)), GridReadOptions())
    assert series.step == np.timedelta64(1, "M") and series.y is not None and series.y[4] == 4.0
    text = 'values = "a.npy"\ntimes = ["2001-01-01", 2001-01-02, "2001-01-03T00:00", 2001-01-04T00:00:00]'
    series = read_grid(described(tmp_path, text, a=fields(4, 5, 6)), GridReadOptions())
    assert series.step == np.timedelta64(86_400_000_000, "us")
    clips = read_grid(described(tmp_path, 'values = "a.npy"\nlayout = "NTHW"', a=fields(4, 7, 5, 6)), GridReadOptions())
    assert clips.num_clips == 4 and clips.num_frames == 28


def saved(path: Path, pixels: np.ndarray, kind: str = "JPEG") -> None:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, quality=100, subsampling=0)
    path.write_bytes(buffer.getvalue())


def human(folder: Path, lists: dict[str, list[str]], size: tuple[int, int] = (32, 32)) -> Path:
    """Write lists and the images that they name; the brightness of an image tells its number."""
    (folder / "images").mkdir(parents=True)
    for name, lines in lists.items():
        (folder / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
        for line in lines:
            prefix, begin, _ = line.split(",")
            for number in range(int(begin), int(begin) + 40, 5):
                pixels = np.full((*size, 3), (number % 200, 20, 220), np.uint8)
                saved(folder / "images" / f"{prefix}{number:06d}.jpg", pixels)
    return folder


LISTS = {
    "train": ["S1_Walking_1.54138969_,0,40", "S1_Walking_1.54138969_,25,65", "S5_Eating_,10,50", "S8_Posing_,0,40"],
    "test": ["S9_Walking_,5,45", "S11_Eating_,0,40", "S1_Walking_1.54138969_,50,90", "S6_Sitting_,0,40"],
}


def test_people_make_the_parts_of_human36m(tmp_path: Path) -> None:
    parts = read_grid_parts(GridReadOptions(source=(str(human(tmp_path / "human", LISTS)),), size=(32, 32)))
    assert [part.num_clips for part in parts.named().values()] == [5, 1, 2]
    assert parts.train.clip_names[1] == "S1_Walking_1.54138969_000025" and parts.train.channels[0] == "red"
    reds = parts.train.frames(range(8, 16))[:, 0].mean(axis=(1, 2))
    np.testing.assert_allclose(reds, np.arange(25, 65, 5), atol=2.0)
    windows = find_windows(parts.test, history=4, horizon=4)
    assert len(windows) == 2 and parts.train.step == np.timedelta64(100_000, "us")


def test_the_lists_are_parts_as_published_with_blue_first(tmp_path: Path) -> None:
    folder = str(human(tmp_path, LISTS))
    parts = read_grid_parts(GridReadOptions(source=(folder,), size=(32, 32), protocol="paper"))
    assert [part.num_clips for part in parts.named().values()] == [4, 4, 4]
    assert parts.val.channels == ("blue", "green", "red")
    np.testing.assert_allclose(parts.test.frames([1])[0].mean(axis=(1, 2)), [220, 20, 10], atol=2.0)


def test_images_of_another_height_are_resized_by_the_cubic_kernel(tmp_path: Path) -> None:
    series = read_grid_parts(GridReadOptions(source=(str(human(tmp_path, LISTS, (40, 30))),), size=(16, 24))).val
    assert series.shape == (8, 3, 16, 24)
    np.testing.assert_allclose(series.frames([0])[0, 2], 220.0, atol=2.0)


def test_cubic_weights_follow_the_kernel_and_keep_flat_images_flat() -> None:
    np.testing.assert_allclose(cubic_weights(13, 7).sum(axis=1), 1.0, atol=1e-6)
    # Twice as many pixels: centres at -0.25 and 0.25 of the old ones; Keys' kernel with a = -0.75 by hand.
    inner = cubic_weights(8, 16)[8]  # at 3.75
    np.testing.assert_allclose(inner[2:6], [-0.03515625, 0.26171875, 0.87890625, -0.10546875], atol=1e-6)
    edge = cubic_weights(8, 16)[0]  # at -0.25: what lies beyond the edge repeats it
    np.testing.assert_allclose(edge[:2], [-0.03515625 + 0.26171875 + 0.87890625, -0.10546875], atol=1e-6)
    assert (resize_cubic(np.full((9, 7, 3), 200, np.uint8), (4, 5)) == 200).all()
    image = RNG.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    np.testing.assert_array_equal(resize_cubic(image, (6, 6)), image)


def test_every_person_of_the_split_is_in_one_part() -> None:
    people = [person for mine in SUBJECTS.values() for person in mine]
    assert sorted(people) == [1, 5, 6, 7, 8, 9, 11]


def kitti(folder: Path, dtype: type = np.uint8) -> Parts[np.ndarray]:
    """Write arrays as OpenSTL keeps them and return the frames."""
    folder.mkdir(parents=True)
    frames = {}
    for part, clips in (("train", [12, 11, 25, 9]), ("test", [11, 13])):
        data = RNG.integers(0, 256, (sum(clips), 16, 20, 3), dtype=np.uint8)
        frames[part] = data if dtype is np.uint8 else (data / 255.0).astype(dtype)
        np.save(folder / f"{part}_data.npy", frames[part])
        np.save(folder / f"{part}_idx.npy", np.repeat([f"{part}-{at}" for at in range(len(clips))], clips))
    return Parts(frames["train"], frames["test"], frames["test"])


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_kitti_clips_and_windows_from_their_ends(dtype: type, tmp_path: Path) -> None:
    frames = kitti(tmp_path / "kitticaltech_npy", dtype)
    parts: Parts[GridSeries] = read_grid_parts(GridReadOptions(source=(str(tmp_path),), protocol="paper"))
    assert parts.train.clip_names == ("train-0", "train-1", "train-2", "train-3")
    assert parts.train.value_range == ((0.0, 255.0) if dtype is np.uint8 else (0.0, 1.0))
    windows = find_windows(parts.train, history=10, horizon=1, rule="kth")
    assert windows.starts.tolist() == [1, 12, 26, 37]  # from the end of each clip back; the last clip is too short
    history, future = windows.load(np.array([2]))
    expected = np.moveaxis(frames.train[26:37], -1, 1).astype(np.float32)
    np.testing.assert_array_equal(np.concatenate([history[0], future[0]]), expected)
    assert len(parts.val) == len(parts.test) == 24
    strict = read_grid_parts(GridReadOptions(source=(str(tmp_path),)))
    assert strict.val.num_clips == 1 and strict.val.clip_names[0].startswith("train")


@pytest.mark.parametrize("raw", ["kitti_hkl/X_train.hkl", "caltech/set06/V000.seq"])
def test_hickle_and_seq_are_named_with_what_to_do(raw: str, tmp_path: Path) -> None:
    (tmp_path / raw).parent.mkdir(parents=True)
    (tmp_path / raw).write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(UserError, match=r"hickle files or .seq films; expected kitticaltech_npy.*numpy.save") as caught:
        read_grid_parts(GridReadOptions(source=(str(tmp_path),)))
    assert "\n" not in str(caught.value)


def test_spaced_windows_lie_around_their_anchors() -> None:
    clip = np.repeat([0, 1], [20, 9])
    series = GridSeries(values=np.arange(29.0).reshape(-1, 1, 1, 1), clip=clip)
    windows = spaced_windows(series, inputs=(-5, -2, 0), outputs=(1, 4))
    assert len(windows) == 11 and windows.starts.tolist() == list(range(11))  # the second clip has one frame too few
    history, future = windows.load(np.array([3]))
    assert history.reshape(-1).tolist() == [3.0, 6.0, 8.0] and future.reshape(-1).tolist() == [9.0, 12.0]
    assert windows.valid(np.array([3]))[1].shape == (1, 2, 1, 1, 1)
    assert len(spaced_windows(series, inputs=(-5, -2, 0), outputs=(1, 4), stride=3, drop_last=1)) == 4
    for inputs, outputs in (((-2, -1), (1,)), ((0, -1), (1,)), ((0,), (0,)), ((), (1,))):
        with pytest.raises(UserError, match="expected rising ones, the history up to 0"):
            spaced_windows(series, inputs=inputs, outputs=outputs)
    with pytest.raises(UserError, match=r"longest stretch without a gap has 20; expected at least 26"):
        spaced_windows(series, inputs=(-20, 0), outputs=(5,))
