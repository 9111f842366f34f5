"""Sources of frames that are wrong in one way each, with what the message must say: for readers and for commands."""

from __future__ import annotations

import gzip
import io
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image


@dataclass(frozen=True)
class MalformedGrid:
    """One wrong source of frames."""

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
        """The options of reading and the lengths of windows as flags of `stpred train`."""
        flags: list[str] = []
        for name, value in self.options.items():
            flags += [f"--data.{name.replace('_', '-')}", *map(str, value if isinstance(value, tuple) else (value,))]
        lengths = ("--data.history", str(self.history), "--data.horizon", str(self.horizon))
        return ("--preset", "demo", "--data.generate.sequences", "0", *lengths, *flags)


Add = Callable[..., None]


def npy(array: Any, *, pickled: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=pickled)
    return buffer.getvalue()


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def header(shape: tuple[int, ...], dtype: str = "<f4") -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def hdf5(**datasets: Any) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, data in datasets.items():
            file[name] = data
    return buffer.getvalue()


def picture(size: tuple[int, int] = (16, 12), mode: str = "L", ending: str = "PNG", seed: int = 0) -> bytes:
    """Return an image of height and width `size`."""
    shape = (*size, 3) if mode == "RGB" else size
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, ending)
    return buffer.getvalue()


def frames(count: int = 60, *shape: int) -> np.ndarray[Any, Any]:
    """Return smooth moving frames (time, …) in [0, 1]."""
    shape = shape or (16, 12)
    time = np.arange(count).reshape(-1, *(1,) * len(shape))
    place = np.arange(int(np.prod(shape))).reshape(1, *shape)
    return (0.5 + 0.5 * np.sin(0.3 * time + 0.05 * place)).astype(np.float32)


def with_cell(value: float, at: tuple[int, ...], array: np.ndarray[Any, Any] | None = None) -> np.ndarray[Any, Any]:
    array = frames() if array is None else array
    array[at] = value
    return array


def hourly(count: int = 60) -> np.ndarray[Any, Any]:
    return np.datetime64("2024-05-01T00:00") + np.arange(count).astype("timedelta64[h]")


def malformed_grid_files(folder: Path) -> list[MalformedGrid]:
    """Write every wrong source into `folder` and return the list of them."""
    cases: list[MalformedGrid] = []

    def add(name: str, content: bytes, expected: str, *, ending: str = ".npy", named: bool = True, **more: Any) -> None:
        path = folder / (name.replace(" ", "_").replace("/", "_") + ending)
        path.write_bytes(content)
        file = (path.name,) if named else ()
        fields = {key: more.pop(key) for key in ("history", "horizon") if key in more}
        cases.append(MalformedGrid(name, (path,), (*file, *expected.split(" | ")), more, **fields))

    def add_folder(name: str, files: dict[str, bytes], expected: str, **options: Any) -> None:
        path = folder / name.replace(" ", "_")
        path.mkdir()
        for relative, content in files.items():
            (path / relative).parent.mkdir(parents=True, exist_ok=True)
            (path / relative).write_bytes(content)
        cases.append(MalformedGrid(name, (path,), (path.name, *expected.split(" | ")), options))

    _places(folder, cases)
    _files(add)
    _shapes(add)
    _values(add)
    _moments(add)
    _coordinates(add)
    _scientific(add)
    _images(add_folder)
    _published(add, add_folder)
    _videos(add)
    _parts(folder, cases)
    return cases


def _places(folder: Path, cases: list[MalformedGrid]) -> None:
    """Things that are no files."""
    pipe, loop, inside = folder / "pipe.npy", folder / "loop.npz", folder / "empty_folder"
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    inside.mkdir()
    for name, path, found in (
        ("missing file", folder / "missing.npy", "missing.npy | no such file | expected a file of frames"),
        ("pipe", pipe, "pipe.npy | a pipe | expected a regular file"),
        ("device", Path("/dev/zero"), "/dev/zero | a device | expected a regular file"),
        ("link to itself", loop, "loop.npz | leads back to itself | expected"),
        ("empty folder", inside, "empty_folder | 0 files of arrays | no images or videos | expected frames"),
        ("digits as frames", Path("mnist_t10k"), "mnist_t10k | a data set of digits | expected one of kth_clips_32"),
    ):
        cases.append(MalformedGrid(name, (path,), tuple(found.split(" | "))))
    if os.geteuid() != 0:
        secret = folder / "secret.npy"
        secret.write_bytes(npy(frames()))
        secret.chmod(0)
        cases.append(MalformedGrid("no permission", (secret,), ("secret.npy", "no permission", "expected a readable")))


