"""Arrays of readings in .npy, .npz and HDF5 files, with the graph, positions, names and clock that lie beside them.

Also what is no series on nodes yet: a grid, whose cells become nodes, and matrices of flows between zones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stcore.errors import UserError
from stcore.graphs import Adjacency
from stcore.readers import limits
from stcore.readers.graph_options import GraphReadOptions
from stcore.readers.graph_raw import Edges, Graph, Matrix, RawGraph
from stcore.readers.grid_files import ArrayFile, H5File, NpzFile, map_npy
from stcore.readers.grid_times import parse_times
from stcore.readers.limits import short, shown

OWN_MARK, OWN_VERSION = "stcore_graph", 1
"""Array that an .npz file of ours holds beside the others: the version of its layout."""
OWN_ARRAYS = {"values": "f", "edges": "i", "weights": "f", "nodes": "U", "channels": "U"}
OWN_OPTIONAL = {
    "units": "U", "times": "M", "step_seconds": "i", "coordinates": "f", "degrees": "b", "valid": "b", "name": "U",
    "first_step": "i",
}  # fmt: skip

_ADJACENCY = ("adj", "adjacency", "adj_mx", "adjacency_matrix", "matrix", "cell_adjacency", "A", "W")
_EDGES, _EDGE_LENGTHS = ("edge_index", "edges"), ("edge_length_m", "edge_length", "edge_distance")
_EDGE_WEIGHTS = ("edge_weight", "edge_weights", "edge_attr", "weights")
_DEGREES, _PLANE = ("latlon",), ("utm_xy", "xy", "coordinates", "positions")
_NODES = ("sensor_id", "bus_stop", "road_id", "station", "county", "node", "nodes", "node_id", "id", "ids")
_CHANNELS = ("variable", "variables", "channel", "channels", "features")
_TIMES = ("time", "times", "timestamp", "timestamps", "date", "dates")
_STEPS = {"step_seconds": 1, "step_minutes": 60, "step_hours": 3600, "step_days": 86_400}


def read_original_folder(folder: Path, options: GraphReadOptions) -> RawGraph:
    """Read `dataset.npy` (time, node, feature) and, unless another graph is named, `matrix.npy` beside it.

    Raises:
        UserError: a file is missing, cut, of objects, or not of the shape its meaning needs.
    """
    path = folder / "dataset.npy"
    limits.require_file(path, "readings")
    values = _mapped(path, options)
    if values.ndim == 2:
        values = values[:, :, None]
    if values.ndim != 3:
        raise UserError(f"{shown(path)}: array of shape {values.shape}; expected (time, node, feature)")
    graph: Graph | None = None
    if not options.adjacency:
        matrix = folder / "matrix.npy"
        limits.require_file(matrix, "a graph")
        graph = Matrix(where=shown(matrix), values=_mapped(matrix, options))
    return RawGraph(where=shown(path), values=values, name=folder.name.removeprefix("Data_"), graph=graph)


def read_npy(path: Path, options: GraphReadOptions) -> RawGraph:
    """Read one array (time, node) or (time, node, feature).

    Raises:
        UserError: it is cut, of objects, or has another number of axes.
    """
    values = _mapped(path, options)
    if values.ndim not in (2, 3):
        raise UserError(f"{shown(path)}: array of shape {values.shape}; expected (time, node) or (time, node, feature)")
    return RawGraph(where=shown(path), values=values.reshape(*values.shape[:2], -1), name=path.stem)


def _mapped(path: Path, options: GraphReadOptions) -> NDArray[Any]:
    values = map_npy(path)
    limits.require_size(path, 8 * values.size, limits.size_limit(options.max_bytes), "declares an array that needs")
    return values


def read_matrix(path: Path, options: GraphReadOptions) -> Matrix:
    """Read a square matrix from an .npy file, or the only array that can be meant from an .npz file.

    Raises:
        UserError: there is no such matrix.
    """
    if path.suffix.lower() == ".npy":
        limits.require_file(path, "a graph")
        return Matrix(where=shown(path), values=_mapped(path, options))
    limits.require_file(path, "a graph")
    file = NpzFile(path, options.max_bytes)
    square = [name for name, (shape, _) in file.headers.items() if len(shape) == 2 and shape[0] == shape[1]]
    named = [name for name in _ADJACENCY if name in square] or square
    if not named:
        raise UserError(f"{file.where}: arrays {_have(file)}; expected a square matrix")
    return Matrix(where=f"{file.where}: array {named[0]}", values=file.load(named[:1])[named[0]])


def _have(file: ArrayFile) -> str:
    shapes = sorted((name, shape) for name, (shape, _) in file.headers.items())
    return ", ".join(f"{short(name, 30)} {shape}" for name, shape in shapes[:8]) or "none"


def open_arrays(path: Path, options: GraphReadOptions) -> ArrayFile:
    """Open an .npz or HDF5 file, whose headers are known then.

    Raises:
        UserError: it is broken.
    """
    return (NpzFile if path.suffix.lower() == ".npz" else H5File)(path, options.max_bytes)


def read_arrays(path: Path, options: GraphReadOptions) -> RawGraph:
    """Read the readings of an .npz or HDF5 file and everything beside them that has a meaning here.

    Raises:
        UserError: no array can be meant, several may be, or one is of another shape than its meaning needs.
    """
    file = open_arrays(path, options)
    if OWN_MARK in file.headers:
        return _own(file)
    chosen = _chosen(file, options)
    beside = _beside(file, chosen)
    arrays = file.load([*chosen, *beside])
    small = {name: arrays[name] for name in beside}
    readings = [arrays[name] for name in chosen]
    values, channels = _stacked(file, chosen, readings, options)
    graph: Graph | None = None
    if options.format == "od" or (options.format == "auto" and chosen == ["od"]):
        values, channels, graph = _from_flows(file.where, readings[0], options)
    elif readings[0].ndim == 4:
        graph = cells_of(*readings[0].shape[2:])
    named = _first(small, _CHANNELS)
    if named is not None and named.shape == (values.shape[2],):
        channels = tuple(map(str, named.tolist()))
    nodes = _first(small, _NODES)
    points, degrees = _points(file.where, small, values.shape[1])
    return RawGraph(
        where=file.where,
        values=values,
        name=path.stem,
        nodes=_words(nodes) if nodes is not None and nodes.shape == (values.shape[1],) else (),
        channels=channels,
        times=_moments(file.where, small, len(values)),
        step_seconds=_step(file.where, small),
        graph=_graph(file, small, options) or graph,
        coordinates=points,
        degrees=degrees,
    )


def _first(arrays: dict[str, NDArray[Any]], names: tuple[str, ...]) -> NDArray[Any] | None:
    return next((arrays[name] for name in names if name in arrays), None)


def _words(array: NDArray[Any]) -> tuple[str, ...]:
    plain = array.tolist()
    return tuple(entry.decode("utf-8", "replace") if isinstance(entry, bytes) else str(entry) for entry in plain)


def _chosen(file: ArrayFile, options: GraphReadOptions) -> list[str]:
    """Return the names of the arrays that hold readings."""
    if options.features and all(name in file.headers for name in options.features):
        return list(options.features)
    roles = {*_ADJACENCY, *_EDGES, *_EDGE_LENGTHS, *_EDGE_WEIGHTS, *_DEGREES, *_PLANE, options.adjacency}
    shapes = {
        name: shape
        for name, (shape, dtype) in file.headers.items()
        if len(shape) in (2, 3, 4) and name not in roles and dtype.kind in "iufb"
    }
    deep = [name for name, shape in shapes.items() if len(shape) > 2]
    if len(deep) == 1:
        return deep
    flat = [name for name, shape in shapes.items() if len(shape) == 2]
    if not deep and flat:
        flat = [name for name in flat if shapes[name][0] != shapes[name][1]] or flat
        if len({shapes[name] for name in flat}) == 1:
            return flat
    if not deep and not flat:
        raise UserError(f"{file.where}: arrays {_have(file)}; expected one of readings (time, node, feature)")
    raise UserError(f"{file.where}: arrays {_have(file)}; expected to know which holds the readings; pass "
                    "--data.features")  # fmt: skip


def _beside(file: ArrayFile, chosen: list[str]) -> list[str]:
    known = (*_ADJACENCY, *_EDGES, *_EDGE_LENGTHS, *_EDGE_WEIGHTS, *_DEGREES, *_PLANE, *_NODES, *_CHANNELS, *_TIMES,
             *_STEPS, "start")  # fmt: skip
    return [name for name in known if name in file.headers and name not in chosen]


def _stacked(
    file: ArrayFile, names: list[str], arrays: list[NDArray[Any]], options: GraphReadOptions
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Return readings (time, node, channel) and the names of the channels, where the arrays tell them."""
    for name, array in zip(names, arrays, strict=True):
        if array.dtype.kind not in "iufb":
            raise UserError(f"{file.where}: array {short(name)} holds {array.dtype}; expected real numbers")
        if array.shape != arrays[0].shape:
            raise UserError(f"{file.where}: array {short(name)} of shape {array.shape}; expected {arrays[0].shape} as "
                            f"{short(names[0])}")  # fmt: skip
    shape = arrays[0].shape
    if len(arrays) > 1 and len(shape) != 2:
        raise UserError(f"{file.where}: array {short(names[0])} of shape {shape}; expected (time, node), to be one of "
                        f"{len(names)} channels")  # fmt: skip
    if len(shape) == 2:
        return np.stack(arrays, axis=2), tuple(names)
    if len(shape) == 4:  # (time, channel, row, column): cells row by row
        return np.moveaxis(arrays[0].reshape(*shape[:2], -1), 1, 2), ()
    if len(shape) == 3 and options.format == "cells":
        return arrays[0].reshape(shape[0], -1, 1), (names[0],)
    return arrays[0], ()


