"""Files of events that are wrong in one way each, with what the message must say: for the readers and for commands."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import feather, parquet

HEADER = "sequence,time,x,y,mark\n"
ROWS = (
    "a,0.5,1.0,2.0,red\na,1.5,1.5,2.5,blue\n"
    "b,0.25,0.0,1.0,red\nb,0.75,0.5,1.0,red\n"
    "c,0.1,2.0,2.0,blue\nc,0.2,1.0,2.0,red\n"
)


@dataclass(frozen=True)
class Malformed:
    """One wrong source of events."""

    name: str
    """What is wrong with it, in a few words; all different."""
    paths: tuple[Path, ...]
    """Value of `--data`."""
    expected: tuple[str, ...]
    """What the message must hold: file, place, what was found, what was expected."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of reading that differ from the defaults, by field name."""

    @property
    def extra_flags(self) -> tuple[str, ...]:
        """The options as flags of a command."""
        flags: list[str] = []
        for name, value in self.options.items():
            flags += [f"--data.{name.replace('_', '-')}", str(value)]
        return tuple(flags)


def malformed_event_files(folder: Path) -> list[Malformed]:
    """Write every wrong source into `folder` and return the list of them."""
    cases: list[Malformed] = []

    def add(name: str, content: bytes | str, expected: str, *, ending: str = ".csv", **options: Any) -> None:
        path = folder / (name.replace(" ", "_").replace("/", "_") + ending)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        cases.append(Malformed(name, (path,), (path.name, *expected.split(" | ")), options))

    _places(folder, cases)
    _texts(add)
    _values(add)
    _stamps(add)
    _tables(add)
    _arrays(add)
    _nested(add)
    _parts(folder, cases)
    return cases


Add = Callable[..., None]


def _places(folder: Path, cases: list[Malformed]) -> None:
    """Things that are no files."""
    pipe, loop, inside = folder / "pipe.csv", folder / "loop.csv", folder / "empty_folder"
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    inside.mkdir()
    (folder / "broken_link.csv").symlink_to(folder / "nowhere")
    for name, path, found in (
        ("missing file", folder / "missing.csv", "missing.csv | no such file | expected"),
        ("pipe", pipe, "pipe.csv | a pipe | expected a regular file"),
        ("device", Path("/dev/zero"), "/dev/zero | a device | expected a regular file"),
        ("link to itself", loop, "loop.csv | leads back to itself | expected"),
        ("link to nothing", folder / "broken_link.csv", "broken_link.csv | no such file | expected"),
        ("folder without events", inside, "empty_folder | 0 files of events | expected one for each part"),
        ("path through a file", folder / "broken_link.csv" / "x.csv", "x.csv | expected"),
    ):
        cases.append(Malformed(name, (path,), tuple(found.split(" | "))))
    if os.geteuid() != 0:
        secret = folder / "secret.csv"
        secret.write_text(HEADER + ROWS)
        secret.chmod(0)
        cases.append(Malformed("no permission", (secret,), ("secret.csv", "no permission", "expected a readable file")))


