"""Files that would unpack to more than memory are refused from their headers, fast and with little memory."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import feather, parquet

from stcore.errors import UserError
from stcore.readers import read_events
from stcore.readers.options import EventReadOptions


def npy_header(shape: tuple[int, ...], dtype: str = "<f8") -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def npz(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def table(rows: int, **columns: Any) -> Any:
    zeros = np.zeros(rows)
    return pa.table({"time": zeros, "x": zeros, "y": zeros, **columns})


def stored(writer: Any, what: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    writer(what, buffer, **options)
    return buffer.getvalue()


def bombs() -> dict[str, bytes]:
    """Return the content of each bomb by file name."""
    zeros = npy_header((16 * 2**20,)) + bytes(128 * 2**20)
    small = npy_header((3,)) + bytes(24)
    many = 6_000_000
    word = pa.DictionaryArray.from_arrays(pa.array(np.zeros(1000, np.int32)), pa.array(["m" * 2_000_000]))
    text = b"time,x,y\n" + b"1,0,0\n" * (16 * 2**20)
    files = {
        "ratio.npz": npz({"time.npy": zeros, "location.npy": zeros}),
        "declared.npz": npz({"time.npy": npy_header((10**12,)) + bytes(80), "location.npy": small}),
        "overflow.npz": npz({"time.npy": npy_header((2**40, 2**40)), "location.npy": small}),
        "words.npz": npz({"time.npy": npy_header((2,), "<U500000000") + bytes(8), "location.npy": small}),
        "shape.npy": npy_header((10**15, 3)) + bytes(24),
        "text.csv.gz": gzip.compress(text, 9),
        "twice.csv.gz": gzip.compress(gzip.compress(bytes(64 * 2**20))),
        "line.csv.gz": gzip.compress(b"time,x,y" * (12 * 2**20)),
        "rows.parquet": stored(parquet.write_table, table(many), compression="zstd"),
        "dictionary.parquet": stored(parquet.write_table, table(1000, mark=word)),
        "zstd.feather": stored(feather.write_feather, table(many), compression="zstd"),
        "lists.json": b"[" + b"[]," * 1_500_000 + b"[]]",
    }
    return files


ROOMY = {"lists.json"}
"""Bombs for a machine with little memory only; they are tried with a limit of 32 MB."""
HARMLESS = {"dictionary.parquet", "twice.csv.gz"}
"""Refused for what they hold: a mark of two million letters, never written out for each row; gzip within gzip, unpacked
only once."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bombs")
    for name, data in bombs().items():
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize(
    "name",
    ["ratio.npz", "declared.npz", "overflow.npz", "words.npz", "shape.npy", "text.csv.gz", "twice.csv.gz",
     "line.csv.gz", "rows.parquet", "dictionary.parquet", "zstd.feather", "lists.json"],
)  # fmt: skip
def test_bombs_are_refused_in_one_line(folder: Path, name: str) -> None:
    options = EventReadOptions(max_bytes=2**25 if name in ROOMY else 0)
    start = time.process_time()
    with pytest.raises(UserError) as caught:
        read_events(str(folder / name), options)
    message = str(caught.value)
    assert time.process_time() - start < 2.0
    assert message.startswith(str(folder / name)) and "expected" in message and "\n" not in message
    assert name in HARMLESS or ("bytes; expected at most" in message and "--data.max-bytes" in message)


def test_refusing_bombs_takes_little_memory(folder: Path) -> None:
    program = (
        "import sys, json, resource, pyarrow.csv, pyarrow.parquet, pyarrow.feather\n"
        "from stcore.errors import UserError\n"
        "from stcore.readers import read_events, tables, arrays, nested\n"
        "from stcore.readers.options import EventReadOptions\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before, grown = peak(), {}\n"
        "for path in sys.argv[1:]:\n"
        "    limit = 2**25 if path.endswith('lists.json') else 0\n"
        "    try: read_events(path, EventReadOptions(max_bytes=limit))\n"
        "    except UserError: grown[path.rpartition('/')[2]] = peak() - before\n"
        "print(json.dumps(grown))\n"
    )
    paths = sorted(map(str, folder.iterdir()))
    done = subprocess.run([sys.executable, "-c", program, *paths], capture_output=True, check=True)
    grown = json.loads(done.stdout)
    assert len(grown) == len(paths)
    assert max(grown.values()) * 1024 < 200 * 2**20, grown


def test_a_limit_given_by_hand_admits_a_large_ratio(tmp_path: Path) -> None:
    path = tmp_path / "regular.csv.gz"
    path.write_bytes(gzip.compress(b"time,x,y\n" + b"1,0,0\n" * 500_000, 9))
    events = read_events(str(path), EventReadOptions(max_bytes=10**9))
    assert events.num_events == 500_000
