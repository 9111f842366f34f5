"""Tables of events, one row each: CSV (.csv, .tsv, .txt, also .gz), Parquet, Arrow and Feather, through pyarrow."""

from __future__ import annotations

import codecs
import csv
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stcore.errors import UserError
from stcore.readers import limits
from stcore.readers.columns import CSV_METADATA, METADATA_KEY, choose_columns, parse_metadata, unit_of, with_metadata
from stcore.readers.limits import short, shown
from stcore.readers.options import EventReadOptions
from stcore.readers.rows import Rows, mark_labels, with_size_classes
from stcore.readers.stamps import any_stamps, parse_stamps

_MISSING = ["", "NA", "N/A", "n/a", "NaN", "nan", "NAN", "null", "NULL", "None", "none", "-nan"]
_LONGEST_LINE = 4 * 2**20


def read_csv(path: Path, options: EventReadOptions) -> Rows:
    """Read comma, semicolon or tab separated text with a header line; rows are counted with the header as row 1.

    Raises:
        UserError: the file is not such text, a column is missing, or a cell is not what its column needs.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    where = shown(path)
    data, metadata = _split_metadata(text_bytes(path, options.max_bytes), where)
    first = 2 + (metadata is not None)
    require_utf8(data, where, first - 1)
    header, separator = _header(data, options, where)
    columns = choose_columns(header, options, where)
    wrong: list[Any] = []

    def refuse(row: Any) -> Literal["error"]:
        wrong.append(row)
        return "error"

    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(data),
            read_options=arrow_csv.ReadOptions(use_threads=False, block_size=max(2**20, min(len(data), 2**26))),
            parse_options=arrow_csv.ParseOptions(
                delimiter=separator, newlines_in_values=True, invalid_row_handler=refuse
            ),
            convert_options=arrow_csv.ConvertOptions(
                include_columns=[name for name in columns.values() if name],
                column_types={name: pa.string() for name in columns.values() if name},
                null_values=_MISSING,
                strings_can_be_null=True,
            ),
        )
    except (pa.ArrowException, OSError) as error:
        raise _csv_error(error, wrong, where, first - 2) from error
    return _rows(table, columns, options, where, metadata, lambda row: f"row {row + first}")


def text_bytes(path: Path, max_bytes: int, what: str = "events") -> bytes:
    """Return the text of a table of `what`, unpacked if it is packed, without a byte order mark.

    Raises:
        UserError: it is too large, in UTF-16, no text or empty.
    """
    if path.suffix.lower() == ".gz":
        data = _unzipped(path, max_bytes)
    else:
        # Cells become strings and then numbers: about four times the text.
        limits.require_size(path, 4 * path.stat().st_size, limits.size_limit(max_bytes), "the table needs about")
        with limits.open_file(path) as file:
            data = file.read()
    for mark, name in ((b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16")):
        if data.startswith(mark):
            raise UserError(f"{shown(path)}: text in {name}; expected UTF-8; save it as UTF-8")
    data = data.removeprefix(b"\xef\xbb\xbf")
    if b"\x00" in data[:4096]:
        raise UserError(f"{shown(path)}: starts with {limits.looks_like(data[:8])}; expected lines of text")
    if not data.strip():
        raise UserError(f"{shown(path)}: empty text; expected a header line and {what}")
    return data


def _unzipped(path: Path, max_bytes: int) -> bytes:
    """Unpack gzip data piece by piece, and stop where it grows beyond its limit."""
    limits.require_magic(path, ".gz")
    limit = limits.unpacked_limit(max_bytes, path.stat().st_size) // 4
    pieces: list[bytes] = []
    size = 0
    with limits.open_file(path) as file:
        packed = file.read()
    while packed:
        unpacker = zlib.decompressobj(wbits=31)
        while packed and not unpacker.eof:
            try:
                piece = unpacker.decompress(packed, 2**20)
            except zlib.error as error:
                raise UserError(f"{shown(path)}: broken gzip data ({error}); expected a whole file") from error
            pieces.append(piece)
            size += len(piece)
            limits.require_size(path, size, limit, "unpacks to more than")
            packed = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
            if not piece and not unpacker.eof and not packed:
                break
        if not unpacker.eof:
            pieces.append(unpacker.flush())
            raise UserError(f"{shown(path)}: gzip data ends early; expected a whole file")
        packed = packed.lstrip(b"\x00")
    return b"".join(pieces)


def _split_metadata(data: bytes, where: str) -> tuple[bytes, dict[str, Any] | None]:
    """Take off the line that `EventSequences.write` puts first where the columns cannot tell everything."""
    if not data.startswith(CSV_METADATA):
        return data, None
    line, _, rest = data.partition(b"\n")
    return rest, parse_metadata(line.removeprefix(CSV_METADATA), where)


def _header(data: bytes, options: EventReadOptions, where: str) -> tuple[list[str], str]:
    """Return the names of the columns and what separates them."""
    end = data.find(b"\n", 0, _LONGEST_LINE)
    if end < 0 and len(data) > _LONGEST_LINE:
        raise UserError(f"{where}: the first line is longer than {_LONGEST_LINE:,} bytes; expected a header line")
    line = data[: end if end >= 0 else len(data)].replace(b"\r", b"\n").split(b"\n")[0]
    text = line.decode()
    separator = options.separator or max(",;\t|", key=text.count)
    try:
        names = next(csv.reader([text], delimiter=separator, strict=True), [])
    except csv.Error as error:
        raise UserError(f"{where}: row 1: {error}; expected a header line of column names") from error
    if names and all(_is_number(name) for name in names):
        raise UserError(f"{where}: row 1 is {short(text)}: numbers only; expected a header line of column names")
    return names, separator


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def require_utf8(data: bytes, where: str, first: int) -> None:
    """Refuse text that is no UTF-8; checked piece by piece, and before a row is handed to Python as text.

    Raises:
        UserError: a byte is none; the message names its row, counted from `first`.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(data), 2**20):
            decoder.decode(data[start : start + 2**20])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        bad = _first_bad_byte(data)
        row = first + data.count(b"\n", 0, bad)
        raise UserError(f"{where}: row {row}: byte {data[bad]:#04x} is no UTF-8; expected UTF-8 text") from None