def _texts(add: Add) -> None:
    """Text that is no table."""
    add("empty file", "", "empty file | expected events")
    add("blank text", " \n \n", "empty text | expected a header")
    add("header only", HEADER, "no rows | expected at least one event")
    add("no header", "1,0.5,1.0,2.0\n1,1.5,1.0,2.0\n", "row 1 | numbers only | expected a header line")
    add("unknown ending", HEADER + ROWS, "'.xlsx' | expected one of .csv", ending=".xlsx")
    add("binary in csv", b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0d", "expected lines of text")
    add("utf-16", (HEADER + ROWS).encode("utf-16"), "UTF-16 | expected UTF-8")
    add("not utf-8", (HEADER + ROWS).replace("blue", "bl\xe4u").encode("latin-1"), "row 3 | 0xe4 | expected UTF-8")
    add("header not utf-8", "s\xe9q,time,x,y\n1,2,3,4\n".encode("latin-1"), "row 1 | 0xe9 | expected UTF-8")
    add("ragged row", HEADER + ROWS + "d,1.0,2.0\n", "row 8 | 3 cells | expected 5")
    add("too many cells", HEADER + ROWS + "d,1.0,2.0,1,red,9,9\n", "row 8 | 7 cells | expected 5")
    add("broken quotes", HEADER + 'a,0.5,1.0,2.0,"red\n' + ROWS, "expected")
    add(
        "no time column",
        ROWS.join(["s,when,x,y,m\n", ""]),
        "no column time | expected one for time | --data.time-column",
    )
    add("no coordinates", "time,mark\n1.0,red\n", "no column x or lng | expected one for x | --data.x-column")
    add("named column missing", HEADER + ROWS, "no column kind | expected one for mark", mark_column="kind")
    add("two time columns", "time,x,y,time\n1,1,1,1\n", "'time', 'time' | expected one | --data.time-column")
    add("two candidates", "time,lng,lat,x,y\n1,1,1,1,1\n", "'lng', 'x' | expected one | --data.x-column")
    add("one column twice", "time,x,y\n1,1,1\n", "'x' | wanted twice", x_column="x", y_column="x")
    add("wrong separator", HEADER + ROWS, "no column time | expected one for time", separator=";")
    add("many columns", ",".join(f"c{i}" for i in range(100_000)) + "\n", "no column time | 100,000 columns")
    add("cut gzip", gzip.compress((HEADER + ROWS * 1).encode())[:-12], "expected a whole file", ending=".csv.gz")
    add("no gzip", HEADER + ROWS, "starts with | expected gzip data", ending=".csv.gz")
    add("gzip of what", gzip.compress(b"x"), "unknown ending | expected one of", ending=".dat.gz")


def _values(add: Add) -> None:
    """Cells that are not what their column needs."""
    add("word as number", HEADER + ROWS.replace("1.5,1.5", "1.5,east"), "row 3 | x is 'east' | expected a number")
    add("word as time", HEADER + ROWS.replace("b,0.25", "b,soon"), "row 4 | time is 'soon' | expected a number")
    add("decimal comma", "time;x;y\n1,5;2,5;3,5\n", "row 2 | time is '1,5' | expected a number | --data.decimal ,")
    add(
        "missing cell",
        HEADER + ROWS.replace("0.5,1.0,2.0", "0.5,,2.0"),
        "row 2 | x is missing | expected a finite value",
    )
    add("nan", HEADER + ROWS.replace("1.0,red\nb", "NaN,red\nb"), "row 4 | y is missing | expected a finite value")
    add("infinite", HEADER + ROWS.replace("b,0.75", "b,inf"), "row 5 | time is inf | expected a finite value")
    add("overflow", HEADER + ROWS.replace("0.5,1.0,2.0", "0.5,1e999,2.0"), "row 2 | x is inf | expected a finite value")
    add("missing mark", HEADER + ROWS.replace("blue\nb", "\nb"), "row 3 | mark is missing | --data.missing drop")
    add("missing sequence", HEADER + ROWS.replace("b,0.25", ",0.25"), "row 4 | sequence is missing | expected the id")
    add("all dropped", "time,x,y\n1,,1\n", "no events | expected at least one", missing="drop")
    add(
        "falling times",
        HEADER + ROWS.replace("a,1.5", "a,0.4"),
        "row 3 | 'a' | 0.4 after 0.5 | expected times in order",
    )
    add("negative time", HEADER + ROWS.replace("b,0.25", "b,-0.25"), "row 4 | time is -0.25 | 0 or more")
    add("fraction as mark", "time,x,y,mark\n1,1,1,5.8\n", "row 2 | mark is '5.8' | expected a class")
    add("negative mark", "time,x,y,mark\n1,1,1,0\n2,1,1,-1\n", "row 3 | mark is '-1' | expected a class")
    add("huge mark", "time,x,y,mark\n1,1,1,99999999999999999999\n", "row 2 | mark is | expected a class, 0 to")
    add(
        "id as mark",
        "time,x,y,mark\n" + "".join(f"{i},1,1,{i}\n" for i in range(10_001)),
        "10,001 different marks | at most",
    )
    add("long mark", f"time,x,y,mark\n1,1,1,{'m' * 300}\n", "row 2 | mark is 'mmm | at most 200")
    add("lat lon swapped", "time,lon,lat\n1,35.0,139.0\n", "row 2 | lat is 139 | latitude of at most 90 | swapped?")
    add("longitude out of range", "time,lon,lat\n1,512.0,39.0\n", "row 2 | lon is 512 | longitude of at most 360")
    add("degrees by option", "time,x,y\n1,35.0,139.0\n", "row 2 | y is 139 | at most 90", coordinates="degrees")
    add("one sequence", "time,x,y\n1,1,1\n2,1,1\n", "1 sequences | expected at least 3 | --data.window")


def _stamps(add: Add) -> None:
    """Timestamps."""
    add("no such day", "time,x,y\n2024-02-28,1,1\n2024-02-30,1,1\n", "row 3 | '2024-02-30' | a moment that exists")
    add("no such hour", "time,x,y\n2024-02-28T25:00,1,1\n", "row 2 | '2024-02-28T25:00' | a moment that exists")
    add(
        "mixed zones",
        "time,x,y\n2024-02-28T10:00Z,1,1\n2024-02-28T11:00,1,1\n",
        "row 3 | without a time zone | expected",
    )
    add(
        "falling stamps",
        "time,x,y\n2024-02-28,1,1\n2024-02-27,1,1\n",
        "row 3 | 2024-02-27 | after 2024-02-28 | in order",
    )
    add("ambiguous dates", "time,x,y\n01/02/2024,1,1\n03/04/2024,1,1\n", "row 2 | '01/02/2024' | year-month-day")
    add("day and month first", "time,x,y\n13/02/2024,1,1\n03/24/2024,1,1\n", "row 2 | row 3 | day or month first")
    add(
        "stamps and numbers",
        "time,x,y\n2024-02-28,1,1\n17.5,1,1\n",
        "row 3 | '17.5' | expected a number or a timestamp",
    )
    add("unknown unit", "time,x,y\n2024-02-28,1,1\n", "'fortnights' | expected one of | days", time_unit="fortnights")


def _tables(add: Add) -> None:
    """Parquet and Feather."""

    def table(**columns: Any) -> bytes:
        buffer = io.BytesIO()
        parquet.write_table(pa.table(columns), buffer)
        return buffer.getvalue()

    none = pa.array([], pa.float64())
    good = table(time=[1.0, 2.0], x=[1.0, 1.0], y=[1.0, 1.0])
    add("no parquet", HEADER + ROWS, "starts with b'sequen' | expected a Parquet file", ending=".parquet")
    add("cut parquet", good[:-20], "broken Parquet file | expected", ending=".parquet")
    add("parquet without rows", table(time=none, x=none, y=none),
        "no rows | expected at least one event", ending=".parquet")  # fmt: skip
    add(
        "parquet of lists",
        table(time=[[1.0]], x=[1.0], y=[1.0]),
        "'time' holds list | expected numbers",
        ending=".parquet",
    )
    add(
        "parquet null",
        table(time=[1.0, None], x=[1.0, 1.0], y=[1.0, 1.0]),
        "row 2 | time is missing",
        ending=".parquet",
    )
    add(
        "parquet of booleans",
        table(time=[1.0], x=[True], y=[1.0]),
        "'x' holds bool | expected numbers",
        ending=".parquet",
    )
    buffer = io.BytesIO()
    feather.write_feather(pa.table({"time": [1.0], "y": [1.0]}), buffer)
    add("feather without x", buffer.getvalue(), "no column x | expected one for x", ending=".feather")
    add("cut feather", buffer.getvalue()[:-30], "broken Arrow file | expected", ending=".feather")


def _arrays(add: Add) -> None:
    """NumPy files."""

    def npz(**arrays: Any) -> bytes:
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        return buffer.getvalue()

    time, place = np.array([1.0, 2.0, 3.0]), np.zeros((3, 2))
    whole = npz(time=time, location=place, offsets=np.array([0, 2, 3]))

    def add_npz(name: str, expected: str, **arrays: Any) -> None:
        add(name, npz(**arrays), expected, ending=".npz")

    add("zip without arrays", _zip({"readme.txt": b"hello"}), "no array time | expected time, location", ending=".npz")
    add("nested zip", _zip({"time.npz": whole}), "no array time | expected time, location", ending=".npz")
    add("cut npz", whole[:-40], "broken zip archive | expected a whole .npz", ending=".npz")
    add("no npz", b"time,x,y\n", "starts with | expected a zip archive", ending=".npz")
    add_npz("npz without time", "no array time among 'location' | expected", location=place)
    add_npz(
        "npz of objects",
        "array 'time' | Python objects | expected numbers",
        time=np.array([1, "a"], object),
        location=place,
    )
    add_npz("npz complex", "array time holds complex128 | expected real", time=time.astype(complex), location=place)
    add_npz(
        "npz of words", "array time holds <U3 | expected real", time=np.array(["1.0", "2.0", "3.0"]), location=place
    )
    add_npz("npz wrong rank", "array time has shape (3, 1) | expected one number", time=time[:, None], location=place)
    add_npz("npz axes swapped", "location has shape (2, 3) | expected (3, 2)", time=time, location=place.T)
    add_npz("npz location 3-d", "location has shape (3, 3) | expected (3, 2)", time=time, location=np.zeros((3, 3)))
    add_npz(
        "npz offsets end",
        "offsets runs from 0 to 5 | expected 0 to 3",
        time=time,
        location=place,
        offsets=np.array([0, 5]),
    )
    add_npz("npz offsets fall", "offsets falls from 3 to 1 | expected it to rise", time=time, location=place,
            offsets=np.array([0, 3, 1, 3]))  # fmt: skip
    add_npz("npz offsets float", "offsets is float64 | expected at least two integers", time=time, location=place,
            offsets=np.array([0.0, 3.0]))  # fmt: skip
    add_npz("npz mark fraction", "sequence 0, event 1 | mark is 0.5 | expected a class", time=time, location=place,
            mark=np.array([0.0, 0.5, 1.0]))  # fmt: skip
    add_npz("npz mark length", "array mark is int64 of shape (2,) | expected one class for each of 3", time=time,
            location=place, mark=np.array([0, 1]))  # fmt: skip
    add_npz("npz mark beyond names", "event 2 | mark is 7 | expected 0 to 1", time=time, location=place,
            mark=np.array([0, 1, 7]), mark_names=np.array(["a", "b"]))  # fmt: skip
    add_npz("npz nan", "sequence 0, event 1 | time is missing or not a number | expected a finite", location=place,
            time=np.array([1.0, np.nan, 2.0]))  # fmt: skip
    add_npz("npz falling", "sequence 0, event 2 | 1.5 after 2.0", time=np.array([1.0, 2.0, 1.5]), location=place)
    add_npz("npz parts without test", "parts train | expected train, val and test; test is missing", train_time=time,
            train_loc=place)  # fmt: skip
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((4, 7)))
    add("npy of 7 columns", buffer.getvalue(), "shape (4, 7) | expected rows of [time, x, y]", ending=".npy")
    add("cut npy", buffer.getvalue()[:-8], "216 bytes for shape (4, 7) | expected 224", ending=".npy")
    add(
        "npy header",
        b"\x93NUMPY\x01\x00\x10\x00{'descr': boom}\n",
        "broken header | expected a NumPy array",
        ending=".npy",
    )
    add(
        "npy huge",
        _npy_header((10**15,)),
        "declares an array of 8,000,000,000,000,000 bytes | expected at most",
        ending=".npy",
    )