def cells_of(height: int, width: int) -> Adjacency:
    """Return the graph that joins each cell of a grid to those beside, above and below it, both ways."""
    number = np.arange(height * width).reshape(height, width)
    pairs = [(number[:, :-1], number[:, 1:]), (number[:-1], number[1:])]
    one = np.concatenate([first.reshape(-1) for first, _ in pairs])
    other = np.concatenate([second.reshape(-1) for _, second in pairs])
    edges = np.stack([np.concatenate([one, other]), np.concatenate([other, one])]).astype(np.int64)
    return Adjacency(edges, np.ones(edges.shape[1]), height * width)


def _from_flows(
    where: str, flows: NDArray[Any], options: GraphReadOptions
) -> tuple[NDArray[Any], tuple[str, ...], Adjacency]:
    """Turn flows (time, origin, destination) into departures and arrivals of each zone, and the usual flows into
    weights: the largest is 1, those below the cutoff go."""
    if flows.ndim != 3 or flows.shape[1] != flows.shape[2]:
        raise UserError(f"{where}: flows of shape {flows.shape}; expected (time, origin, destination), as many of both")
    low, high = (round(share * len(flows)) for share in options.graph_share)
    usual = flows[low : max(high, low + 1)].mean(axis=0, dtype=np.float64)
    np.fill_diagonal(usual, 0.0)
    usual = usual / (usual.max() or 1.0)
    graph = Adjacency.from_dense(np.where(usual >= max(options.cutoff, 1e-12), usual, 0.0))
    totals = [flows.sum(axis=axis, dtype=np.float64) for axis in (2, 1)]
    return np.stack(totals, axis=2), ("departures", "arrivals"), graph


