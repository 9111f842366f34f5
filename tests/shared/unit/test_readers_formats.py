"""Every format that holds the same events gives the same events."""

from __future__ import annotations

import gzip
import io
import json
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import feather, parquet

from stcore.errors import UserError
from stcore.events import EventSequences
from stcore.readers import read_event_parts, read_events
from stcore.readers.options import EventReadOptions
from stcore.readers.pickles import read_plain_pickle

TIME = [0.5, 1.5, 0.25, 0.75, 0.1]
X = [1.0, 1.5, 0.0, 0.5, 2.0]
Y = [2.0, 2.5, 1.0, 1.0, 2.0]
MARK = [1, 0, 1, 2, 0]
SEQUENCE = ["7", "7", "3", "3", "5"]
NESTED = [
    [[0.5, 1.0, 1.0, 2.0], [1.5, 0.0, 1.5, 2.5]],
    [[0.25, 1.0, 0.0, 1.0], [0.75, 2.0, 0.5, 1.0]],
    [[0.1, 0.0, 2.0, 2.0]],
]
SCATTERED = (0, 2, 4, 3, 1)
COLUMNS = {"sequence": SEQUENCE, "time": TIME, "x": X, "y": Y, "mark": MARK}


def text(columns: dict[str, list[Any]] = COLUMNS, separator: str = ",") -> str:
    rows = [separator.join(columns), *(separator.join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    return "\n".join(rows) + "\n"


def parquet_bytes(columns: Any, **kind: Any) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(pa.table(columns, **kind), buffer)
    return buffer.getvalue()


def feather_bytes(columns: Any, compression: str) -> bytes:
    buffer = io.BytesIO()
    feather.write_feather(pa.table(columns), buffer, compression=compression)
    return buffer.getvalue()


def npz_bytes(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def npy_bytes(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


FLAT: dict[str, Any] = {"time": np.array(TIME), "offsets": np.array([0, 2, 4, 5]), "mark": np.array(MARK, np.uint8)}
PLACE = np.column_stack([X, Y])
OBJECTS = [[{"time_since_start": t, "time_since_last_event": 0.0, "type_event": int(k), "x": x, "y": y}
            for t, k, x, y in sequence] for sequence in NESTED]  # fmt: skip
LISTS = [
    {"time": [e[0] for e in s], "mark": [e[1] for e in s], "x": [e[2] for e in s], "y": [e[3] for e in s]}
    for s in NESTED
]

FILES: dict[str, tuple[str, bytes]] = {
    "comma": (".csv", text().encode()),
    "semicolon": (".csv", text(separator=";").encode()),
    "tab": (".tsv", text(separator="\t").encode()),
    "windows lines": (".txt", text().replace("\n", "\r\n").encode()),
    "byte order mark": (".csv", b"\xef\xbb\xbf" + text().encode()),
    "quoted numbers": (".csv", text().replace("0.5,1.0", '"0.5"," 1.0 "').encode()),
    "float marks": (".csv", text({**COLUMNS, "mark": [float(mark) for mark in MARK]}).encode()),
    "other names": (".csv", text().replace("sequence,time,x,y,mark", "Sequence_ID, Time ,LNG,y,Type").encode()),
    "extra columns": (".csv", text({"name": list("abcde"), **COLUMNS, "depth": [None] * 5}).encode()),
    "blank lines": (".csv", text().replace("7,1.5", "\n7,1.5").encode() + b"\n\n"),
    "scattered rows": (".csv", text({name: [part[i] for i in SCATTERED] for name, part in COLUMNS.items()}).encode()),
    "gzip": (".csv.gz", gzip.compress(text().encode())),
    "gzip of two members": (".csv.gz", gzip.compress(text()[:40].encode()) + gzip.compress(text()[40:].encode())),
    "parquet": (".parquet", parquet_bytes(COLUMNS)),
    "parquet of strings": (".parquet", parquet_bytes({name: list(map(str, part)) for name, part in COLUMNS.items()})),
    "parquet of dictionaries": (
        ".parquet",
        parquet_bytes({**COLUMNS, "sequence": pa.array(SEQUENCE).dictionary_encode()}),
    ),
    "parquet of small types": (
        ".parquet",
        parquet_bytes({**COLUMNS, "x": np.array(X, np.float16), "sequence": np.array([7, 7, 3, 3, 5], np.int8)}),
    ),
    "feather": (".feather", feather_bytes(COLUMNS, "lz4")),
    "arrow": (".arrow", feather_bytes(COLUMNS, "uncompressed")),
    "npz": (".npz", npz_bytes(location=PLACE, **FLAT)),
    "npz with other names": (
        ".npz",
        npz_bytes(loc=PLACE, offset=FLAT["offsets"], time=FLAT["time"], mark=FLAT["mark"]),
    ),
    "npz in fortran order": (".npz", npz_bytes(location=np.asfortranarray(PLACE), **FLAT)),
    "json lists": (".json", json.dumps(NESTED).encode()),
    "json objects": (".json", json.dumps(OBJECTS).encode()),
    "json lists by name": (".json", json.dumps(LISTS).encode()),
    "json with a name": (".json", json.dumps({"sequences": NESTED}).encode()),
    "json table": (".json", json.dumps(COLUMNS).encode()),
    "pickle": (".pkl", pickle.dumps(NESTED)),
    "pickle of tuples": (".pickle", pickle.dumps([[tuple(event) for event in s] for s in NESTED], protocol=2)),
    "pickle of arrays": (".pkl", pickle.dumps([np.array(sequence) for sequence in NESTED])),
    "pickle of numbers": (".pkl", pickle.dumps([[[np.float64(v) for v in event] for event in s] for s in NESTED])),
    "pickle as text": (".pkl", pickle.dumps(NESTED, protocol=0)),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_all_formats_give_the_same_events(name: str, tmp_path: Path) -> None:
    ending, content = FILES[name]
    path = tmp_path / f"events{ending}"
    path.write_bytes(content)
    events = read_events(str(path), EventReadOptions())
    order = events.select(np.argsort(events.lengths == 1, kind="stable")) if name == "scattered rows" else events
    assert order.time.tolist() == TIME
    assert order.location.tolist() == PLACE.tolist()
    assert order.offsets.tolist() == [0, 2, 4, 5]
    assert order.mark_names == ("0", "1", "2") and order.mark is not None and order.mark.tolist() == MARK
    if ending in (".csv", ".tsv", ".parquet", ".feather", ".arrow"):
        assert order.sequence_id == ("7", "3", "5")


def read_text(tmp_path: Path, content: str, **options: Any) -> EventSequences:
    path = tmp_path / "events.csv"
    path.write_text(content)
    return read_events(str(path), EventReadOptions(**options))


def test_words_are_marks_in_the_order_of_letters(tmp_path: Path) -> None:
    events = read_text(tmp_path, "time,x,y,mark\n1,0,0,red\n2,0,0, blue\n3,0,0,red\n")
    assert events.mark_names == ("blue", "red") and events.mark is not None and events.mark.tolist() == [1, 0, 1]
    assert events.sequence_id == ("0",) and events.coordinates == "planar" and events.time_unit == "units"


def test_columns_by_option_decimal_comma_and_no_marks(tmp_path: Path) -> None:
    content = "when;east;north;mark;line\n1,5;2,5;1.000,25;a;1\n2,5;-2,5;3,5;b;1\n"
    events = read_text(tmp_path, content, time_column="when", x_column="east", y_column="north", mark_column="none",
                       sequence_column="line", decimal=",", time_unit="hours")  # fmt: skip
    assert events.time.tolist() == [1.5, 2.5] and events.location.tolist() == [[2.5, 1000.25], [-2.5, 3.5]]
    assert not events.marked and events.time_unit == "hours"


def test_names_of_columns_tell_unit_and_degrees(tmp_path: Path) -> None:
    events = read_text(tmp_path, "time (hours),lng,lat\n1,139.5,35.5\n")
    assert (events.time_unit, events.coordinates) == ("hours", "degrees")
    assert read_text(tmp_path, "time,lng,lat\n1,1000,95\n", coordinates="planar").coordinates == "planar"


def test_rows_with_missing_cells_are_dropped_on_request(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = "time,x,y\n1,0,0\n2,,0\nNaN,0,0\n4,0,inf\n5,1,1\n"
    with caplog.at_level(logging.WARNING):
        events = read_text(tmp_path, content, missing="drop")
    assert events.time.tolist() == [1.0, 5.0]
    assert "3 of 5 rows dropped" in caplog.text
    with pytest.raises(UserError, match=r"row 6: time is 3.0 after 4.0"):
        read_text(tmp_path, "time,x,y\n1,0,0\n2,,0\nNaN,0,0\n4,0,0\n3,1,1\n", missing="drop")


STAMPS = {
    "iso": ["2024-03-30T12:00:00", "2024-03-31T00:00:00", "2024-03-31T12:00:00.500"],
    "blank": ["2024-03-30 12:00", "2024-03-31 00:00", "2024-03-31 12:00:00.500000000"],
    "zulu": ["2024-03-30T12:00:00Z", "2024-03-31T00:00:00Z", "2024-03-31T12:00:00.5Z"],
    "mixed offsets": ["2024-03-30T13:00:00+01:00", "2024-03-30T22:00:00-0200", "2024-03-31 12:00:00,5 UTC"],
    "day first": ["30/03/2024 12:00", "31/03/2024 00:00", "31/3/2024 12:00:00.5"],
    "month first": ["03/30/2024 12:00", "03/31/2024", "3/31/2024 12:00:00.5"],
}


@pytest.mark.parametrize("name", STAMPS)
def test_timestamps_count_from_the_first_event_of_the_sequence(name: str, tmp_path: Path) -> None:
    rows = "\n".join(f'"{stamp}",0,0' for stamp in STAMPS[name])
    events = read_text(tmp_path, f"time,x,y\n{rows}\n", time_unit="hours")
    np.testing.assert_allclose(events.time, [0.0, 12.0, 24.0 + 0.5 / 3600], rtol=1e-15)
    assert events.origin is not None and str(events.origin[0]).startswith("2024-03-30T12:00:00")
    assert read_text(tmp_path, f"time,x,y\n{rows}\n").time_unit == "days"


def test_arrow_timestamps_with_a_zone_are_the_same_moments(tmp_path: Path) -> None:
    local = pa.array([0, 3_600_000, 90_000_000], pa.timestamp("ms", tz="Europe/Paris"))
    (tmp_path / "zone.parquet").write_bytes(parquet_bytes({"time": local, "x": [0.0] * 3, "y": [0.0] * 3}))
    events = read_events(str(tmp_path / "zone.parquet"), EventReadOptions(time_unit="hours"))
    assert events.time.tolist() == [0.0, 1.0, 25.0]
    assert events.origin is not None and events.origin[0] == np.datetime64("1970-01-01T00:00")


def test_dates_beside_few_moments_are_read_to_the_day(tmp_path: Path) -> None:
    content = "time,x,y\n2024-01-01,0,0\n2024-01-02T05:00Z,0,0\n2024-01-02,0,0\n2024-01-03,0,0\n"
    assert read_text(tmp_path, content).time.tolist() == [0.0, 1.0, 1.0, 2.0]


def test_windows_by_option(tmp_path: Path) -> None:
    events = read_text(tmp_path, "time,x,y\n0.5,0,0\n1.5,0,0\n5.25,0,0\n", window=2.0)
    assert events.sequence_id == ("0@0", "0@2") and events.time.tolist() == [0.5, 1.5, 1.25]


def test_npy_tables(tmp_path: Path) -> None:
    path = tmp_path / "events.npy"
    path.write_bytes(npy_bytes(np.column_stack([TIME[:2], X[:2], Y[:2]])))
    assert read_events(str(path), EventReadOptions()).location.tolist() == PLACE[:2].tolist()
    rows = list(zip(SEQUENCE, TIME, X, Y, MARK, strict=True))
    kinds = [("sequence", "U2"), ("time", "f8"), ("x", "f4"), ("y", "f4"), ("mark", "i2")]
    path.write_bytes(npy_bytes(np.array(rows, dtype=kinds)))
    events = read_events(str(path), EventReadOptions())
    assert events.sequence_id == ("7", "3", "5") and events.mark_names == ("0", "1", "2")


def test_parts_of_an_npz_a_json_and_a_folder_agree(tmp_path: Path) -> None:
    parts = {"train": NESTED, "val": NESTED[1:], "test": NESTED[:1]}
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, tree in parts.items():
        (folder / f"data_{name}.pkl").write_bytes(pickle.dumps(tree))
    (folder / "README.md").write_text("not data")
    (tmp_path / "all.json").write_text(json.dumps({"train": NESTED, "dev": parts["val"], "test": parts["test"]}))
    arrays = {}
    for name, tree in parts.items():
        flat = np.array([event for sequence in tree for event in sequence])
        arrays |= {f"{name}_time": flat[:, 0], f"{name}_mark": flat[:, 1].astype(int), f"{name}_loc": flat[:, 2:],
                   f"{name}_offset": np.cumsum([0, *map(len, tree)])}  # fmt: skip
    (tmp_path / "all.npz").write_bytes(npz_bytes(**arrays))
    for source in ("folder", "all.json", "all.npz"):
        found = read_event_parts(EventReadOptions(source=(str(tmp_path / source),)))
        assert [part.num_events for part in found.named().values()] == [5, 3, 2]
        assert {part.mark_names for part in found.named().values()} == {("0", "1", "2")}
        assert found.test.mark is not None and found.test.mark.tolist() == [1, 0]
        whole = read_events(str(tmp_path / source), EventReadOptions())
        assert whole.num_events == 10 and whole.sequence_id[:4] == ("train/0", "train/1", "train/2", "val/0")


def test_one_file_is_cut_in_order_and_three_are_taken_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "all.json").write_text(json.dumps(NESTED))
    parts = read_event_parts(EventReadOptions(source=(str(tmp_path / "all.json"),), split=(0.4, 0.3, 0.3)))
    assert [part.sequence_id for part in parts.named().values()] == [("0",), ("1",), ("2",)]
    parts = read_event_parts(EventReadOptions(source=(str(tmp_path / "all.json"),) * 3))
    assert [part.num_sequences for part in parts.named().values()] == [3, 3, 3]


def test_without_a_val_part_the_last_tenth_of_train_serves(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "train.json").write_text(json.dumps(NESTED * 5))
    (tmp_path / "test.json").write_text(json.dumps(NESTED))
    with caplog.at_level(logging.WARNING):
        parts = read_event_parts(EventReadOptions(source=(str(tmp_path),)))
    assert [part.num_sequences for part in parts.named().values()] == [14, 1, 3]
    assert parts.val.sequence_id == ("14",) and "the last 1 of 15" in caplog.text


PLAIN: list[Any] = [
    1, -5, 2**62, -(2**100), 1.5, float("inf"), True, None, "text", "ü\n'", b"bytes\x00", (1, (2.0,)), {3, "a"}, [], {},
    {"a": [1.0], 2: ("b", None), (1, "c"): {}},
]  # fmt: skip


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_plain_pickles_come_back_equal(protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "plain.pkl"
    path.write_bytes(pickle.dumps(PLAIN, protocol=protocol))
    assert read_plain_pickle(path) == PLAIN


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_arrays_in_pickles_come_back_equal(protocol: int, tmp_path: Path) -> None:
    fortran = np.asfortranarray(np.arange(6).reshape(2, 3))
    arrays = [np.arange(6.0).reshape(2, 3), fortran, np.array(["a", "bcd"]),
              np.arange(3, dtype=">i2"), np.array([True]), np.zeros((0, 4), np.float32), np.array(7)]  # fmt: skip
    path = tmp_path / "arrays.pkl"
    path.write_bytes(pickle.dumps([*arrays, np.float32(2.5)], protocol=protocol))
    found = read_plain_pickle(path)
    for expected, array in zip(arrays, found, strict=False):
        assert array.dtype == expected.dtype and array.shape == expected.shape and np.array_equal(array, expected)
    assert found[-1] == np.float32(2.5)


def test_samples_of_the_original_come_back_equal(tmp_path: Path) -> None:
    torch.manual_seed(0)
    batch = torch.rand(4, 6, 5)
    samples = [
        [[(torch.rand(4, 3, 3), torch.rand(4, 3, 2)), (batch[:, ::2, 1:4], None)]],
        [torch.arange(8).reshape(2, 4).T],
    ]
    path = tmp_path / "samples.pkl"
    path.write_bytes(pickle.dumps(samples))
    found = read_plain_pickle(path)
    assert torch.equal(found[0][0][0][0], samples[0][0][0][0]) and torch.equal(found[0][0][0][1], samples[0][0][0][1])
    assert torch.equal(found[0][0][1][0], batch[:, ::2, 1:4]) and found[0][0][1][1] is None
    assert torch.equal(found[1][0], samples[1][0])


def test_python_2_pickles_give_text(tmp_path: Path) -> None:
    path = tmp_path / "old.pkl"
    path.write_bytes(b"(lp0\nS'773869'\np1\naS'caf\\xe9'\np2\naI17\naL5L\naF1.5\naI01\na.")
    assert read_plain_pickle(path) == ["773869", "café", 17, 5, 1.5, True]


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".npz"])
@pytest.mark.parametrize(
    "build",
    [
        lambda fields: fields,
        lambda fields: {**fields, "mark": None, "mark_names": ()},
        lambda fields: {**fields, "offsets": [0, 0, 2, 2, 5, 5], "sequence_id": ("e", "a b", "ü,", 'q"', "z")},
        lambda fields: {**fields, "mark_names": ("z", "a", "unseen", "7")},
        lambda fields: {**fields, "origin": np.array(["2024-01-01T00:00:00.000001", "1969-12-31"], "datetime64[us]")},
        lambda fields: {**fields, "coordinates": "planar", "time_unit": "units"},
    ],
)
def test_written_events_are_read_back_exactly(
    ending: str, build: Callable[[dict[str, Any]], dict[str, Any]], tmp_path: Path
) -> None:
    fields = {"time": [0.1, 1 / 3, 0.0, 2e-17, 1e6], "location": PLACE / 3.0, "offsets": [0, 2, 5],
              "mark": [0, 1, 1, 0, 3], "mark_names": ("0", "1", "2", "10"),
              "time_unit": "days", "coordinates": "degrees"}  # fmt: skip
    events = EventSequences(**build(fields))
    events.write(tmp_path / f"events{ending}")
    again = EventSequences.read(tmp_path / f"events{ending}")
    for name in ("time", "location", "offsets", "mark", "origin"):
        assert np.array_equal(getattr(again, name), getattr(events, name)), name
    for name in ("mark_names", "sequence_id", "time_unit", "coordinates"):
        assert getattr(again, name) == getattr(events, name), name


def test_writing_elsewhere_is_refused(tmp_path: Path) -> None:
    events = EventSequences(time=TIME[:1], location=PLACE[:1], offsets=[0, 1])
    with pytest.raises(UserError, match=r"ending '.xlsx'; expected one of .parquet"):
        events.write(tmp_path / "a.xlsx")
    with pytest.raises(UserError, match="no folder"):
        events.write(tmp_path / "none" / "a.csv")
