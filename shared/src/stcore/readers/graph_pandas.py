"""Data frames that pandas wrote to HDF5, as METR-LA and PEMS-BAY are published: read with h5py, without pandas.

Both of its layouts: `fixed` (axes and blocks as arrays) and `table` (one array of records). What pandas pickled into
attributes, such as names of columns, goes through the restricted reader.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stcore.errors import UserError
from stcore.readers import limits
from stcore.readers.array_headers import bytes_of, refuse_objects
from stcore.readers.graph_raw import RawGraph
from stcore.readers.grid_files import require_hdf5
from stcore.readers.limits import short, shown
from stcore.readers.pickles import plain_data

_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, NotImplementedError)
_UNITS = {"datetime64": "ns", "datetime64[s]": "s", "datetime64[ms]": "ms", "datetime64[us]": "us",
          "datetime64[ns]": "ns"}  # fmt: skip


def is_frame_file(path: Path) -> bool:
    """Return whether an HDF5 file holds a data frame of pandas.

    Raises:
        UserError: it is no HDF5 file, or it is damaged.
    """
    return bool(_frames(path))


def _frames(path: Path) -> dict[str, str]:
    """Return the layout of every data frame in the file, by name."""
    import h5py

    require_hdf5(path)
    found: dict[str, str] = {}

    def note(name: str, thing: Any) -> None:
        if isinstance(thing, h5py.Group) and (kind := _text(thing.attrs.get("pandas_type"))).startswith("frame"):
            found[name] = kind

    try:
        with h5py.File(path, "r") as file:
            file.visititems(note)
    except _ERRORS as error:
        raise _broken(path, error) from error
    return found


def _broken(path: Path, error: Exception) -> UserError:
    if isinstance(error, UserError):
        return error
    return UserError(f"{shown(path)}: broken HDF5 file ({limits.one_line(error)}); expected a whole one")


def _text(value: Any) -> str:
    plain = value.item() if isinstance(value, np.generic) else value
    return plain.decode("utf-8", "replace") if isinstance(plain, bytes) else str(plain)


def read_frame_file(path: Path, *, key: str = "", max_bytes: int = 0) -> RawGraph:
    """Read the data frame of an HDF5 file: rows are steps, columns are nodes.

    Args:
        path: the file.
        key: name of the frame; empty takes the only one.
        max_bytes: largest size in memory; 0 means half of this machine's.

    Raises:
        UserError: there is none, several may be meant, or it is damaged or too large.
    """
    import h5py

    frames = _frames(path)
    chosen = key.strip("/") if key.strip("/") in frames else next(iter(frames), "")
    if len(frames) != 1 and key.strip("/") not in frames:
        raise UserError(f"{shown(path)}: data frames {', '.join(map(short, frames)) or 'none'}; expected one; pass "
                        "--data.features with its name")  # fmt: skip
    try:
        with h5py.File(path, "r") as file:
            group: Any = file[chosen]
            reader = _table if frames[chosen].startswith("frame_table") else _fixed
            values, names, times = reader(path, group, max_bytes)
    except UserError:
        raise
    except _ERRORS as error:
        raise _broken(path, error) from error
    return RawGraph(
        where=shown(path), values=values[:, :, None], name=path.stem, nodes=names, times=times, step_word="row",
        first_number=0,
    )  # fmt: skip


Read = tuple[NDArray[Any], tuple[str, ...], NDArray[np.datetime64] | None]


def _fixed(path: Path, group: Any, max_bytes: int) -> Read:
    blocks = sorted(name for name in group if re.fullmatch(r"block\d+_values", name))
    shapes = [group[name].shape for name in blocks]
    _require_size(path, [group[name] for name in blocks], max_bytes)
    axes = {"axis0", "axis1"} - set(group)
    if axes or not blocks:
        raise UserError(f"{shown(path)}: a data frame without {' and '.join(sorted(axes)) or 'blocks'}; expected what "
                        "pandas writes")  # fmt: skip
    names, rows = _index(path, group["axis0"]), group["axis1"]
    place = {name: number for number, name in enumerate(names)}
    values = np.full((len(rows), len(names)), np.nan)
    if len(place) != len(names):
        twice = next(name for number, name in enumerate(names) if place[name] != number)
        raise UserError(f"{shown(path)}: node {short(twice)} occurs twice; expected different names")
    for block, shape in zip(blocks, shapes, strict=True):
        items = _index(path, group[block.replace("_values", "_items")])
        if shape != (len(rows), len(items)) or any(item not in place for item in items):
            raise UserError(f"{shown(path)}: block of shape {shape} for {len(rows)} rows and {len(items)} columns; "
                            "expected as many")  # fmt: skip
        values[:, [place[item] for item in items]] = group[block][()]
    return values, names, _moments(path, rows[()], _text(rows.attrs.get("kind")))


def _table(path: Path, group: Any, max_bytes: int) -> Read:
    if "table" not in group or not group["table"].dtype.names:
        raise UserError(f"{shown(path)}: a data frame without its table; expected what pandas writes")
    table = group["table"]
    _require_size(path, [table], max_bytes)
    records = table[()]
    fields = sorted(name for name in records.dtype.names if re.fullmatch(r"values_block_\d+", name))
    if "index" not in records.dtype.names or not fields:
        raise UserError(f"{shown(path)}: records {', '.join(records.dtype.names)}; expected index and values_block_0")
    values = np.concatenate([records[name].reshape(len(records), -1) for name in fields], axis=1).astype(np.float64)
    names = _pickled_names(path, [table.attrs.get(f"{name}_kind") for name in fields])
    if len(names) != values.shape[1]:
        names = ()
    return values, names, _moments(path, records["index"], _text(table.attrs.get("index_kind")))


def _pickled_names(path: Path, attributes: list[Any]) -> tuple[str, ...]:
    """Return the names of columns that pandas pickled into attributes of its table."""
    names: list[str] = []
    for attribute in attributes:
        plain = attribute.item() if isinstance(attribute, np.generic) else attribute
        if not isinstance(plain, bytes):
            return ()
        listed = plain_data(path, plain)
        if not isinstance(listed, list):
            return ()
        names += map(_text, listed)
    return tuple(names)


def _require_size(path: Path, datasets: list[Any], max_bytes: int) -> None:
    for dataset in datasets:
        refuse_objects(dataset.dtype, shown(path))
    needed = 2 * sum(bytes_of(dataset.shape, dataset.dtype) for dataset in datasets)
    limits.require_size(path, needed, limits.unpacked_limit(max_bytes, path.stat().st_size), "declares tables of")


def _index(path: Path, dataset: Any) -> tuple[str, ...]:
    if dataset.dtype.kind not in "SUiu" or dataset.ndim != 1:
        raise UserError(f"{shown(path)}: labels of type {dataset.dtype}; expected words or numbers as names of nodes")
    return tuple(_text(entry) for entry in dataset[()].tolist())


def _moments(path: Path, values: NDArray[Any], kind: str) -> NDArray[np.datetime64] | None:
    if not kind.startswith("datetime64") or values.dtype.kind not in "iu":
        return None  # rows are numbered, or named
    unit = _UNITS.get(kind.split(",")[0])
    if unit is None:
        raise UserError(f"{shown(path)}: rows of kind {short(kind)}; expected moments")
    return values.astype(np.int64).view(f"datetime64[{unit}]").astype("datetime64[us]")