def _graph(file: ArrayFile, arrays: dict[str, NDArray[Any]], options: GraphReadOptions) -> Graph | None:
    """Return the graph among the arrays; one that `options.adjacency` names wins."""
    name = options.adjacency if options.adjacency in file.headers else next((n for n in _ADJACENCY if n in arrays), "")
    if name:
        matrix = arrays[name] if name in arrays else file.load([name])[name]
        return Matrix(where=f"{file.where}: array {short(name)}", values=matrix)
    pairs = _first(arrays, _EDGES)
    if pairs is None:
        return None
    if pairs.ndim != 2 or len(pairs) != 2 or pairs.dtype.kind not in "iu":
        raise UserError(f"{file.where}: edges are {pairs.dtype} of shape {pairs.shape}; expected two rows of integers")
    lengths = _first(arrays, _EDGE_LENGTHS)
    numbers = lengths if lengths is not None else _first(arrays, _EDGE_WEIGHTS)
    if numbers is not None and (numbers.shape != pairs.shape[1:] or numbers.dtype.kind not in "iufb"):
        raise UserError(f"{file.where}: numbers of edges of shape {numbers.shape}; expected ({pairs.shape[1]},)")
    start, end = (tuple(map(str, row)) for row in pairs.tolist())
    values = None if numbers is None else numbers.astype(np.float64)
    return Edges(where=file.where, start=start, end=end, numbers=values, lengths=lengths is not None)


