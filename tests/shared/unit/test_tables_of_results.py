"""Tables of results: pieces in, one whole file out or none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.csv
import pyarrow.parquet
import pytest

from stcore.errors import UserError
from stcore.tables import write_table

PIECES = [{"a": [1, 2], "b": ["x", "y"]}, {"a": [3], "b": ["z"]}]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_pieces_become_one_table(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"table{suffix}"
    assert write_table(path, PIECES) == 3
    read = pyarrow.csv.read_csv if suffix == ".csv" else pyarrow.parquet.read_table
    assert read(path).to_pydict() == {"a": [1, 2, 3], "b": ["x", "y", "z"]}
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_failure_half_way_leaves_the_old_table(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    write_table(path, PIECES[:1])
    before = path.read_bytes()

    def broken() -> Iterator[dict[str, Any]]:
        yield PIECES[0]
        raise UserError("events: something is wrong")

    with pytest.raises(UserError, match="something is wrong"):
        write_table(path, broken())
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("name", "message"), [("table.xlsx", "expected .csv or .parquet"), ("missing/table.csv", "does not exist")]
)
def test_impossible_places_are_refused_first(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        write_table(tmp_path / name, PIECES)