def _files(add: Add) -> None:
    """Files that are not what their names say, or not whole, or too large."""
    good = npz(frames=frames())
    add("empty file", b"", "empty file | expected frames")
    add("unknown ending", npy(frames()), "'.dat' | expected one of .npy", ending=".dat")
    add("one picture", picture(), "one image | expected a folder of frames", ending=".png")
    add("no npy", b"time,x,y\n1,2,3\n", "starts with b'time,x' | expected a NumPy array")
    add("cut npy", npy(frames())[:-100], "45,980 bytes for shape (60, 16, 12) of float32 | expected 46,080")
    add("npy header without end", npy(frames())[:60], "broken header | expected a NumPy array")
    add("huge npy", header((10**5, 10**5, 10**5)) + bytes(64), "64 bytes | expected 4,000,000,000,000,000")
    add("npy of objects", npy(np.array([[[{}]]]), pickled=True), "Python objects | expected numbers")
    add(
        "pickled npy", npy(np.array([frames(2), None], dtype=object), pickled=True), "Python objects | expected numbers"
    )
    add("complex", npy(frames().astype(np.complex64)), "array of complex64 | expected real numbers")
    add("words", npy(np.full((9, 8, 8), "a")), "array of <U1 | expected real numbers")
    add("table", npy(np.zeros((9, 8, 8), [("a", "f4")])), "expected real numbers")
    add("no zip", npy(frames()), "starts with a NumPy array | expected a zip archive", ending=".npz")
    add("cut npz", good[:-40], "broken zip archive | expected a whole .npz file", ending=".npz")
    add("flipped npz", good[:400] + bytes([good[400] ^ 255]) + good[401:], "broken zip archive | expected a whole",
        ending=".npz")  # fmt: skip
    add("2 GB in a small npz", zipped({"frames.npy": header((2**19, 32, 32)) + bytes(2**20)}),
        "declares arrays of 2,147,483,648 bytes | expected at most | --data.max-bytes", ending=".npz")  # fmt: skip
    add("npz without frames", npz(lat=np.zeros(4), counts=np.zeros((4, 5))), "'counts' (4, 5) | expected one of frames",
        ending=".npz")  # fmt: skip
    add("npz with two", npz(a=frames(), b=frames()), "'a' (60, 16, 12), 'b' | expected to know which | --data.key",
        ending=".npz")  # fmt: skip
    add("npz without key", npz(a=frames()), "no array 'flow' among 'a' | --data.key", ending=".npz", key=("flow",))
    add("clips of two sizes", npz(a=frames(), b=frames(60, 8, 8)), "'b' has frames (1, 8, 8) | expected (1, 16, 12)",
        ending=".npz", key=("a", "b"))  # fmt: skip
    add("over max bytes", npz(frames=frames()), "46,208 bytes | expected at most 1,000 | --data.max-bytes",
        ending=".npz", max_bytes=1000)  # fmt: skip
    add("broken hdf5", hdf5(frames=frames())[:900], "broken HDF5 file | expected a whole one", ending=".h5")
    add("no hdf5", b"PK\x03\x04" + bytes(99), "starts with a zip archive | expected an HDF5", ending=".h5")


def _shapes(add: Add) -> None:
    """Axes."""
    add("one axis", npy(np.zeros(60)), "shape (60,) | expected three to five axes")
    add("two axes", npy(np.zeros((60, 12))), "shape (60, 12) | expected three to five axes")
    add("six axes", npy(np.zeros((2, 2, 2, 2, 2, 2))), "(2, 2, 2, 2, 2, 2) | expected three to five axes")
    add("time last", npy(frames(16, 16, 60)), "(16, 16, 60) | time may come last | --data.layout THW or HWT")
    add("which axis is which", npy(frames(20, 30, 16, 12)), "(20, 30, 16, 12) | cannot be told | --data.layout TCHW")
    add("five axes unclear", npy(np.zeros((3, 6, 8, 9, 9), np.uint8)), "(3, 6, 8, 9, 9) | --data.layout NTCHW")
    add("layout of another rank", npy(frames()), "has 3 axes | expected 4 as --data.layout TCHW", layout="TCHW")
    add("an empty axis", npy(np.zeros((60, 0, 12))), "(60, 0, 12), an axis is empty | expected at least one")
    add("no frames", npy(np.zeros((0, 16, 12))), "(0, 16, 12), an axis is empty")
    add("names of other channels", npy(frames()), "1 channels | expected 2 as --data.channels", channels=("a", "b"))
    add("cut beyond the end", npy(frames()), "data.cuts 60 | expected frames below 60", cuts=(30, 60))