def _points(where: str, arrays: dict[str, NDArray[Any]], nodes: int) -> tuple[NDArray[np.float64] | None, bool]:
    latlon, plane = _first(arrays, _DEGREES), _first(arrays, _PLANE)
    points = latlon if latlon is not None else plane
    if points is None:
        return None, False
    if points.shape != (nodes, 2) or points.dtype.kind not in "iuf":
        raise UserError(f"{where}: positions are {points.dtype} of shape {points.shape}; expected ({nodes}, 2)")
    ordered = points[:, ::-1] if latlon is not None else points
    return ordered.astype(np.float64), latlon is not None


def _step(where: str, arrays: dict[str, NDArray[Any]]) -> int | None:
    for name, seconds in _STEPS.items():
        if name in arrays:
            value = arrays[name]
            if value.size != 1 or value.dtype.kind not in "iuf" or not 0.0 < float(value.reshape(-1)[0]) < 1e6:
                raise UserError(f"{where}: array {name} is {short(value)}; expected one number above 0")
            return round(float(value.reshape(-1)[0]) * seconds)
    return None


def _moments(where: str, arrays: dict[str, NDArray[Any]], steps: int) -> NDArray[np.datetime64] | None:
    name = next((name for name in _TIMES if name in arrays and arrays[name].shape == (steps,)), "")
    if name:
        return parse_times(where, name, arrays[name])
    step = _step(where, arrays)
    if step is None or "start" not in arrays or arrays["start"].size != 1:
        return None
    first = parse_times(where, "start", arrays["start"].reshape(-1))
    return None if first is None else first[0] + np.timedelta64(step, "s") * np.arange(steps)


def _own(file: ArrayFile) -> RawGraph:
    """Read what `GraphSeries.write` wrote."""
    if lost := [name for name in OWN_ARRAYS if name not in file.headers]:
        raise UserError(f"{file.where}: no array {lost[0]}; expected {', '.join(OWN_ARRAYS)}")
    optional = {name: kind for name, kind in OWN_OPTIONAL.items() if name in file.headers}
    arrays = file.load([OWN_MARK, *OWN_ARRAYS, *optional])
    if arrays[OWN_MARK].tolist() != OWN_VERSION:
        found = short(arrays[OWN_MARK].tolist())
        raise UserError(f"{file.where}: written as version {found}; expected {OWN_VERSION}; a newer stcore may read it")
    for name, kind in {**OWN_ARRAYS, **optional}.items():
        if arrays[name].dtype.kind != kind:
            raise UserError(f"{file.where}: array {name} is {arrays[name].dtype}; expected kind {kind}")
    for name in ("step_seconds", "degrees", "name", "first_step"):
        if name in optional and arrays[name].ndim:
            raise UserError(f"{file.where}: array {name} of shape {arrays[name].shape}; expected a single value")
    try:
        graph = Adjacency(arrays["edges"], arrays["weights"], arrays["nodes"].size)
    except UserError as error:
        raise UserError(f"{file.where}: {error}") from error
    return RawGraph(
        where=file.where,
        values=arrays["values"],
        name=str(arrays["name"]) if "name" in optional else "",
        nodes=_words(arrays["nodes"].reshape(-1)),
        channels=_words(arrays["channels"].reshape(-1)),
        units=_words(arrays["units"].reshape(-1)) if "units" in optional else (),
        times=arrays.get("times"),
        step_seconds=int(arrays["step_seconds"]) if "step_seconds" in optional else None,
        graph=graph,
        coordinates=arrays.get("coordinates"),
        degrees=bool(arrays["degrees"]) if "degrees" in optional else False,
        valid=arrays.get("valid"),
        first_step=int(arrays["first_step"]) if "first_step" in optional else 0,
    )
