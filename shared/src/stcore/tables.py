"""Write tables of results in pieces: CSV or Parquet, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from stcore.errors import UserError
from stcore.files import write_refused

SUFFIXES = (".csv", ".parquet")


def check_table_path(path: Path) -> None:
    """Refuse a table that could not be written, before any work is done.

    Raises:
        UserError: unknown suffix, or a folder that does not exist.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: suffix {path.suffix!r}; expected {' or '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise UserError(f"{path}: folder {path.parent} does not exist; expected an existing one")


def write_table(path: Path, pieces: Iterable[Mapping[str, Any]]) -> int:
    """Write pieces of a table (column -> values, all of one length) to `path` and return the number of rows.

    Raises:
        UserError: as `check_table_path`; or nothing to write; or the disk refuses.
    """
    import pyarrow as pa
    from pyarrow import csv, parquet

    check_table_path(path)
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    writer: Any = None
    rows = 0
    try:
        for piece in pieces:
            table: Any = pa.table(dict(piece))
            if writer is None:
                open_writer: Any = csv.CSVWriter if path.suffix == ".csv" else parquet.ParquetWriter
                writer = open_writer(str(temporary), table.schema)
            writer.write_table(table)
            rows += table.num_rows
        if writer is None:
            raise UserError(f"{path}: nothing to write; expected at least one event to forecast")
        writer.close()
        os.replace(temporary, path)
    except OSError as error:
        raise write_refused(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)
    return rows
