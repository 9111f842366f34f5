"""Small graphs on disk, in every layout that users have."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

NODES = ("a", "b", "c", "d", "e")
STEPS = 60
Values = NDArray[Any]


def readings(steps: int = STEPS, nodes: int = len(NODES)) -> Values:
    """Return readings (time, node) that all differ, exact in single precision."""
    return (np.arange(steps)[:, None] * 0.5 + np.arange(nodes) * 100.0).astype(np.float64)


def weights(nodes: int = len(NODES)) -> Values:
    """Return a directed ring with an edge of each node to itself."""
    return np.eye(nodes) + 0.5 * np.roll(np.eye(nodes), 1, axis=1)


def table(values: Values, header: tuple[str, ...] = NODES, times: list[str] | None = None, separator: str = ",") -> str:
    """Return a wide table as text."""
    lines = [separator.join((*(("time",) if times else ()), *header))]
    for number, row in enumerate(values):
        cells = ["" if np.isnan(value) else repr(float(value)) for value in row]
        lines.append(separator.join(([times[number]] if times else []) + cells))
    return "\n".join(lines) + "\n"


def matrix(values: Values, separator: str = ",") -> str:
    return "\n".join(separator.join(repr(float(value)) for value in row) for row in values) + "\n"


def write_table(folder: Path, text: str | None = None, graph: str | None = None, name: str = "city.csv") -> Path:
    """Write a table and `adj.csv` beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adj.csv").write_text(matrix(weights()) if graph is None else graph)
    (folder / name).write_text(table(readings()) if text is None else text)
    return folder / name


def npz_bytes(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def npy_bytes(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def write_original(folder: Path, dataset: Any = None, graph: Any = None) -> Path:
    """Write a folder of the original: dataset.npy (time, node, feature), matrix.npy, matrix_nonspatial.npy."""
    folder.mkdir(parents=True, exist_ok=True)
    values = np.stack([readings(), np.tile(np.arange(STEPS)[:, None] / STEPS, (1, len(NODES)))], axis=2)
    np.save(folder / "dataset.npy", values if dataset is None else dataset)
    np.save(folder / "matrix.npy", weights() if graph is None else graph)
    np.save(folder / "matrix_nonspatial.npy", np.ones((len(NODES), len(NODES))))
    return folder


def dcrnn_pickle(names: tuple[str, ...] = NODES, graph: Any = None, protocol: int = 2) -> bytes:
    """Return (names, numbers, matrix) as DCRNN pickles them."""
    values = (weights() if graph is None else graph).astype(np.float32)
    return pickle.dumps((list(names), {name: number for number, name in enumerate(names)}, values), protocol=protocol)


def write_fixed_frame(
    path: Path, values: Values | None = None, *, key: str = "df", columns: Any = None, unit: str = "ns"
) -> Path:
    """Write a data frame as pandas' HDFStore does in its `fixed` layout."""
    values = readings() if values is None else values
    names = np.array([name.encode() for name in NODES]) if columns is None else columns
    step = {"ns": 300 * 10**9, "us": 300 * 10**6, "s": 300}[unit]
    start = np.datetime64("2012-03-01").astype(f"datetime64[{unit}]").astype(np.int64)
    with h5py.File(path, "w") as file:
        group = file.create_group(key)
        group.attrs["pandas_type"] = np.bytes_(b"frame")
        group["axis0"], group["block0_items"] = names, names
        group["axis1"] = start + step * np.arange(len(values))
        group["axis1"].attrs["kind"] = np.bytes_(b"datetime64" if unit == "ns" else f"datetime64[{unit}]".encode())
        group["block0_values"] = values
    return path


def write_table_frame(path: Path, values: Values | None = None) -> Path:
    """Write a data frame as pandas' HDFStore does in its `table` layout, names of columns in a pickled attribute."""
    values = readings() if values is None else values
    records = np.zeros(len(values), dtype=[("index", "<i8"), ("values_block_0", "<f8", (values.shape[1],))])
    records["index"] = np.datetime64("2012-03-01").astype("datetime64[ns]").astype(np.int64)
    records["index"] += 300 * 10**9 * np.arange(len(values))
    records["values_block_0"] = values
    with h5py.File(path, "w") as file:
        group = file.create_group("speed")
        group.attrs["pandas_type"] = np.bytes_(b"frame_table")
        group["table"] = records
        group["table"].attrs["index_kind"] = np.bytes_(b"datetime64")
        group["table"].attrs["values_block_0_kind"] = np.bytes_(pickle.dumps(list(NODES), protocol=0))
    return path


def city_toml(**fields: Any) -> str:
    """Return the description of a city."""
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in fields.items())
