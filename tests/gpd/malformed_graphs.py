"""Cities that are wrong in one way each, with what the message must say: for readers and for the commands of gpd."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from graph_files import (
    NODES,
    STEPS,
    city_toml,
    dcrnn_pickle,
    matrix,
    npy_bytes,
    npz_bytes,
    readings,
    table,
    weights,
    write_fixed_frame,
    write_original,
    write_table,
)  # fmt: skip


@dataclass(frozen=True)
class MalformedGraph:
    """One wrong city."""

    name: str
    """What is wrong with it, in a few words; all different."""
    paths: tuple[Path, ...]
    """Value of `--data`."""
    expected: tuple[str, ...]
    """What the message must hold: file, place, what was found, what was expected."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of reading that differ from the defaults, by field name."""
    flags: tuple[str, ...] = ()
    """Further flags of the command, where the fault is seen only there."""

    @property
    def extra_flags(self) -> tuple[str, ...]:
        """The options of reading as flags of a command."""
        words: list[str] = []
        for name, value in self.options.items():
            values = () if value is True else value if isinstance(value, tuple) else (value,)
            words += [f"--data.{name.replace('_', '-')}", *map(str, values)]
        return (*words, *self.flags)


class Runs:
    """What a hostile pickle asks for."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.system, ("echo executed",)


class Cases:
    """A folder that wrong cities are written into, each into its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.found = folder, list[MalformedGraph]()

    def place(self, name: str) -> Path:
        path = self.folder / name.replace(" ", "_")
        path.mkdir(parents=True)
        return path

    def add(self, name: str, path: Path, expected: str, *flags: str, **options: Any) -> None:
        self.found.append(MalformedGraph(name, (path,), tuple(expected.split(" | ")), options, flags))

    def table(self, name: str, text: str | bytes, expected: str, **options: Any) -> None:
        """A wide table beside a graph that is right."""
        path = write_table(self.place(name))
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        self.add(name, path, f"city.csv | {expected}", **{"adjacency": "adj.csv"} | options)

    def graph(self, name: str, content: str | bytes, expected: str, *, file: str = "adj.csv", **options: Any) -> None:
        """A graph beside a table that is right."""
        path = write_table(self.place(name))
        (path.parent / file).write_bytes(content if isinstance(content, bytes) else content.encode())
        self.add(name, path, f"{file} | {expected}", **{"adjacency": file} | options)

    def file(self, name: str, content: bytes, expected: str, *, file: str, **options: Any) -> None:
        """One file that holds everything."""
        path = self.place(name) / file
        path.write_bytes(content)
        self.add(name, path, f"{file} | {expected}", **options)


def malformed_graph_files(folder: Path) -> list[MalformedGraph]:
    """Write every wrong city into `folder` and return the list of them."""
    cases = Cases(folder)
    for write in (_text, _cells, _moments, _matrices, _edges, _pickles, _arrays, _archives, _frames, _places, _lengths):
        write(cases)
    return cases.found


def _with(step: int, node: int, value: float) -> str:
    values = readings()
    values[step, node] = value
    return table(values)


