"""Frames from text: a line for each cell and moment, or a column for each cell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stcore.errors import UserError
from stcore.grids import GridSeries
from stcore.readers.grid_options import GridReadOptions

LONG = """time,row,column,inflow,outflow
2024-05-01T00:00,0,0,1,10
2024-05-01T00:30,1,2,12,21
2024-05-01T00:00,0,1,2,11
2024-05-01T00:00,0,2,3,12
2024-05-01T00:00,1,0,4,13
2024-05-01T00:00,1,1,5,14
2024-05-01T00:00,1,2,6,15
2024-05-01T00:30,0,0,7,16
2024-05-01T00:30,0,1,8,17
2024-05-01T00:30,0,2,9,18
2024-05-01T00:30,1,0,10,19
2024-05-01T00:30,1,1,11,20
"""
WIDE = "frame;r1c1;r1c2;r2c1;r2c2\n2;5;6;7;8\n\n1;1;2;3;4\n"


def read(folder: Path, text: str | bytes, **options: Any) -> GridSeries:
    path = folder / "flow.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return GridSeries.read(path, GridReadOptions(**options))


def test_lines_in_any_order_become_frames(tmp_path: Path) -> None:
    series = read(tmp_path, LONG)
    assert series.shape == (2, 2, 2, 3) and series.channels == ("inflow", "outflow")
    assert series.frames([0, 1])[:, 0].ravel().tolist() == list(range(1, 13))
    assert series.frames([1])[0, 1].tolist() == [[16, 17, 18], [19, 20, 21]]
    assert series.times is not None and str(series.times[1]) == "2024-05-01T00:30:00.000000"
    assert series.step == np.timedelta64(1800, "s")


def test_one_column_may_be_chosen_and_a_byte_order_mark_is_no_name(tmp_path: Path) -> None:
    series = read(tmp_path, b"\xef\xbb\xbf" + LONG.encode(), variable=("outflow",))
    assert series.channels == ("outflow",) and series.frames([0]).min() == 10


def test_coordinates_rise_and_degrees_keep_their_names(tmp_path: Path) -> None:
    text = "date,lat,lon,t\n" + "".join(
        f"2024-05-01,{lat},{lon},{lat + lon}\n" for lat in (58.0, 57.5) for lon in (-1.0, 3.0)
    )
    series = read(tmp_path, text)
    assert series.y is not None and series.x is not None and series.axis_names == ("lat", "lon")
    assert series.y.tolist() == [57.5, 58.0] and series.x.tolist() == [-1.0, 3.0]
    assert series.frames([0])[0, 0].tolist() == [[56.5, 60.5], [57.0, 61.0]]


def test_a_column_for_each_cell_and_numbers_for_times(tmp_path: Path) -> None:
    series = read(tmp_path, WIDE, start="2024-05-01", step="1 hour")
    assert series.shape == (2, 1, 2, 2) and series.frames([0, 1]).ravel().tolist() == list(range(1, 9))
    assert series.times is not None and str(series.times[1])[:13] == "2024-05-01T01"


def test_lines_that_are_not_there_are_missing_cells(tmp_path: Path) -> None:
    text = "\n".join(LONG.splitlines()[:-1])
    with pytest.raises(UserError, match=r"flow\.csv: frame 1, channel inflow, row 1, column 1: nan"):
        read(tmp_path, text)
    series = read(tmp_path, text.replace(",2,11", ",NA,11"), missing="mask")
    assert np.argwhere(np.isnan(series.frames([0, 1]))).tolist() == [[0, 0, 0, 1], [1, 0, 1, 1], [1, 1, 1, 1]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", r"columns 'a, b'; expected a header line with time"),
        (LONG.replace("row,", "row,y,", 1), "columns row and y; expected one of them"),
        (LONG.replace("0,0,1,10", "0,0,1", 1), "line 2 has 4 cells; expected 5"),
        (LONG.replace("0,0,1,10", "0,0,many,10", 1), "line 2, column inflow: 'many'; expected a number"),
        (LONG.replace("0,0,1,10", '0,0,"1,5",10', 1), "line 2, column inflow: '1,5'; expected a number"),
        (LONG.replace("0,0,1,10", "north,0,1,10", 1), "line 2, column row: 'north'; expected a number"),
        (LONG.replace("0,0,1,10", "inf,0,1,10", 1), "line 2, column row: inf; expected a finite number"),
        (LONG.replace("0,1,2,11", "0,0,2,11", 1), "line 4: the cell of line 2 again"),
        (LONG.replace("2024-05-01T00:00,0,0", "2024-02-30,0,0", 1), "'2024-02-30'; expected a moment that exists"),
        ("time,row,column\n1,0,0\n", "expected one with values beside time, row and column"),
        ("time,row,column,v\n", "a header line only; expected cells"),
        ("time,r0c0,r0c1,r1c0\n1,1,1,1\n", "3 different cells in 3 columns; expected one for each of 2 x 2"),
        ("time,r0c0,speed\n1,1,1\n", "column 'speed'; expected row and column as columns"),
        ("time,r0c0\n1,1\n1,2\n", "line 3: time '1' again"),
        ("time,r0c0\n", "a header line only; expected frames"),
        ("time,r0c0\nnan,1\n", "time 'nan'; expected a finite number or a moment"),
        ("time,r0c0\n1,1\n".encode("utf-16"), "expected lines of text"),
        ("time,r0c0\n1,\xfc\n".encode("latin-1"), "is not UTF-8; expected text in UTF-8"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path, text)
    assert "flow.csv" in str(caught.value)


def test_coordinates_that_are_no_grid_are_refused_before_they_fill_the_memory(tmp_path: Path) -> None:
    lines = "".join(f"1,{0.1 * at},{0.3 * at},1\n" for at in range(200))
    with pytest.raises(UserError, match="200 rows by 200 columns need 160,000 bytes; expected coordinates of a grid"):
        read(tmp_path, "time,y,x,v\n" + lines, max_bytes=100_000)
    with pytest.raises(UserError, match="no column 'w' among 'v'"):
        read(tmp_path, "time,y,x,v\n1,0,0,1\n", variable=("w",))