def _first_bad_byte(data: bytes) -> int:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.start
    return 0


def _csv_error(error: Exception, wrong: list[Any], where: str, before: int) -> UserError:
    if wrong:
        row = wrong[0]
        number = f"row {row.number + before}" if row.number else f"row {short(row.text)}"
        return UserError(
            f"{where}: {number} has {row.actual_columns} cells; expected {row.expected_columns} as in the header"
        )
    return UserError(f"{where}: {limits.one_line(error)}; expected a table with one event a row")


def read_parquet(path: Path, options: EventReadOptions) -> Rows:
    """Read a Parquet file; rows are counted from 1.

    Raises:
        UserError: the file is broken, declares more than the limit, or a column is missing or of a wrong type.
    """
    import pyarrow as pa
    from pyarrow import parquet

    where = shown(path)
    limits.require_magic(path, ".parquet")
    try:
        with limits.open_file(path) as source, parquet.ParquetFile(source) as file:
            schema = file.schema_arrow
            columns = choose_columns(schema.names, options, where)
            _require_parquet_size(file.metadata, columns, path, options)
            texts = [name for name in columns.values() if name and _is_text(schema.field(name).type)]
            metadata = schema.metadata or {}
        with limits.open_file(path) as source, parquet.ParquetFile(source, read_dictionary=texts) as file:
            table = file.read(columns=[name for name in columns.values() if name], use_threads=False)
            table.validate(full=True)
    except (pa.ArrowException, OSError, MemoryError, OverflowError, UnicodeDecodeError, ValueError) as error:
        raise _broken(error, where, "Parquet") from error
    return _rows(table, columns, options, where, _stored(metadata, where), lambda row: f"row {row + 1}")


def _broken(error: Exception, where: str, kind: str) -> UserError:
    if isinstance(error, UserError):
        return error
    return UserError(f"{where}: broken {kind} file ({limits.one_line(error)}); expected a whole {kind} file")


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind)


def _require_parquet_size(metadata: Any, columns: dict[str, str], path: Path, options: EventReadOptions) -> None:
    """Refuse from the footer: rows times 8 bytes for each column in use, and the unpacked size of its pages."""
    used = {name for name in columns.values() if name}
    needed = 8 * max(0, metadata.num_rows) * len(used)
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for index in range(row_group.num_columns):
            chunk = row_group.column(index)
            if chunk.path_in_schema.split(".")[0] in used:
                needed += max(0, chunk.total_uncompressed_size)
    limit = limits.unpacked_limit(options.max_bytes, path.stat().st_size)
    limits.require_size(path, needed, limit, f"declares {metadata.num_rows:,} rows that need")