def _text(cases: Cases) -> None:
    right = table(readings())
    cases.table("empty file", "", "empty file | expected readings")
    cases.table("blank file", "\n \n", "empty text | expected a header line and readings")
    cases.table("blank first line", "\n" + right, "row 1 is empty | a header line and readings")
    cases.table("header only", "a,b,c,d,e\n", "a header and no rows | at least one step")
    cases.table("readings as header", matrix(readings()), "row 1 | readings | the name of each node")
    cases.table("ragged row", right.replace("\n1.0,", "\n1.0,1.0,"), "row 4 has 6 cells | expected 5")
    cases.table("no utf-8", right.replace("a,b", "a\xe9,b").encode("latin-1"), "row 1: byte 0xe9 is no UTF-8")
    cases.table("utf-16", right.encode("utf-16"), "text in UTF-16 | expected UTF-8")
    cases.table("a picture as text", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(64), "expected lines of text")
    cases.table("duplicated node", right.replace("d,e", "d,a", 1), "node 'a' occurs twice | column 5")
    cases.table("node without a name", right.replace("b,c", "b,", 1), "column 3 has no name")
    path = cases.place("unknown ending") / "city.xlsx"
    path.write_bytes(b"PK")
    cases.add("unknown ending", path, "city.xlsx | unknown ending '.xlsx' | .csv", adjacency="none")
    cases.add("no such file", cases.folder / "nowhere.csv", "nowhere.csv | no such file", adjacency="none")
    cases.add("empty folder", cases.place("empty folder"), "empty_folder | 0 files of readings | the folder of a city")
    loop = cases.place("loop of links") / "city.csv"
    loop.symlink_to(loop)
    cases.add("loop of links", loop, "city.csv | symbolic link that leads back", adjacency="none")
    pipe = cases.place("pipe") / "city.csv"
    os.mkfifo(pipe)
    cases.add("pipe", pipe, "city.csv | a pipe | a regular file", adjacency="none")
    device = cases.place("device") / "city.csv"
    device.symlink_to("/dev/zero")
    cases.add("device", device, "city.csv | a device | a regular file", adjacency="none")
    cases.table("larger than allowed", right, "the table needs about | at most 500", max_bytes=500)


def _cells(cases: Cases) -> None:
    right = table(readings())
    cases.table("word in a cell", right.replace("\n1.0,101.0", "\n1.0,fast"), "row 4, column 'b' is 'fast'")
    comma = table(readings(), separator=";").replace("\n1.5;", "\n1,5;")
    cases.table("decimal comma", comma, "row 5, column 'a' is '1,5' | a decimal point")
    cases.table("empty cell", _with(3, 2, np.nan), "row 5, node c is nan | --data.missing mask")
    cases.table("missing by number", _with(3, 2, -9.0), "row 5, node c is -9 (one of 1", missing_value=-9.0)
    cases.table("negative count", _with(7, 1, -1.0), "row 9, node b is -1", negative="missing")
    cases.table("infinite reading", _with(2, 0, np.inf), "row 4, node a is inf | single precision")
    cases.table("too large for single precision", _with(2, 0, 1e300), "row 4, node a is 1e+300 | single precision")
    lost = readings()
    lost[:] = np.nan
    cases.table("all readings missing", table(lost), "every reading is missing", missing="mask")
    dead, still = readings(), readings()
    dead[:, 3], still[:, 1] = np.nan, 55.0
    cases.table("node without readings", table(dead), "node d has no reading | --data.dead drop", missing="mask")
    cases.table("constant node", table(still), "node b is 55 throughout | --data.dead drop")
    cases.table("unknown channel", right, "no channel 'in' | expected 0", features=("in", "out"))
    cases.table("too many units", right, "2 units | each of 1 channels", units=("km/h", "persons"))


