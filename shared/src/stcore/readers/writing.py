"""Write events so that reading them gives the same events: Parquet, NumPy .npz, and CSV for other programs."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from stcore.errors import UserError
from stcore.events import EventSequences, in_order
from stcore.files import write_atomically
from stcore.readers.columns import CSV_METADATA, METADATA_KEY
from stcore.readers.limits import shown


def write_events(events: EventSequences, path: Path) -> None:
    """Write `events` to `path`; its ending, .parquet, .npz or .csv, says the format.

    Raises:
        UserError: another ending, a folder that does not exist, or the disk refuses.
    """
    writers = {".parquet": _parquet, ".npz": _npz, ".csv": _csv}
    if path.suffix.lower() not in writers:
        raise UserError(f"{shown(path)}: ending {path.suffix!r}; expected one of {', '.join(writers)}")
    if not path.parent.is_dir():
        raise UserError(f"{shown(path)}: no folder {shown(path.parent)}; expected an existing one")
    write_atomically(path, [writers[path.suffix.lower()](events)])


def _facts(events: EventSequences) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "time_unit": events.time_unit,
        "coordinates": events.coordinates,
        "sequence_id": list(events.sequence_id),
    }
    if events.marked:
        facts["mark_names"] = list(events.mark_names)
    if events.origin is not None:
        facts["origin"] = [str(moment) for moment in events.origin]
    return facts


def _table(events: EventSequences) -> Any:
    import pyarrow as pa

    names = ("longitude", "latitude") if events.coordinates == "degrees" else ("x", "y")
    sequence = pa.array(events.sequence_of_event().astype(np.int32))
    ids = pa.array(list(events.sequence_id) or [""], type=pa.string())
    columns: dict[str, Any] = {
        "sequence": pa.DictionaryArray.from_arrays(sequence, ids),
        "time": pa.array(events.time),
        names[0]: pa.array(np.ascontiguousarray(events.location[:, 0])),
        names[1]: pa.array(np.ascontiguousarray(events.location[:, 1])),
    }
    if events.mark is not None:
        codes = pa.array(events.mark.astype(np.int32))
        columns["mark"] = pa.DictionaryArray.from_arrays(codes, pa.array(list(events.mark_names), type=pa.string()))
    return pa.table(columns)


def _parquet(events: EventSequences) -> bytes:
    from pyarrow import parquet

    table = _table(events)
    table = table.replace_schema_metadata({METADATA_KEY: json.dumps(_facts(events))})
    buffer = io.BytesIO()
    parquet.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _npz(events: EventSequences) -> bytes:
    arrays: dict[str, Any] = {
        "time": events.time,
        "location": events.location,
        "offsets": events.offsets,
        "sequence_id": np.array(events.sequence_id, dtype=np.str_),
        "time_unit": np.array(events.time_unit),
        "coordinates": np.array(events.coordinates),
    }
    if events.mark is not None:
        arrays |= {"mark": events.mark, "mark_names": np.array(events.mark_names, dtype=np.str_)}
    if events.origin is not None:
        arrays["origin"] = events.origin
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _csv(events: EventSequences) -> bytes:
    """Write plain columns; a first line of metadata goes before them only where they cannot tell everything."""
    from pyarrow import csv

    table = _table(events)
    if events.time_unit != "units":
        table = table.rename_columns(["sequence", f"time ({events.time_unit})", *table.column_names[2:]])
    buffer = io.BytesIO()
    csv.write_csv(table.cast(_without_dictionaries(table.schema)), buffer)
    return _csv_facts(events) + buffer.getvalue()


def _without_dictionaries(schema: Any) -> Any:
    import pyarrow as pa

    return pa.schema(
        [field.with_type(pa.string()) if pa.types.is_dictionary(field.type) else field for field in schema]
    )


def _csv_facts(events: EventSequences) -> bytes:
    facts = _facts(events)
    seen = {events.mark_names[code] for code in np.unique(events.mark)} if events.mark is not None else set()
    if in_order(seen) == events.mark_names:
        facts.pop("mark_names", None)
    if (events.lengths > 0).all() and events.origin is None:
        facts.pop("sequence_id")
    facts.pop("time_unit")  # the names of the columns tell unit and coordinates
    facts.pop("coordinates")
    return CSV_METADATA + json.dumps(facts).encode() + b"\n" if facts else b""