def _values(add: Add) -> None:
    """Values that are no data."""
    add(
        "nan",
        npy(with_cell(np.nan, (17, 3, 5))),
        "frame 17, row 3, column 5: nan (one of 1 cells | --data.missing mask",
    )
    add("infinite", npy(with_cell(np.inf, (0, 15, 11))), "frame 0, row 15, column 11: inf | expected finite values")
    add("nan in a channel", npy(with_cell(np.nan, (4, 1, 2, 3), frames(60, 2, 16, 12))),
        "frame 4, channel 1, row 2, column 3: nan", channels=("0", "1"))  # fmt: skip
    add("all missing", npy(np.full((60, 8, 9), np.nan)), "no cell has data | expected some finite", missing="mask")
    add("missing by number", npy(with_cell(-99.0, (9, 1, 1))), "frame 9, row 1, column 1: nan", missing_value=-99.0)
    add("above the range", npy(with_cell(1.5, (30, 2, 4))), "frame 30, row 2, column 4: 1.5 (one | expected 0 to 1",
        value_range=(0.0, 1.0))  # fmt: skip
    add("unscaled grey", npy((255 * frames()).astype(np.uint8)), "frame 0, row 0, column 0: 127 | expected 0 to 1",
        value_range=(0, 1))  # fmt: skip
    add("below the range", npy(with_cell(-3, (2, 0, 0), np.ones((60, 8, 9), np.int16))),
        "frame 2, row 0, column 0: -3 | expected 0 to 1292", value_range=(0, 1292))  # fmt: skip
    add("beyond single precision", npy(with_cell(1e300, (1, 0, 7), frames().astype(np.float64))),
        "frame 1, row 0, column 7: 1e+300, too large for single precision")  # fmt: skip
    add("overflow by factor", npy(with_cell(1e30, (1, 0, 7))), "frame 1, row 0, column 7: inf | expected finite",
        factor=1e20)  # fmt: skip


def _moments(add: Add) -> None:
    """Times beside the frames."""

    def timed(times: Any, **more: Any) -> bytes:
        return npz(frames=frames(), time=times, **more)

    def changed(at: int, moment: str) -> Any:
        times = hourly().astype("datetime64[s]")
        times[at] = np.datetime64(moment)
        return times

    text = hourly().astype("U16")
    cases: tuple[tuple[str, bytes, str], ...] = (
        ("times fall", timed(changed(7, "2024-04-01T00:00:00")), "frame 7 has 2024-04-01T00:00:00 | rising times"),
        ("a time twice", timed(changed(7, "2024-05-01T06:00:00")), "frame 7 has the same time as | rising times"),
        ("no time", timed(changed(7, "NaT")), "frame 7 has no time | expected a moment"),
        ("fewer times", timed(hourly(59)), "times of shape (59,) | expected (60,)"),
        ("no such hour", timed(np.where(np.arange(60) == 3, "2024-05-01T25:00", text)),
         "time: entry 3 is '2024-05-01T25:00' | a moment that exists"),
        ("mixed zones", timed(np.where(np.arange(60) == 3, "2024-05-01T03:00Z", text)),
         "entry 0 is '2024-05-01T00:00' without a time zone | expected a zone in all"),
        ("word as time", timed(np.where(np.arange(60) == 3, "noon", text)), "entry 3 is 'noon' | a moment"),
        ("step of nothing", npz(frames=frames(), step_minutes=0), "array step_minutes is | one number above 0"),
    )  # fmt: skip
    for name, content, expected in cases:
        add(name, content, expected, ending=".npz")
    uneven = np.cumsum(np.arange(60) % 5 + 1).astype("timedelta64[h]")
    add("gaps everywhere", timed(np.datetime64("2024-05-01") + uneven),
        "expected at least 8 frames for a history of 4 and a horizon of 4", ending=".npz")  # fmt: skip
    add("bad step", npy(frames()), "data.step: 'soon' | expected a number and a unit", named=False, step="soon")
    add("start without a step", npy(frames()), "data.start without a step | --data.step", start="2024-05-01")


