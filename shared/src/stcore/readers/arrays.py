"""NumPy files of events: .npz with flat arrays and offsets (also one set per part), and .npy with one table.

The headers are read first: type, shape and size of every array are settled before any is unpacked. Nothing is ever
unpickled.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stcore.errors import UserError
from stcore.readers import limits
from stcore.readers.array_headers import MAX_MEMBERS, bytes_of, read_array, read_header, refuse_objects
from stcore.readers.columns import with_metadata
from stcore.readers.limits import short, shown
from stcore.readers.options import EventReadOptions
from stcore.readers.rows import Rows, mark_labels
from stcore.readers.tables import rows_from_columns
from stcore.splits import PART_NAMES

_LOCATION = ("location", "loc")
_OFFSETS = ("offsets", "offset")
_META = ("mark_names", "sequence_id", "time_unit", "coordinates", "origin")


def read_npz(path: Path, options: EventReadOptions) -> dict[str, Rows]:
    """Read arrays `time`, `location` (or `loc`, or two coordinate columns), `offsets` (or `offset`), perhaps `mark`.

    Returns:
        The rows by part; the part is empty when the arrays carry no `train_`, `val_` or `test_` before their names.

    Raises:
        UserError: an array is missing, pickled, too large, of another shape or type than its meaning needs.
    """
    limits.require_magic(path, ".npz")
    where = shown(path)
    try:
        with limits.open_file(path) as file, zipfile.ZipFile(file) as archive:
            names = _members(archive, where)
            parts = [part for part in PART_NAMES if f"{part}_time" in names]
            wanted = {part: _wanted(names, f"{part}_", where) for part in parts} or {"": _wanted(names, "", where)}
            needed = sum(_declared(archive, names[key], where) for keys in wanted.values() for key in keys.values())
            limit = limits.unpacked_limit(options.max_bytes, path.stat().st_size)
            limits.require_size(path, needed, limit, "declares arrays of")
            loaded = {
                part: {role: _member(archive, names[key], where) for role, key in keys.items()}
                for part, keys in wanted.items()
            }
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise UserError(
            f"{where}: broken zip archive ({limits.one_line(error)}); expected a whole .npz file"
        ) from error
    return {
        part: _from_arrays(f"{where}: {part}" if part else where, arrays, options) for part, arrays in loaded.items()
    }


def _members(archive: zipfile.ZipFile, where: str) -> dict[str, str]:
    members = archive.namelist()
    if len(members) > MAX_MEMBERS:
        raise UserError(f"{where}: {len(members):,} arrays; expected at most {MAX_MEMBERS:,}")
    return {name.removesuffix(".npy"): name for name in members}


def _wanted(names: dict[str, str], prefix: str, where: str) -> dict[str, str]:
    """Return the key in the file of each array that has a meaning here."""
    roles = {"time": ("time",), "location": _LOCATION, "offsets": _OFFSETS, "mark": ("mark",)}
    roles |= {name: (name,) for name in _META}
    found: dict[str, str] = {}
    for role, keys in roles.items():
        hits = [prefix + key for key in keys if prefix + key in names]
        if len(hits) > 1:
            raise UserError(f"{where}: arrays {' and '.join(hits)}; expected only one of them")
        if hits:
            found[role] = hits[0]
        elif role in ("time", "location"):
            have = ", ".join(short(name, 40) for name in sorted(names)[:8]) or "none"
            raise UserError(
                f"{where}: no array {prefix}{keys[0]} among {have}; expected time, location, offsets and perhaps mark"
            )
    return found


def _declared(archive: zipfile.ZipFile, name: str, where: str) -> int:
    what = f"{where}: array {name.removesuffix('.npy')!r:.60}"
    with archive.open(name) as file:
        shape, dtype = _plain_header(file, what)
    return max(bytes_of(shape, dtype), archive.getinfo(name).file_size)


def _member(archive: zipfile.ZipFile, name: str, where: str) -> NDArray[Any]:
    with archive.open(name) as file:
        return read_array(file, f"{where}: array {name.removesuffix('.npy')!r:.60}")


def _plain_header(file: Any, what: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and type of the array that begins here, if it is none of Python objects."""
    shape, _, dtype = read_header(file, what)
    refuse_objects(dtype, what)
    return shape, dtype


def read_npy(path: Path, options: EventReadOptions) -> Rows:
    """Read one array: a table with named columns, or rows of [time, x, y] or [time, mark, x, y], as one sequence.

    Raises:
        UserError: as for `read_npz`.
    """
    limits.require_magic(path, ".npy")
    where = shown(path)
    with limits.open_file(path) as file:
        shape, dtype = _plain_header(file, where)
        limits.require_size(path, bytes_of(shape, dtype), limits.size_limit(options.max_bytes), "declares an array of")
        file.seek(0)
        values = read_array(file, where)
    if values.dtype.names:
        columns = {name: values[name] for name in values.dtype.names}
        return rows_from_columns(columns, options, where, lambda row: f"row {row + 1}")
    if values.ndim != 2 or values.shape[1] not in (3, 4):
        raise UserError(f"{where}: array of shape {values.shape}; expected rows of [time, x, y] or [time, mark, x, y]")
    arrays = {"time": values[:, 0], "location": values[:, -2:]} | (
        {"mark": values[:, 1]} if values.shape[1] == 4 else {}
    )
    return _from_arrays(where, arrays, options)


