"""Write a series on a graph so that reading it gives the same: NumPy .npz."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from stcore.errors import UserError
from stcore.files import write_atomically
from stcore.graphs import GraphSeries
from stcore.readers.graph_arrays import OWN_MARK, OWN_VERSION
from stcore.readers.limits import shown


def write_graph(series: GraphSeries, path: Path) -> None:
    """Write `series` to the .npz file `path`.

    Raises:
        UserError: another ending, a folder that does not exist, or the disk refuses.
    """
    if path.suffix.lower() != ".npz":
        raise UserError(f"{shown(path)}: ending {path.suffix!r}; expected .npz")
    if not path.parent.is_dir():
        raise UserError(f"{shown(path)}: no folder {shown(path.parent)}; expected an existing one")
    arrays: dict[str, Any] = {
        OWN_MARK: np.array(OWN_VERSION),
        "values": series.values,
        "edges": series.adjacency.edges,
        "weights": series.adjacency.weights,
        "nodes": np.array(series.nodes, dtype=np.str_),
        "channels": np.array(series.channels, dtype=np.str_),
        "name": np.array(series.name, dtype=np.str_),
        "first_step": np.array(series.first_step),
        "degrees": np.array(series.degrees),
    }
    if series.units:
        arrays["units"] = np.array(series.units, dtype=np.str_)
    if series.step_seconds is not None:
        arrays["step_seconds"] = np.array(series.step_seconds)
    arrays |= {
        name: array for name in ("times", "coordinates", "valid") if (array := getattr(series, name)) is not None
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomically(path, [buffer.getbuffer()])