def _coordinates(add: Add) -> None:
    lat, lon = np.linspace(50, 58, 16), np.linspace(-10, 2, 12)
    cases: tuple[tuple[str, bytes, str], ...] = (
        ("lat lon swapped", npz(frames=frames(), lat=np.linspace(100, 140, 16), lon=lon),
         "coordinate lat is 100 at 0 | at most 90 degrees | swapped?"),
        ("longitude out of range", npz(frames=frames(), lat=lat, lon=lon + 720), "lon is 710 at 0 | at most 360"),
        ("coordinates of another grid", npz(frames=frames(), lat=lat[:9], lon=lon), "y of shape (9,) | expected (16,)"),
        ("nan as coordinate", npz(frames=frames(), lat=np.where(lat > 57, np.nan, lat)), "lat is nan at 14 | finite"),
        ("words as coordinate", npz(frames=frames(), lat=lat.astype("U4")), "lat is <U4 | expected one number"),
    )  # fmt: skip
    for name, content, expected in cases:
        add(name, content, expected, ending=".npz")


def _scientific(add: Add) -> None:
    """netCDF."""
    import xarray as xr

    def netcdf(**variables: Any) -> bytes:
        return bytes(xr.Dataset(variables).to_netcdf(engine="h5netcdf"))

    field = ("time", "lat", "lon")
    good = netcdf(t=(field, frames()))
    two = netcdf(t=(field, frames()), high=(("time", "y", "x"), frames(60, 8, 9)))
    add("cut netcdf", good[:-3000], "cannot be read | expected a whole netCDF", ending=".nc")
    add("no netcdf", b"time,lat,lon\n" * 9, "starts with b'time,l' | expected an HDF5 (netCDF 4) file", ending=".nc")
    add("netcdf 5", b"CDF\x05" + bytes(99), "netCDF of variant b'\\x05' | expected version 4, or 3", ending=".nc")
    add("empty netcdf 3", b"CDF\x01" + bytes(99), "variables none | expected one with time", ending=".nc")
    old = bytes(xr.Dataset({"t": (field, frames())}).to_netcdf(engine="scipy", format="NETCDF3_CLASSIC"))
    add("cut netcdf 3", old[:-3000], "cannot be read | expected a whole netCDF", ending=".nc")
    add("cut head of netcdf 3", old[:60], "cannot be read | expected a whole netCDF", ending=".nc")
    add("netcdf without a grid", netcdf(a=("time", np.zeros(60))), "variables a | expected one with time", ending=".nc")
    add("no such variable", good, "no variable 't2m' among t | --data.variable", ending=".nc", variable=("t2m",))
    add("two grids", two, "lie on different grids | --data.variable", ending=".nc")
    add("axes without names", netcdf(t=(("a", "b", "c"), frames())), "'t' has axes a, b, c | expected time, rows",
        ending=".nc")  # fmt: skip
    add(
        "nan in netcdf",
        netcdf(t=(field, with_cell(np.nan, (17, 3, 5)))),
        "frame 17, row 3, column 5: nan",
        ending=".nc",
    )


def _images(add: Callable[..., None]) -> None:
    """Folders of images."""
    good = {f"frame_{number:03d}.png": picture(seed=number) for number in range(30)}
    add("mixed sizes", good | {"frame_017.png": picture((16, 10))}, "frame_017.png | 16 x 10 pixels | expected 16 x 12")
    add("mixed colours", good | {"frame_004.png": picture(mode="RGB")}, "frame_004.png | mode RGB | expected L")
    add("text as image", good | {"frame_009.png": b"no image at all"}, "frame_009.png | starts with b'no ima' | a PNG")
    add(
        "cut image", good | {"frame_012.png": good["frame_012.png"][:-60]}, "frame_012.png | broken image | a whole one"
    )
    add("empty image", good | {"frame_003.png": b""}, "frame_003.png: empty file | expected an image")
    add("a number twice", good | {"frame_7.png": picture()}, "carry the same number | expected one frame of each")
    add("no images", {"notes.txt": b"nothing"}, "0 files of arrays | expected frames")
    add("folders of nothing", {"a/x.txt": b"1", "b/x.txt": b"1"}, "0 images in it or its folders | expected frames")
    add("too few images", {name: good[name] for name in sorted(good)[:2]}, "2 frames | expected at least 3")