def read_arrow(path: Path, options: EventReadOptions) -> Rows:
    """Read an Arrow IPC or Feather (version 2) file; rows are counted from 1.

    Raises:
        UserError: as for `read_parquet`.
    """
    import pyarrow as pa

    from stcore.readers.arrow_sizes import unpacked_bytes

    where = shown(path)
    limits.require_magic(path, path.suffix.lower())
    try:
        with pa.OSFile(str(path)) as source:
            needed = unpacked_bytes(source)
            limit = limits.unpacked_limit(options.max_bytes, path.stat().st_size)
            limits.require_size(path, needed, limit, "unpacks to")
            source.seek(0)
            schema = pa.ipc.open_file(source).schema
            columns = choose_columns(schema.names, options, where)
            fields = [schema.names.index(name) for name in columns.values() if name]
            reader = pa.ipc.open_file(source, options=pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False))
            table = reader.read_all()
            table.validate(full=True)
    except (pa.ArrowException, OSError, MemoryError, OverflowError, UnicodeDecodeError, ValueError) as error:
        raise _broken(error, where, "Arrow") from error
    metadata = _stored(schema.metadata or {}, where)
    return _rows(table, columns, options, where, metadata, lambda row: f"row {row + 1}")


def _stored(metadata: Any, where: str) -> dict[str, Any] | None:
    stored = metadata.get(METADATA_KEY.encode())
    return None if stored is None else parse_metadata(stored, where)


def rows_from_columns(
    columns: Mapping[str, Any], options: EventReadOptions, where: str, place: Callable[[int], str]
) -> Rows:
    """Make rows of named columns (lists or one-dimensional arrays) of equal length.

    Raises:
        UserError: a column is missing, of another length, or of mixed or unusable values.
    """
    import pyarrow as pa

    chosen = choose_columns(list(columns), options, where)
    arrays: dict[str, Any] = {}
    for name in filter(None, chosen.values()):
        try:
            arrays[name] = pa.array(columns[name], from_pandas=True)
        except (pa.ArrowException, OverflowError, ValueError, TypeError) as error:
            raise UserError(
                f"{where}: column {short(name)}: {limits.one_line(error)}; expected numbers or words"
            ) from error
        if len(arrays[name]) != len(columns[chosen["time"]]):
            found = f"{len(arrays[name]):,} values for {len(columns[chosen['time']]):,} times"
            raise UserError(f"{where}: column {short(name)} has {found}; expected one for each time")
    return _rows(pa.table(arrays), chosen, options, where, None, place)


def _rows(
    table: Any,
    columns: dict[str, str],
    options: EventReadOptions,
    where: str,
    metadata: dict[str, Any] | None,
    place: Callable[[int], str],
) -> Rows:
    """Turn the columns of an Arrow table into numbers, stamps, marks and sequence codes."""
    if not table.num_rows:
        raise UserError(f"{where}: a header and no rows; expected at least one event")

    def number(role: str) -> NDArray[np.float64]:
        return _numbers(table.column(columns[role]), columns[role], options, where, place)

    rows = Rows(
        where=where,
        time_unit=unit_of(columns["time"]),
        time=_times(table.column(columns["time"]), columns["time"], options, where, place),
        location=np.column_stack([number("x"), number("y")]),
        place=place,
        columns=(columns["time"], columns["x"], columns["y"], columns["mark"]),
    )
    if columns["mark"] and options.mark_edges:
        rows = with_size_classes(rows, number("mark"), options.mark_edges)
    elif columns["mark"]:
        codes, values = _encoded(table.column(columns["mark"]), columns["mark"], where)
        first = _first_rows(codes, len(values))
        labels = mark_labels(where, values, lambda index: place(int(first[index])), columns["mark"])
        rows = replace(rows, mark=codes, labels=labels)
    if columns["sequence"]:
        codes, values = _encoded(table.column(columns["sequence"]), columns["sequence"], where)
        if (codes < 0).any():
            row = int(np.flatnonzero(codes < 0)[0])
            raise UserError(f"{where}: {place(row)}: {columns['sequence']} is missing; expected the id of a sequence")
        codes, ids = _united(codes, [_sequence_name(value) for value in values])
        rows = replace(rows, sequence=codes, ids=ids)
    return rows if metadata is None else with_metadata(rows, metadata)