def _moments(cases: Cases) -> None:
    start = np.datetime64("2024-05-01T00:00:00")
    moments = [str(start + np.timedelta64(5 * step, "m")) for step in range(STEPS)]

    def add(name: str, expected: str, **changed: str) -> None:
        times = [changed.get(f"at_{step}", moment) for step, moment in enumerate(moments)]
        cases.table(name, table(readings(), times=times), expected)

    add("times out of order", "step 4 has | before | rising times", at_4="2024-04-30T00:20:00")
    add("time twice", "step 4 has the same time as the step before it", at_4=moments[3])
    add("frequency not constant", "step 4 comes 420 seconds after | 300", at_4="2024-05-01T00:22:00")
    add("time that does not exist", "column 'time' | entry 9 is '2024-02-30T00:00:00'", at_9="2024-02-30T00:00:00")
    add("time without a zone among others", "entry 0 | without a time zone", at_5="2024-05-01T00:25:00+02:00")
    add("missing time", "row 8: no moment in column 'time'", at_6="")
    path = write_table(cases.place("another step than the times have"), table(readings(), times=moments))
    expected = "city.csv | times 300 seconds apart | 3600"
    cases.add("another step than the times have", path, expected, adjacency="adj.csv", step="1 hour")
    for name, expected, options in (
        ("start without a step", "data.start without a step | --data.step", {"start": "2024-05-01"}),
        ("start that is no moment", "data.start | entry 0 is 'May'", {"start": "May", "step": "5 minutes"}),
        ("step that is no time", "data.step: '5 parsecs'", {"step": "5 parsecs"}),
        ("start at a weekend", "2024-05-04 is no weekday",
         {"start": "2024-05-04", "step": "1 hour", "weekdays": True}),
        ("day longer than a day", "30 steps of 3600 seconds | 24 hours",
         {"start": "2024-05-01", "step": "1 hour", "steps_per_day": 30}),
    ):  # fmt: skip
        path = write_table(cases.place(name))
        cases.add(name, path, expected, adjacency="adj.csv", **options)


def _matrices(cases: Cases) -> None:
    def changed(value: float) -> str:
        values = weights()
        values[1, 3] = value
        return matrix(values)

    cases.graph("graph not square", matrix(weights()[:4]), "4 rows of 5 numbers | square")
    cases.graph("graph of other size", matrix(weights(4)), "matrix of 4 nodes for a series of 5")
    cases.graph("negative weight", changed(-0.5), "row 1, column 3 is -0.5 | 0 or more")
    cases.graph("weight that is no number", changed(np.nan), "row 1, column 3 is nan (one of 1 not finite)")
    cases.graph("infinite weight", changed(np.inf), "row 1, column 3 is inf")
    cases.graph("word among weights", changed(7.5).replace("7.5", "near"), "row 2 | 'near'")
    named = ",".join(("a", "b", "c", "d", "x")) + "\n" + matrix(weights())
    cases.graph("graph of another city", named, "node 'e' of the series is not in it")
    cases.graph("graph of complex numbers", npy_bytes(weights() * 1j), "complex128 | real numbers", file="adj.npy")
    cases.graph("flat graph", npy_bytes(np.ones(25)), "shape (25,) | square", file="adj.npy")
    cases.graph("graph of unknown kind", b"<html>", "unknown ending '.html'", file="adj.html")
    path = write_table(cases.place("graph missing"))
    cases.add("graph missing", path, "roads.csv | no such file", adjacency="roads.csv")
    cases.add("no graph given", write_table(cases.place("no graph given")), "city.csv | no graph | --data.adjacency")
    cases.add("no positions", write_table(cases.place("no positions")), "city.csv | no positions | --data.coordinates",
              adjacency="distance")  # fmt: skip


def _edges(cases: Cases) -> None:
    cases.graph("edge to an unknown node", "from,to,weight\na,b,1\nb,z,1\n", "edge 2 names node 'z' | 5 nodes")
    cases.graph("edge twice", "from,to,weight\na,b,1\na,b,2\n", "edge 0 to 1 occurs twice")
    cases.graph("edge of negative length", "from,to,cost\na,b,1\nb,c,-3\n", "edge b to c has -3 | 0 or more")
    cases.graph("edge without a number", "from,to,cost\na,b,1\nb,c,\n", "row 3, column 'cost' is nan")
    cases.graph("edges without rows", "from,to,cost\n", "a header and no rows | at least one edge")