def _published(add: Add, add_folder: Callable[..., None]) -> None:
    """Published layouts with something wrong."""
    windows = np.zeros((12, 4, 2, 8, 8), np.float32)
    archive = {"X_train": windows, "Y_train": windows, "X_test": windows, "Y_test": windows}
    add("taxibj window lost", npz(**(archive | {"Y_train": windows[1:]})), "train: X (12, 4, 2, 8, 8) and Y (11,",
        ending=".npz")  # fmt: skip
    add("taxibj not scaled", npz(**(archive | {"X_test": windows + 7})), "test: clip 0, frame 0, channel inflow | 1292",
        ending=".npz")  # fmt: skip
    dates = np.array([f"201307{day:02d}{slot:02d}" for day in (1, 2) for slot in range(1, 49)], "S10")
    flow = np.ones((96, 2, 8, 8), np.float32)
    yearly = "_BJ13_M32x32_T30_InOut"
    for name, data, when, expected in (
        (
            "no slot 49",
            flow,
            np.where(np.arange(96) == 5, b"2013070149", dates),
            "'2013070149' at 5 | half hour 01 to 48",
        ),
        ("no day 32", flow, np.where(np.arange(96) == 5, b"2013073201", dates), "'2013073201' at 5 | expected year"),
        ("a date less", flow, dates[1:], "date of shape (95,) | expected (96,)"),
        ("one channel", flow[:, :1], dates, "(96, 1, 8, 8) | expected numbers (time, 2, row, column)"),
    ):
        add_folder(name, {f"{yearly[1:]}.h5": hdf5(data=data, date=when)}, f"BJ13_M32x32 | {expected}")
    sequence = {"inputs": frames(10, 1, 8, 8), "labels": frames(10, 1, 8, 8)}
    digits = {f"train/example{number:06d}.npz": npz(**sequence) for number in range(1, 5)}
    digits |= {name.replace("train", part): data for name, data in digits.items() for part in ("validation", "test")}
    other = npz(inputs=sequence["inputs"], labels=sequence["labels"][:5])
    add_folder("digits without labels", digits | {"train/example000001.npz": npz(inputs=sequence["inputs"])},
               "example000001.npz | no array labels")  # fmt: skip
    add_folder("digits of another length", digits | {"train/example000003.npz": other},
               "example000003.npz | (15, 1, 8, 8) | expected (20, 1, 8, 8)")  # fmt: skip
    nobody = {f"boxing/somebody/image_{number:04d}.jpg": picture(ending="JPEG") for number in range(30)}
    add_folder("kth without a person", nobody, "no person in the name | person01_boxing_d1")  # fmt: skip
    add("labels as digits", gzip.compress(b"\x00\x00\x08\x01\x00\x00\x00\x02ab"), "unknown ending '.gz'", ending=".gz")


def _videos(add: Add) -> None:
    """Videos; the whole one they are cut from is encoded here."""
    good = video_bytes()
    add("cut video", good[: len(good) // 2], "broken video after frame | expected a whole .avi", ending=".avi")
    add(
        "text as video",
        b"#EXTM3U\n#EXT-X-VERSION:3\n/etc/passwd\n",
        "broken video | expected a whole .avi",
        ending=".avi",
    )
    add("cut mp4", b"\x00\x00\x00\x18ftypisom" + bytes(200), "broken video | expected a whole .mp4", ending=".mp4")


def video_bytes(count: int = 40, size: tuple[int, int] = (32, 48), rate: int = 25) -> bytes:
    """Return a small AVI video of a grey square that moves over a darker ground."""
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="avi") as container:
        stream: Any = container.add_stream("mjpeg", rate=rate)
        stream.height, stream.width, stream.pix_fmt = *size, "yuvj420p"
        for number in range(count):
            pixels = np.full((*size, 3), 40, np.uint8)
            pixels[8:16, number % 32 : number % 32 + 8] = 200
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return buffer.getvalue()


def _parts(folder: Path, cases: list[MalformedGrid]) -> None:
    """Sources that do not go together."""
    small, wide = folder / "small.npy", folder / "wide.npy"
    small.write_bytes(npy(frames()))
    wide.write_bytes(npy(frames(60, 16, 20)))
    for name, paths, expected in (
        ("two sources", (small, small), "2 sources | expected one, or three"),
        (
            "parts of two sizes",
            (small, wide, small),
            "wide.npy: val has frames (1, 16, 20) | expected (1, 16, 12) as train",
        ),
    ):
        cases.append(MalformedGrid(name, paths, tuple(expected.split(" | "))))
    cases.append(MalformedGrid("clips to split", (small,), ("small.npy", "1 clips", "--data.split-by time"),
                               {"split_by": "clip"}))  # fmt: skip
    short = folder / "short_series.npy"
    short.write_bytes(npy(frames(20)))
    expected = (
        "short_series.npy: val: 2 frames, the longest",
        "expected at least 8 frames for a history of 4 and a horizon of 4",
    )
    cases.append(MalformedGrid("too few frames", (short,), expected))
    twins = folder / "two_train_files"
    twins.mkdir()
    for name in ("train.npy", "data_train.npy", "test.npy"):
        (twins / name).write_bytes(npy(frames()))
    cases.append(MalformedGrid("two train files", (twins,), ("two_train_files", "data_train.npy and train.npy")))
