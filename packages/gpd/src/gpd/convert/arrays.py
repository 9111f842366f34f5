"""Tables of rows, samples and prompts of the original, which are plain arrays (.npy)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from gpd.convert.families import FAMILIES, FEATURES, Family, city_of, family_of, model_of, nodes_of
from gpd.models.configs import NodeModelConfig
from gpd.prompts.table import Prompts
from gpd.rows import RowTable
from stcore.errors import UserError
from stcore.readers import limits
from stcore.readers.grid_files import map_npy
from stcore.readers.limits import shown

_PAIR = {"KGEmb": "CrowdTimeEmb", "CrowdTimeEmb": "KGEmb"}
"""Spatial and temporal prompts of the crowd flows lie in two files; those of the speeds have no spatial one."""
_DIM = 128


def read_rows(
    path: Path, *, family: Family = "auto", city: str = "", model: NodeModelConfig | None = None,
    features: int = FEATURES,
) -> RowTable:  # fmt: skip
    """Read a table of rows, `ModelParams_*.npy` (row, number).

    Args:
        path: the file.
        family: whose cities the rows are of; `auto` goes by their number.
        city: name of the one city that all rows are of; empty for the tables of the original.
        model: networks that the rows are of; None goes by the length of a row.
        features: channels that these networks read.

    Raises:
        UserError: it is no such array, or not of the shape that its meaning needs.
    """
    rows = _matrix(path, "rows of parameters", axes=2)
    cities = [(city, len(rows))] if city else FAMILIES[family_of(len(rows), family, shown(path))]
    return _table(path, rows, cities, model, features)


def read_samples(
    path: Path, *, city: str = "", model: NodeModelConfig | None = None, features: int = FEATURES
) -> RowTable:
    """Read generated rows, `sampleRes_*.npy` or `sampleSeq_*.npy`: (node, channel, token), or flat (node, number).

    Args:
        path: the file.
        city: whose nodes they are of; empty goes by the name of the file and by their number.
        model: networks that the rows are of; None goes by the length of a row.
        features: channels that these networks read.

    Raises:
        UserError: it is no such array, or not of the shape that its meaning needs.
    """
    values = _array(path, "generated rows")
    if values.ndim not in (2, 3):
        raise UserError(f"{shown(path)}: array of shape {values.shape}; expected (node, channel, token)")
    rows = _finite(path, values.reshape(len(values), -1))
    named = path.stem.removeprefix("sampleRes_")
    known = {name for cities in FAMILIES.values() for name, _ in cities}
    name = city_of(len(rows), city or (named if named in known else ""), shown(path))
    return _table(path, rows, [(name, len(rows))], model, features)


def read_prompts(path: Path, *, family: Family = "auto") -> Prompts:
    """Read prompts: `trafficTimeEmb.npy`, or `KGEmb.npy` and `CrowdTimeEmb.npy`, of which either may be named.

    The speeds have no spatial prompts; vectors of ones stand in, as in the original.

    Args:
        path: one of the files; its partner lies beside it.
        family: whose cities the rows are of; `auto` goes by their number.

    Raises:
        UserError: a file is missing, or not of the shape that its meaning needs.
    """
    first = _matrix(path, "prompts", axes=2)
    partner = _PAIR.get(path.stem)
    if partner is None:
        spatial, temporal = torch.ones(len(first), _DIM), first
    else:
        second = _matrix(path.with_name(f"{partner}.npy"), "prompts", axes=2)
        spatial, temporal = (first, second) if path.stem == "KGEmb" else (second, first)
    if len(spatial) != len(temporal):
        raise UserError(f"{shown(path)}: {len(spatial):,} spatial and {len(temporal):,} temporal prompts; expected as "
                        "many of each")  # fmt: skip
    cities, nodes = nodes_of(FAMILIES[family_of(len(temporal), family, shown(path))])
    return Prompts(spatial=spatial.numpy(), temporal=temporal.numpy(), cities=cities, nodes=nodes,
                   metadata={"imported_from": path.name})  # fmt: skip


def _table(
    path: Path, rows: Float[Tensor, "row number"], cities: Any, model: NodeModelConfig | None, features: int
) -> RowTable:
    found = model_of(rows.shape[1], model, features, shown(path))
    names, nodes = nodes_of(cities)
    return RowTable(rows=rows, model=found, features=features, cities=names, nodes=nodes,
                    metadata={"imported_from": path.name})  # fmt: skip


def _array(path: Path, what: str) -> NDArray[Any]:
    """Return the numbers of a file, still on the disk."""
    limits.require_file(path, what)
    limits.require_magic(path, ".npy")
    values = map_npy(path)
    if values.dtype.kind != "f":
        raise UserError(f"{shown(path)}: array of {values.dtype}; expected numbers with decimals, {what}")
    limits.require_size(path, 4 * values.size, limits.size_limit(0), "declares an array that needs")
    return values


def _matrix(path: Path, what: str, *, axes: int) -> Float[Tensor, "row number"]:
    values = _array(path, what)
    if values.ndim != axes or not values.size:
        raise UserError(f"{shown(path)}: array of shape {values.shape}; expected {what}, one per row")
    return _finite(path, values)


def _finite(path: Path, values: NDArray[Any]) -> Float[Tensor, "row number"]:
    rows = torch.from_numpy(np.array(values, dtype=np.float32))
    bad = ~torch.isfinite(rows).all(1)
    if bad.any():
        row = int(bad.nonzero()[0, 0])
        place = int((~torch.isfinite(rows[row])).nonzero()[0, 0])
        raise UserError(
            f"{shown(path)}: row {row}, number {place} is {float(rows[row, place])}; expected finite numbers"
        )
    return rows
