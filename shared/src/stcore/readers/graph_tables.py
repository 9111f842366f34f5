"""Tables of text for graphs: wide tables of readings (a column for each node), matrices, lists of edges, positions."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stcore.errors import UserError
from stcore.readers import limits
from stcore.readers.graph_raw import Edges, Matrix, RawGraph
from stcore.readers.grid_times import parse_text
from stcore.readers.limits import short, shown
from stcore.readers.tables import require_utf8, text_bytes

TABLE_ENDINGS = (".csv", ".tsv", ".txt", ".gz")

_MISSING = ["", "NA", "N/A", "n/a", "NaN", "nan", "NAN", "null", "NULL", "None", "none", "-nan"]
_TIME_NAMES = ("time", "times", "timestamp", "timestamps", "date", "datetime", "date_time", "index", "unnamed: 0", "")
_START = ("from", "source", "start", "src", "u", "i", "node1", "from_node")
_END = ("to", "target", "end", "dst", "v", "j", "node2", "to_node")
_LENGTHS = ("cost", "distance", "dist", "length", "metres", "meters", "length_m", "distance_m")
_NODE = ("node", "sensor_id", "id", "station", "name", "node_id", "road_id", "zone")
_LATITUDE, _LONGITUDE = ("latitude", "lat"), ("longitude", "lon", "lng")
_X, _Y = ("x", "x_m", "easting"), ("y", "y_m", "northing")
_LONGEST_LINE = 64 * 2**20
_BAD_CELL = re.compile(r"column #(\d+)(?:: Row #(\d+))?.*invalid value '(.*)'", re.DOTALL)


@dataclass(frozen=True)
class Text:
    """The content of a table of text."""

    where: str
    data: bytes
    first: list[str]
    """Cells of the first line."""
    separator: str

    @property
    def lines(self) -> int:
        """How many lines hold anything."""
        stripped = self.data.strip()
        return stripped.count(b"\n") + 1 if stripped else 0


def read_text(path: Path, max_bytes: int, what: str) -> Text:
    """Return a table of `what` and its first line.

    Raises:
        UserError: it is no such text, or too large.
    """
    limits.require_file(path, what)
    where = shown(path)
    data = text_bytes(path, max_bytes, what)
    require_utf8(data, where, 1)
    end = data.find(b"\n", 0, _LONGEST_LINE)
    if end < 0 and len(data) > _LONGEST_LINE:
        raise UserError(f"{where}: the first line is longer than {_LONGEST_LINE:,} bytes; expected a header line")
    line = data[: end if end >= 0 else len(data)].decode().rstrip("\r")
    separator = max(",;\t|", key=line.count)
    if not line.count(separator) and " " in line.strip():
        raise UserError(f"{where}: row 1 is {short(line)}; expected cells between commas, semicolons or tabs")
    try:
        first = next(csv.reader([line], delimiter=separator, strict=True), [])
    except csv.Error as error:
        raise UserError(f"{where}: row 1: {error}; expected a header line") from error
    if not first:
        raise UserError(f"{where}: row 1 is empty; expected a header line and {what}")
    return Text(where, data, [cell.strip() for cell in first], separator)


def is_number(text: str) -> bool:
    """Return whether a cell reads as a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def columns(text: Text, *, skip: int, words: frozenset[int] = frozenset()) -> list[Any]:
    """Return the columns below `skip` lines: arrays of float64 (NaN where a cell is empty), or lists of text.

    Args:
        text: the table.
        skip: lines before the first row.
        words: columns that are text.

    Raises:
        UserError: a row has more or fewer cells, or a cell is no number.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    names = [str(number) for number in range(len(text.first))]
    wrong: list[Any] = []

    def refuse(row: Any) -> Literal["error"]:
        wrong.append(row)
        return "error"

    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(text.data),
            read_options=arrow_csv.ReadOptions(
                use_threads=False, column_names=names, skip_rows=skip,
                block_size=max(2**20, min(len(text.data) + 1, 2**26)),
            ),
            parse_options=arrow_csv.ParseOptions(delimiter=text.separator, invalid_row_handler=refuse),
            convert_options=arrow_csv.ConvertOptions(
                column_types={name: pa.string() if int(name) in words else pa.float64() for name in names},
                null_values=_MISSING, strings_can_be_null=False,
            ),
        )  # fmt: skip
    except (pa.ArrowException, OSError) as error:
        raise _csv_error(error, wrong, text) from error
    return [
        table.column(number).to_pylist() if number in words else table.column(number).to_numpy()
        for number in range(len(names))
    ]


def _csv_error(error: Exception, wrong: list[Any], text: Text) -> UserError:
    if wrong:
        row = f"row {wrong[0].number}" if wrong[0].number else f"row {short(wrong[0].text)}"
        return UserError(
            f"{text.where}: {row} has {wrong[0].actual_columns} cells; expected {wrong[0].expected_columns} as in row 1"
        )
    if match := _BAD_CELL.search(str(error)):
        column = text.first[int(match[1])] if int(match[1]) < len(text.first) else match[1]
        row = f"row {match[2]}, " if match[2] else ""
        return UserError(f"{text.where}: {row}column {short(column)} is {short(match[3])}; expected a number with a "
                         "decimal point")  # fmt: skip
    return UserError(f"{text.where}: {limits.one_line(error)}; expected a table of numbers")


def read_wide(path: Path, max_bytes: int) -> RawGraph:
    """Read a table with a row for each step and a column for each node, whose header names the nodes; a first column of
    moments may come before them. Rows are counted with the header as row 1.

    Raises:
        UserError: there is no header or no row, or a cell is not what it must be.
    """
    text = read_text(path, max_bytes, "readings")
    header = text.first
    if any(is_number(name) and not name.lstrip("-").isdigit() for name in header):
        raise UserError(f"{text.where}: row 1 is {short(','.join(header))}: readings; expected a header line with the "
                        "name of each node")  # fmt: skip
    if text.lines < 2:
        raise UserError(f"{text.where}: a header and no rows; expected at least one step")
    timed = header[0].lower() in _TIME_NAMES
    names = header[1:] if timed else header
    if not names:
        raise UserError(f"{text.where}: row 1 is {short(','.join(header))}; expected a column for each node")
    if "" in names:
        raise UserError(f"{text.where}: row 1: column {names.index('') + 1 + timed} has no name; expected the name of "
                        "a node")  # fmt: skip
    _require_different(text.where, names)
    found = columns(text, skip=1, words=frozenset({0} if timed else set[int]()))
    values = np.column_stack(found[1:] if timed else found)
    return RawGraph(
        where=text.where,
        values=values[:, :, None],
        name=path.name.split(".")[0],
        nodes=tuple(names),
        times=_times(text.where, header[0], found[0]) if timed else None,
        step_word="row",
        first_number=2,
    )


def _require_different(where: str, names: list[str]) -> None:
    seen: set[str] = set()
    for number, name in enumerate(names):
        if name in seen:
            raise UserError(f"{where}: node {short(name)} occurs twice, at column {number + 1} again; expected "
                            "different names")  # fmt: skip
        seen.add(name)


def _times(where: str, name: str, cells: list[str]) -> NDArray[np.datetime64] | None:
    if name.lower() in ("", "index", "unnamed: 0") and cells == [str(number) for number in range(len(cells))]:
        return None  # a plain count of rows
    lost = [row for row, cell in enumerate(cells) if not cell]
    if lost:
        raise UserError(f"{where}: row {lost[0] + 2}: no moment in column {short(name)}; expected one for each step")
    return parse_text(f"{where}: column {short(name)}", cells)


def read_graph_table(path: Path, max_bytes: int) -> Edges | Matrix:
    """Read a list of edges (a header with from and to) or a square matrix, with or without the names of its nodes.

    Raises:
        UserError: it is neither.
    """
    text = read_text(path, max_bytes, "a graph")
    lower = [name.lower() for name in text.first]
    start, end = _place(lower, _START), _place(lower, _END)
    if start is not None and end is not None:
        return _edges(text, lower, start, end)
    return _matrix(text)


def _place(names: list[str], wanted: tuple[str, ...]) -> int | None:
    return next((names.index(name) for name in wanted if name in names), None)


def _edges(text: Text, names: list[str], start: int, end: int) -> Edges:
    if text.lines < 2:
        raise UserError(f"{text.where}: a header and no rows; expected at least one edge")
    others = [number for number in range(len(names)) if number not in (start, end)]
    named = next((number for number in others if names[number] in (*_LENGTHS, "weight", "weights", "w", "value")), None)
    numbers = named if named is not None else (others[0] if len(others) == 1 else None)
    words = frozenset(range(len(names))) - ({numbers} if numbers is not None else set[int]())
    found = columns(text, skip=1, words=words)
    values = None if numbers is None else np.asarray(found[numbers], dtype=np.float64)
    if values is not None and (lost := np.flatnonzero(~np.isfinite(values))).size:
        column = text.first[numbers or 0]
        raise UserError(f"{text.where}: row {lost[0] + 2}, column {short(column)} is {values[lost[0]]}; expected a "
                        "number")  # fmt: skip
    return Edges(
        where=text.where,
        start=tuple(cell.strip() for cell in found[start]),
        end=tuple(cell.strip() for cell in found[end]),
        numbers=values,
        lengths=numbers is not None and names[numbers] in _LENGTHS,
    )


def _matrix(text: Text) -> Matrix:
    """Read a matrix; a header is there where there is one line more than columns, or where names are no numbers."""
    lines, width = text.lines, len(text.first)
    indexed = text.first[0].lower() in ("", "index", "unnamed: 0", *_NODE)
    header = indexed or lines == width + 1 or not all(is_number(cell) for cell in text.first)
    words = frozenset({0} if indexed else set[int]())
    found = columns(text, skip=1 if header else 0, words=words)
    values = np.column_stack(found[1:] if indexed else found) if len(found) > len(words) else np.zeros((0, 0))
    ids = tuple(text.first[1:] if indexed else text.first) if header else ()
    if values.shape[0] != values.shape[1]:
        raise UserError(f"{text.where}: {values.shape[0]} rows of {values.shape[1]} numbers; expected a square matrix, "
                        "or a list of edges with columns from and to")  # fmt: skip
    return Matrix(where=text.where, values=values, ids=ids)


def read_positions(path: Path, max_bytes: int) -> tuple[dict[str, int], NDArray[np.float64], bool]:
    """Read positions of nodes: row by name (empty where there are no names), x and y, whether they are degrees.

    Raises:
        UserError: columns are missing, or a name occurs twice.
    """
    text = read_text(path, max_bytes, "positions of nodes")
    lower = [name.lower() for name in text.first]
    y, x = _place(lower, _LATITUDE), _place(lower, _LONGITUDE)
    degrees = y is not None and x is not None
    if not degrees:
        x, y = _place(lower, _X), _place(lower, _Y)
    if x is None or y is None:
        raise UserError(f"{text.where}: columns {short(', '.join(text.first))}; expected latitude and longitude, or x "
                        "and y")  # fmt: skip
    named = _place(lower, _NODE)
    found = columns(text, skip=1, words=frozenset(range(len(lower))) - {x, y})
    points = np.column_stack([found[x], found[y]]).astype(np.float64)
    if named is None:
        return {}, points, degrees
    names = [cell.strip() for cell in found[named]]
    rows = {name: row for row, name in enumerate(names)}
    if len(rows) != len(names):
        twice = next(name for row, name in enumerate(names) if rows[name] != row)
        raise UserError(f"{text.where}: node {short(twice)} occurs twice; expected each once")
    return rows, points, degrees