def _united(codes: NDArray[np.int64], names: list[str]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Give values that print alike (1 and 1.0) one code."""
    ids = tuple(dict.fromkeys(names))
    number = {name: index for index, name in enumerate(ids)}
    return np.array([number[name] for name in names], dtype=np.int64)[codes], ids


def _sequence_name(value: Any) -> str:
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()
    return text if len(text) <= 200 else f"{text[:190]}…{zlib.crc32(text.encode(errors='replace')):08x}"


def _first_rows(codes: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    first = np.zeros(count, dtype=np.int64)
    seen, rows = np.unique(codes, return_index=True)
    first[seen[seen >= 0]] = rows[seen >= 0]
    return first


def _encoded(column: Any, name: str, where: str) -> tuple[NDArray[np.int64], list[Any]]:
    """Return codes (-1 where missing) and the distinct values of a column of words or integers."""
    import pyarrow as pa

    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    usable = (
        pa.types.is_integer,
        pa.types.is_floating,
        _is_text,
        pa.types.is_decimal,
        pa.types.is_null,
        pa.types.is_boolean,
    )
    if not any(check(kind) for check in usable):
        raise UserError(f"{where}: column {short(name)} holds {kind}; expected integers or words")
    if pa.types.is_null(kind):
        return np.full(len(column), -1, dtype=np.int64), []
    if pa.types.is_dictionary(column.type):
        encoded = column.unify_dictionaries().combine_chunks()
    else:
        encoded = column.combine_chunks().dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    values = [_plain(value, name, where) for value in encoded.dictionary.to_pylist()]
    empty = np.array([value is None or value == "" or value != value for value in values] + [True])
    return np.where(empty[codes], -1, codes), ["" if value is None else value for value in values]


def _plain(value: Any, name: str, where: str) -> Any:
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: column {short(name)} holds {short(value)}; expected UTF-8 text") from error


def _numbers(
    column: Any, name: str, options: EventReadOptions, where: str, place: Callable[[int], str]
) -> NDArray[np.float64]:
    """Return a column as float64, NaN where a cell is empty."""
    import pyarrow as pa

    column = _flat(column)
    if pa.types.is_null(column.type):
        return np.full(len(column), np.nan)
    if _is_text(column.type):
        return _parsed(column, name, options, where, place)
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_decimal(column.type)):
        raise UserError(f"{where}: column {short(name)} holds {column.type}; expected numbers")
    return column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False).astype(np.float64)


def _flat(column: Any) -> Any:
    """Return one array of plain values from a column in pieces or with a dictionary."""
    import pyarrow as pa

    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):  # an empty or over-long column stays in pieces
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], type=array.type)
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _parsed(
    column: Any, name: str, options: EventReadOptions, where: str, place: Callable[[int], str]
) -> NDArray[np.float64]:
    import pyarrow as pa
    import pyarrow.compute

    pc: Any = pyarrow.compute  # its functions are made at import, unseen by type checkers

    texts = pc.utf8_trim_whitespace(column.cast(pa.string()))
    plain = texts
    if options.decimal == ",":
        plain = pc.replace_substring(pc.replace_substring(texts, ".", ""), ",", ".")
    plain = pc.if_else(pc.is_in(plain, pa.array(_MISSING)), None, plain)
    try:
        return plain.cast(pa.float64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid as error:
        good = pc.match_substring_regex(plain, r"^-?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")
        row = int(np.flatnonzero(~good.fill_null(True).to_numpy(zero_copy_only=False))[0])
        value = texts[row].as_py()
        hint = "; pass --data.decimal ," if value.count(",") == 1 and _is_number(value.replace(",", ".")) else ""
        raise UserError(f"{where}: {place(row)}: {name} is {short(value)}; expected a number{hint}") from error


def _times(column: Any, name: str, options: EventReadOptions, where: str, place: Callable[[int], str]) -> NDArray[Any]:
    """Return times as float64 or, for timestamps of any kind, as datetime64[us] (UTC where there is a zone)."""
    import pyarrow as pa

    column = _flat(column)
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        if pa.types.is_timestamp(column.type) and column.type.tz:
            column = column.cast(pa.timestamp(column.type.unit))
        return column.cast(pa.timestamp("us"), safe=False).to_numpy(zero_copy_only=False).astype("datetime64[us]")
    if not _is_text(column.type):
        return _numbers(column, name, options, where, place)
    try:
        return _parsed(column, name, options, where, place)
    except UserError:
        if not any_stamps(column):
            raise
        return parse_stamps(column, name, where, place)