def _pickles(cases: Cases) -> None:
    right = dcrnn_pickle()
    cases.graph("hostile pickle", pickle.dumps(Runs()), "system", file="adj_mx.pkl")
    cases.graph("cut pickle", right[: len(right) // 2], "adj_mx.pkl", file="adj_mx.pkl")
    cases.graph("another pickle", pickle.dumps({"a": 1}), "a dict of | as DCRNN has them", file="adj_mx.pkl")
    mixed = pickle.dumps((list(NODES), dict.fromkeys(NODES, 0), weights()))
    cases.graph("pickle of mixed order", mixed, "sensor names and their numbers differ", file="adj_mx.pkl")


def _arrays(cases: Cases) -> None:
    def folder(name: str, dataset: Any = None, graph: Any = None) -> Path:
        return write_original(cases.place(name) / "city", dataset, graph)

    path = folder("original without a graph")
    (path / "matrix.npy").unlink()
    cases.add("original without a graph", path, "matrix.npy | no such file")
    cases.add("original with another graph", folder("original with another graph", graph=weights(6)),
              "matrix.npy | matrix of 6 nodes for a series of 5")  # fmt: skip
    turned = np.ascontiguousarray(readings().T)[:, :, None]
    cases.add(
        "time and nodes swapped", folder("time and nodes swapped", turned), "dataset.npy | time and nodes swapped"
    )
    cases.add("four axes", folder("four axes", np.ones((9, 5, 2, 2))), "dataset.npy | shape (9, 5, 2, 2)")
    cases.add("no steps", folder("no steps", np.ones((0, 5, 2))), "dataset.npy | no readings, shape (0, 5, 2)")
    path = folder("cut array")
    (path / "dataset.npy").write_bytes((path / "dataset.npy").read_bytes()[:-64])
    cases.add("cut array", path, "dataset.npy | expected 4,800 | the file is cut")
    objects = npy_bytes(np.array([[1.0, None]], dtype=object))
    cases.file("array of objects", objects, "Python objects", file="city.npy", adjacency="none")
    cases.file("complex readings", npy_bytes(readings() * 1j), "complex128", file="city.npy", adjacency="none")
    cases.file("flat readings", npy_bytes(np.arange(9.0)), "shape (9,)", file="city.npy", adjacency="none")
    cases.file("wrong magic", b"NUMPY!" + objects, "starts with", file="city.npy", adjacency="none")
    huge = npy_bytes(readings()).replace(b"(60, 5)", b"(1000000000000, 5)").replace(b" " * 11 + b"\n", b"\n")
    cases.file("shape beyond all memory", huge, "for shape (1000000000000, 5)", file="city.npy", adjacency="none")


def _archives(cases: Cases) -> None:
    def add(
        name: str, expected: str, *, content: bytes = b"", options: dict[str, Any] | None = None, **arrays: Any
    ) -> None:
        cases.file(name, content or npz_bytes(**arrays), expected, file="city.npz", **options or {})

    add("no archive", "starts with | zip archive of arrays", content=b"no zip at all")
    add("cut archive", "broken", content=npz_bytes(speed=readings(), adj=weights())[:-300])
    add("archive without readings", "expected one of readings", adj=weights())
    add("archive with two candidates", "--data.features", speed=readings(), flow=readings(50), adj=weights())
    add("archive with broken edges", "edges are | two rows", speed=readings(), edge_index=np.arange(6))
    add("archive with edges beyond the nodes", "edge 1 names node '9'", speed=readings(),
        edge_index=np.array([[9], [0]]))  # fmt: skip
    add("archive with too few positions", "shape (3, 2) | (5, 2)", speed=readings(), adj=weights(),
        latlon=np.zeros((3, 2)))  # fmt: skip
    own = {"values": readings()[:, :, None], "edges": np.zeros((2, 0), np.int64), "weights": np.zeros(0)}
    own |= {"nodes": np.array(NODES), "channels": np.array(["speed"])}
    add("archive of a newer version", "version 99 | expected 1", stcore_graph=np.array(99), **own)
    own["nodes"] = np.arange(5)
    add("archive of ours with numbers as names", "array nodes is int64 | kind U", stcore_graph=np.array(1), **own)
    add("archive without a step", "step_minutes | one number above 0", speed=readings(), adj=weights(),
        step_minutes=np.array(0))  # fmt: skip
    flows = np.ones((20, 4, 5))
    add("flows that are not square", "(20, 4, 5) | as many of both", od=flows, options={"format": "od"})
    bomb = cases.place("archive that unpacks to too much") / "city.npz"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("speed.npy", npy_bytes(np.zeros((300_000, 40))))
    cases.add("archive that unpacks to too much", bomb, "city.npz | declares arrays of 96,000,", adjacency="none")


def _frames(cases: Cases) -> None:
    cases.file("no hdf5", b"<!DOCTYPE html>", "starts with b'<!DOCT' | HDF5", file="city.h5", adjacency="none")
    path = write_fixed_frame(cases.place("cut hdf5") / "city.h5")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    cases.add("cut hdf5", path, "city.h5 | broken HDF5", adjacency="none")
    path = write_fixed_frame(cases.place("two data frames") / "city.h5")
    with h5py.File(path, "a") as file:
        file.create_group("other").attrs["pandas_type"] = np.bytes_(b"frame")
    cases.add("two data frames", path, "city.h5 | 'df', 'other' | --data.features", adjacency="none")
    path = write_fixed_frame(cases.place("data frame without rows") / "city.h5")
    with h5py.File(path, "a") as file:
        del file["df"]["axis1"]
    cases.add("data frame without rows", path, "city.h5 | without axis1", adjacency="none")
    path = write_fixed_frame(cases.place("data frame of fewer columns") / "city.h5")
    with h5py.File(path, "a") as file:
        del file["df"]["block0_items"]
        file["df"]["block0_items"] = np.array([b"a", b"b"])
    cases.add("data frame of fewer columns", path, "city.h5 | block of shape (60, 5) | 2 columns", adjacency="none")
    twice = np.array([b"a", b"b", b"a", b"c", b"d"])
    path = write_fixed_frame(cases.place("data frame with a column twice") / "city.h5", columns=twice)
    cases.add("data frame with a column twice", path, "city.h5 | node 'a' occurs twice", adjacency="none")


def _places(cases: Cases) -> None:
    def add(name: str, text: str, expected: str) -> None:
        path = write_table(cases.place(name))
        (path.parent / "places.csv").write_text(text)
        cases.add(name, path, expected, adjacency="adj.csv", coordinates="places.csv")

    rows = "".join(f"{name},34.{number},-118.{number}\n" for number, name in enumerate(NODES))
    add(
        "position missing", f"id,latitude,longitude\n{rows}".replace("c,", "q,"), "places.csv | no position of node 'c'"
    )
    add("positions swapped", f"id,longitude,latitude\n{rows}", "node a | latitude -118 | swapped")
    add("positions without columns", f"id,north,east\n{rows}", "places.csv | expected latitude and longitude")
    add("position twice", f"id,latitude,longitude\n{rows}{rows}", "places.csv | node 'a' occurs twice")
    for name, text, expected in (
        ("city with an unknown key", city_toml(source="a.csv", ajdacency="b.csv"), "unknown key 'ajdacency'"),
        ("city without a source", city_toml(adjacency="none"), "expected one file of readings"),
        ("city that is no toml", "source = [", "city.toml"),
    ):
        cases.file(name, text.encode(), expected, file="city.toml")


def _lengths(cases: Cases) -> None:
    """Too short for what is to be done; seen by the command, not by the reader."""
    path = write_table(cases.place("shorter than a window"), table(readings(17)))
    cases.add("shorter than a window", path, "17 | expected", adjacency="adj.csv", step="5 minutes")
    short = write_table(cases.place("fewer days than asked for"))
    cases.add("fewer days than asked for", short, "days; expected at least 3", "--target", str(short), "--days", "3",
              adjacency="adj.csv", step="5 minutes")  # fmt: skip


READ_ONLY_BY_COMMANDS = ("shorter than a window", "fewer days than asked for")
"""Causes that a reader lets pass."""
