"""Mutated files of every format: either a UserError of one line or valid events, nothing else, and no hang."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import feather, parquet

from stcore.errors import UserError
from stcore.events import EventSequences
from stcore.readers import plain_pickle, read_events
from stcore.readers.options import EventReadOptions
from stcore.readers.pickles import read_plain_pickle

TIME, PLACE = np.arange(1.0, 7.0), np.linspace(-1.0, 1.0, 12).reshape(6, 2)
NESTED = [[[float(t), float(k % 2), float(k), 2.5] for k, t in enumerate(TIME)] for _ in range(3)]
EVENTS = EventSequences(time=TIME, location=PLACE, offsets=[0, 2, 6], mark=[0, 1, 0, 1, 0, 1], mark_names=("a", "b"))
COLUMNS = {"sequence": ["a"] * 3 + ["b"] * 3, "time": TIME, "x": PLACE[:, 0], "y": PLACE[:, 1], "mark": ["r", "g"] * 3}


def written(ending: str) -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        EVENTS.write(Path(folder) / f"a{ending}")
        return (Path(folder) / f"a{ending}").read_bytes()


def bytes_of(write: Any, *what: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    write(buffer, *what, **options)
    return buffer.getvalue()


def feather_bytes(compression: str) -> bytes:
    buffer = io.BytesIO()
    feather.write_feather(pa.table(COLUMNS), buffer, compression=compression)
    return buffer.getvalue()


CSV = written(".csv")
STAMPS = b"time,lng,lat,mark\n2024-01-01T00:00:00Z,1.5,2.5,red\n2024-01-02T00:00:00+01:00,-1.5,2.5,blue\n"
FILES: dict[str, tuple[str, tuple[bytes, ...]]] = {
    "csv": (".csv", (CSV, STAMPS, b"# stcore.events {}\n" + CSV, CSV.replace(b",", b";"))),
    "gzip": (".csv.gz", (gzip.compress(CSV, mtime=0),)),
    "parquet": (".parquet", (written(".parquet"), bytes_of(lambda f, t: parquet.write_table(t, f), pa.table(COLUMNS)))),
    "feather": (".feather", (feather_bytes("lz4"), feather_bytes("zstd"), feather_bytes("uncompressed"))),
    "npz": (".npz", (written(".npz"), bytes_of(lambda f: np.savez(f, time=TIME, loc=PLACE, offset=np.array([0, 6]))))),
    "npy": (".npy", (bytes_of(np.save, np.column_stack([TIME, PLACE])),)),
    "json": (".json", (json.dumps(NESTED).encode(), json.dumps({"time": [1.0], "x": [1.0], "y": [1.0]}).encode())),
}
ARRAYS = [np.arange(6.0).reshape(2, 3), np.float32(2.5), {"a": (1, {2, b"x"})}]
PICKLES = tuple(
    pickle.dumps(value, protocol=protocol) for value in (NESTED[:2], ARRAYS) for protocol in (0, 2, 4, 5)
)  # fmt: skip

PIECES = st.sampled_from(
    [b"", b"\x00", b"\xff" * 4, b"1e999", b"nan", b"-", b",", b"\n", b'"', b"[", b"}", b"\xe4", b"9" * 30]
)


@st.composite
def mutated(draw: st.DrawFn, originals: tuple[bytes, ...]) -> bytes:
    """Draw an original and change it in a few places: bytes set, pieces put in, taken out, doubled or cut off."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 4))):
        if not data:
            break
        at = draw(st.integers(0, len(data) - 1))
        to = min(len(data), at + draw(st.integers(1, 40)))
        match draw(st.sampled_from(["set", "flip", "put", "remove", "double", "cut"])):
            case "set":
                data[at] = draw(st.integers(0, 255))
            case "flip":
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "put":
                data[at:at] = draw(PIECES | st.binary(max_size=8))
            case "remove":
                del data[at:to]
            case "double":
                data[at:at] = data[at:to]
            case _:
                del data[at:]
    return bytes(data)


def counted(few: int) -> list[Any]:
    return [few, pytest.param(5000, marks=pytest.mark.campaign)]


def quiet(count: int) -> settings:
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
    return settings(max_examples=count, deadline=None, suppress_health_check=checks, database=None, derandomize=True)


@pytest.mark.parametrize("count", counted(300))
@pytest.mark.parametrize("kind", FILES)
def test_mutated_files_are_read_or_refused(kind: str, count: int, tmp_path: Path) -> None:
    ending, originals = FILES[kind]
    path = tmp_path / f"fuzz{ending}"
    seen = {"read": 0, "refused": 0}

    @quiet(count)
    @given(mutated(originals))
    def run(data: bytes) -> None:
        path.write_bytes(data)
        start = time.process_time()
        try:
            events = read_events(str(path), EventReadOptions())
        except UserError as error:
            seen["refused"] += 1
            assert "\n" not in str(error) and "expected" in str(error) and len(str(error)) < 900
        else:
            seen["read"] += 1
            assert events.num_events >= 1 and np.isfinite(events.gaps()).all()
        assert time.process_time() - start < 2.0

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run()
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert seen["refused"] > count // 20 and sum(seen.values()) >= count // 2
    assert grown < 500 * 2**20


@pytest.mark.parametrize("count", counted(500))
def test_mutated_pickles_are_plain_or_refused(count: int) -> None:
    """The interpreter itself, in this process; the child around it only adds limits."""
    seen = {"read": 0, "refused": 0}

    def no_storage(_: bytes) -> tuple[str, bytes]:
        raise plain_pickle.Refused("a storage")

    @quiet(count)
    @given(mutated(PICKLES))
    def run(data: bytes) -> None:
        try:
            value = plain_pickle.interpret(data)
            writer = plain_pickle.Writer(plain_pickle.NODES_PER_BYTE * len(data) + 1000, no_storage)
            json.loads(json.dumps(writer.plain(value)))
        except plain_pickle.Refused as error:
            seen["refused"] += 1
            assert str(error) and len(str(error)) < 300
        else:
            seen["read"] += 1

    run()
    assert seen["refused"] > count // 20 and seen["read"] > 0


def test_mutated_pickles_through_the_child(tmp_path: Path) -> None:
    path = tmp_path / "fuzz.pkl"
    seen: list[bool] = []

    @quiet(25)
    @given(mutated(PICKLES))
    def run(data: bytes) -> None:
        path.write_bytes(data)
        try:
            read_plain_pickle(path)
        except UserError as error:
            assert "\n" not in str(error) and "expected" in str(error)
            seen.append(False)
        else:
            seen.append(True)

    run()
    assert len(seen) >= 10 and not all(seen)