def _from_arrays(where: str, arrays: dict[str, NDArray[Any]], options: EventReadOptions) -> Rows:
    time = arrays["time"]
    count = len(time) if time.ndim == 1 else -1
    if count < 0:
        raise UserError(f"{where}: array time has shape {time.shape}; expected one number per event")
    location = arrays["location"]
    if location.shape != (count, 2):
        raise UserError(f"{where}: array location has shape {location.shape}; expected ({count}, 2), two for each time")
    offsets = _offsets(where, arrays.get("offsets"), count)

    def place(row: int) -> str:
        sequence = int(np.searchsorted(offsets, row, side="right")) - 1
        return f"sequence {sequence}, event {row - int(offsets[sequence])}"

    sequences = len(offsets) - 1
    rows = Rows(
        where=where,
        time=time.astype("datetime64[us]") if time.dtype.kind == "M" else numeric(where, "time", time),
        location=numeric(where, "location", location),
        place=place,
        sequence=np.repeat(np.arange(sequences, dtype=np.int64), np.diff(offsets)),
        ids=tuple(map(str, range(sequences))),
        all_ids=True,
    )
    facts = _facts(where, {name: arrays[name] for name in _META if name in arrays})
    if (ids := facts.pop("sequence_id", None)) is not None:
        if len(ids) != sequences or len(set(ids)) != sequences:
            raise UserError(f"{where}: array sequence_id is {short(ids)}; expected {sequences} different names")
        rows = replace(rows, ids=tuple(ids))
    if (
        "mark" in arrays
        and options.mark_column.lower() != "none"
        and arrays["mark"].size + bool(facts.get("mark_names"))
    ):
        rows = _with_marks(rows, arrays["mark"], facts.pop("mark_names", None), place)
    return with_metadata(rows, facts)


def numeric(where: str, name: str, values: NDArray[Any]) -> NDArray[np.float64]:
    """Return `values` as float64.

    Raises:
        UserError: they are no real numbers.
    """
    if values.dtype.kind not in "iuf":
        raise UserError(f"{where}: array {name} holds {values.dtype}; expected real numbers")
    return np.ascontiguousarray(values, dtype=np.float64)


def _offsets(where: str, offsets: NDArray[Any] | None, count: int) -> NDArray[np.int64]:
    if offsets is None:
        return np.array([0, count], dtype=np.int64)
    if offsets.dtype.kind not in "iu" or offsets.ndim != 1 or len(offsets) < 2:
        raise UserError(
            f"{where}: array offsets is {offsets.dtype} of shape {offsets.shape}; expected at least two integers"
        )
    if offsets.max() > count or offsets.min() < 0 or offsets[0] != 0 or offsets[-1] != count:
        raise UserError(
            f"{where}: array offsets runs from {offsets[0]} to {offsets[-1]}; expected 0 to {count}, the events"
        )
    offsets = offsets.astype(np.int64)
    if (falls := np.flatnonzero(np.diff(offsets) < 0)).size:
        at = int(falls[0])
        raise UserError(
            f"{where}: array offsets falls from {offsets[at]} to {offsets[at + 1]} at {at + 1}; expected it to rise"
        )
    return offsets


def _with_marks(rows: Rows, marks: NDArray[Any], names: list[str] | None, place: Callable[[int], str]) -> Rows:
    where = rows.where
    if marks.shape != rows.time.shape or marks.dtype.kind not in "iufUSb":
        raise UserError(
            f"{where}: array mark is {marks.dtype} of shape {marks.shape}; expected one class for each of "
            f"{len(rows.time):,} events"
        )
    if names is not None:
        if marks.dtype.kind not in "iu":
            raise UserError(f"{where}: array mark holds {marks.dtype}; expected numbers of the {len(names)} mark_names")
        outside = np.flatnonzero((marks < 0) | (marks >= len(names)))
        if outside.size:
            row = int(outside[0])
            raise UserError(f"{where}: {place(row)}: mark is {marks[row]}; expected 0 to {len(names) - 1}")
        return replace(rows, mark=marks.astype(np.int64), labels=tuple(names), ordered=True)
    values, first, codes = np.unique(marks, return_index=True, return_inverse=True)
    missing = np.array([isinstance(value, float) and value != value for value in values.tolist()] + [False])[:-1]
    plain = ["" if gone else value for value, gone in zip(values.tolist(), missing, strict=True)]
    labels = mark_labels(where, plain, lambda index: place(int(first[index])), "mark")
    return replace(rows, mark=np.where(missing[codes], -1, codes).astype(np.int64), labels=labels)


def _facts(where: str, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Return what an .npz of ours says beside the events."""
    facts: dict[str, Any] = {}
    for name, array in arrays.items():
        kind, words = ("M", "timestamps") if name == "origin" else ("U", "words")
        if array.dtype.kind != kind or array.ndim != (0 if name in ("time_unit", "coordinates") else 1):
            raise UserError(f"{where}: array {name} is {array.dtype} of shape {array.shape}; expected {words}")
        facts[name] = str(array) if array.ndim == 0 else [str(value) for value in array]
    return facts