def _zip(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def _npy_header(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def _nested(add: Add) -> None:
    """JSON and pickles."""

    def add_json(name: str, tree: Any, expected: str, **options: Any) -> None:
        add(name, tree if isinstance(tree, str) else json.dumps(tree), expected, ending=".json", **options)

    event = [0.5, 1.0, 2.0]
    add_json("broken json", "[[[0.5, 1.0, 2.0],\n [1.0, }", "line 2, column 8 | expected JSON")
    add_json("deep json", "[" * 100_000, "expected JSON")
    add_json("json number", "17", "17 | expected a list of sequences")
    add_json("json empty list", [], "empty list | expected sequences")
    add_json("json empty sequence", [[event], []], "sequence 1 has no events | expected at least one")
    add_json("json ragged", [[event, [1.0, 2.0]]], "sequence 0, event 1 has 2 values | expected 3 values")
    add_json(
        "json mixed widths", [[event], [[1.0, 0, 2.0, 3.0]]], "sequence 1, event 0 has 4 values | expected 3 values"
    )
    add_json("json five values", [[[1, 2, 3, 4, 5]]], "sequence 0, event 0 has 5 values | [time, mark, x, y]")
    add_json("json flat", [event, event], "sequence 0, event 0 has 0.5 | expected [time, x, y]")
    add_json("json word", [[[0.5, "east", 2.0]]], "sequence 0, event 0 | x is 'east' | expected a number")
    add_json("json null", [[event], [[0.5, None, 2.0]]], "sequence 1, event 0 | x is missing | finite")
    add_json("json falling", [[event, [0.25, 1.0, 2.0]]], "sequence 0, event 1 | 0.25 after 0.5 | in order")
    add_json("json mark fraction", [[[0.5, 1.5, 1.0, 2.0]]], "sequence 0, event 0 | mark is 1.5 | expected a class")
    add_json(
        "json events without place", [[{"time_since_start": 1.0, "type_event": 0}]], "no column x | expected one for x"
    )
    add_json(
        "json event lacks key", [[{"time": 1.0, "x": 1, "y": 1}, {"time": 2.0, "x": 1}]], "sequence 0, event 1 | no 'y'"
    )
    add_json(
        "json columns unequal",
        {"time": [1.0, 2.0], "x": [1.0], "y": [1.0, 1.0]},
        "'x' has 1 values | one for each time",
    )
    add_json("json nothing known", {"name": "x"}, "an object with 'name' | expected sequences")
    add("pickle cut", pickle.dumps([[event, event]])[:-4], "expected a pickle of plain", ending=".pkl")
    add(
        "pickle of a class",
        pickle.dumps([[Path("a")]]),
        "the name 'pathlib | expected a pickle of plain",
        ending=".pkl",
    )
    add("pickle of words", pickle.dumps("words"), "'words' | expected a list of sequences", ending=".pkl")
    add(
        "pickle falling",
        pickle.dumps([[event, [0.25, 1.0, 2.0]]]),
        "sequence 0, event 1 | 0.25 after 0.5",
        ending=".pkl",
    )
    add(
        "pickle of marks below 0",
        pickle.dumps([[[0.5, -1.0, 1.0, 2.0]]]),
        "mark is -1.0 | expected a class",
        ending=".pkl",
    )
    add("pickle no pickle", b"time,x,y\n1,1,1\n", "expected a pickle of plain", ending=".pkl")


def _parts(folder: Path, cases: list[Malformed]) -> None:
    """Folders and several files."""
    good = HEADER + ROWS
    twins = folder / "two_train_files"
    twins.mkdir()
    for name in ("train.csv", "data_train.csv", "test.csv"):
        (twins / name).write_text(good)
    cases.append(
        Malformed("two train files", (twins,), ("two_train_files", "data_train.csv and train.csv", "expected one"))
    )
    lone = folder / "no_test_part"
    lone.mkdir()
    (lone / "train.csv").write_text(good)
    (lone / "val.csv").write_text(good)
    cases.append(Malformed("no test part", (lone,), ("no_test_part", "parts train, val", "test is missing")))
    many = folder / "many_files"
    many.mkdir()
    (many / "a.csv").write_text(good)
    (many / "b.csv").write_text(good)
    cases.append(Malformed("many files", (many,), ("many_files", "2 files of events", "expected one for each part")))
    plain, marked = folder / "unmarked.csv", folder / "marked.csv"
    plain.write_text("sequence,time,x,y\na,1.0,1.0,1.0\n")
    marked.write_text(good)
    cases.append(
        Malformed(
            "marks in one part only", (marked, marked, plain), ("only train, val has marks", "expected marks in all")
        )
    )
    cases.append(Malformed("two sources", (marked, marked), ("2 sources", "expected one, or three")))
