"""Prompts that the user brings: an array with a row for each node of each city."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from gpd.prompts.cities import Cities
from stcore.errors import UserError
from stcore.readers.array_headers import bytes_of, read_array, read_header, refuse_objects
from stcore.readers.limits import open_file, require_file, require_magic, require_size, shown, size_limit


def prompts_from_file(path: Path, cities: Cities) -> Float64[ndarray, "row dim"]:
    """Read an .npy array of shape (nodes of all cities, numbers); the cities in their order, the target last.

    Raises:
        UserError: the file is broken, or holds another number of rows.
    """
    require_file(path, "prompts")
    require_magic(path, ".npy")
    where = shown(path)
    with open_file(path) as file:
        shape, _, dtype = read_header(file, where)
        refuse_objects(dtype, where)
        require_size(path, bytes_of(shape, dtype), size_limit(0), "declares an array of")
        if len(shape) != 2 or dtype.kind not in "iuf" or shape[1] < 1:
            raise UserError(f"{where}: {dtype} of shape {shape}; expected real numbers (node, number)")
        if shape[0] != cities.total:
            counts = ", ".join(f"{city.name} {city.num_nodes}" for city in cities.series)
            raise UserError(f"{where}: {shape[0]:,} rows; expected {cities.total:,}, one for each node ({counts})")
        file.seek(0)
        values = read_array(file, where).astype(np.float64)
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        row, column = wrong[0].tolist()
        raise UserError(f"{where}: row {row}, column {column} is {values[row, column]:g}; expected finite numbers")
    return values
