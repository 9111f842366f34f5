"""Read series on the nodes of a graph from files, folders and named data sets; every family of formats has its module.

What is wrong with a source is said in one line that names file, place, what was found and what was expected.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from stcore.errors import UserError
from stcore.readers.graph_options import GraphReadOptions

if TYPE_CHECKING:
    from stcore.graphs import GraphSeries
    from stcore.readers.graph_raw import RawGraph

__all__ = ["GraphReadOptions", "read_graph", "read_graphs"]

_log = logging.getLogger(__name__)

HDF5_ENDINGS = (".h5", ".hdf5", ".hdf")
ENDINGS = (".csv", ".tsv", ".txt", ".gz", ".npy", ".npz", *HDF5_ENDINGS, ".toml")


def read_graph(options: GraphReadOptions) -> GraphSeries:
    """Read the one source of `options`: a path, which wins, or a name of the catalogue.

    Raises:
        UserError: none or several sources, there is no such source, or something in it is wrong.
    """
    if len(options.source) != 1:
        raise UserError(f"data.source: {len(options.source)} sources; expected one")
    return _read_source(options.source[0], options)


def read_graphs(options: GraphReadOptions) -> list[GraphSeries]:
    """Read every source of `options`, each a city of its own name; equal names get numbers.

    Raises:
        UserError: as for `read_graph`, or there is no source.
    """
    if not options.source:
        raise UserError("data.source: no source; expected at least one; pass --data FILE or a name of data list")
    read = [_read_source(source, options) for source in options.source]
    names = [series.name or str(number) for number, series in enumerate(read)]
    return [
        replace(series, name=f"{name}-{number + 1}" if names.count(name) > 1 else name)
        for number, (series, name) in enumerate(zip(read, names, strict=True))
    ]


def _read_source(source: str, options: GraphReadOptions) -> GraphSeries:
    from stcore import catalog
    from stcore.readers.graph_assembly import assemble_graph

    path = Path(source)
    if not _exists(path):
        if (card := catalog.known(source, "graphs")) is not None:
            folder = catalog.locate(card)
            mine = catalog.reading_options(card, options)
            raw = _raw(folder / card.files[0].path if card.files else folder, mine)
            for note in card.notes:
                _log.info("%s: %s", card.name, note)
            return assemble_graph(replace(raw, name=card.name), mine, folder)
        if source.lower() in catalog.cards():
            kind = catalog.cards()[source.lower()].kind
            raise UserError(f"{source}: a data set of {kind}; expected one of {', '.join(catalog.cards('graphs'))}")
    if path.suffix.lower() == ".toml" and options.format in ("auto", "described"):
        return _read_described(path, options)
    return assemble_graph(_raw(path, options), options, path if path.is_dir() else path.parent)


def _exists(path: Path) -> bool:
    try:
        path.lstat()
    except OSError:
        return False
    return True


def _read_described(path: Path, options: GraphReadOptions) -> GraphSeries:
    """Read the city that a TOML file describes: these options, `source` beside the file, and perhaps `name`.

    Raises:
        UserError: an unknown key, no source, or something in the source is wrong.
    """
    from stcore.configuration import from_plain, read_toml
    from stcore.readers import limits

    limits.require_file(path, "a description of a city")
    values = read_toml(path)
    name = values.pop("name", path.stem)
    if not isinstance(name, str):
        raise UserError(f"{limits.shown(path)}: name is {limits.short(name)}; expected words")
    if isinstance(values.get("source"), str):
        values["source"] = [values["source"]]
    described = from_plain(GraphReadOptions, values, where=limits.shown(path))
    if len(described.source) != 1 or Path(described.source[0]).suffix.lower() == ".toml":
        raise UserError(f"{limits.shown(path)}: source is {list(described.source)}; expected one file of readings")
    source = path.parent / described.source[0]
    if not _exists(source):
        source = Path(described.source[0])
    described = replace(described, source=(str(source),), max_bytes=described.max_bytes or options.max_bytes)
    return replace(_read_with_files_of(path.parent, described), name=name)


def _read_with_files_of(folder: Path, options: GraphReadOptions) -> GraphSeries:
    """Read a source whose other files lie in `folder`, where the description lies."""
    from stcore.readers.graph_assembly import assemble_graph

    path = Path(options.source[0])
    if not _exists(path):
        return _read_source(options.source[0], options)
    return assemble_graph(_raw(path, options), options, folder)


def _raw(path: Path, options: GraphReadOptions) -> RawGraph:
    """Read a file or folder; nothing is opened before it is known to be a regular file."""
    from stcore.readers import graph_arrays, graph_pandas, graph_tables, limits

    if path.is_dir():
        return _folder(path, options)
    limits.require_file(path, "readings of nodes")
    ending, wanted = path.suffix.lower(), options.format
    if ending in graph_tables.TABLE_ENDINGS and wanted in ("auto", "table"):
        return graph_tables.read_wide(path, options.max_bytes)
    if ending == ".npy" and wanted in ("auto", "arrays"):
        return graph_arrays.read_npy(path, options)
    if (
        ending in HDF5_ENDINGS
        and wanted in ("auto", "pandas")
        and (wanted == "pandas" or graph_pandas.is_frame_file(path))
    ):
        key = options.features[0] if options.features else ""
        return graph_pandas.read_frame_file(path, key=key, max_bytes=options.max_bytes)
    if ending in (".npz", *HDF5_ENDINGS) and wanted in ("auto", "arrays", "cells", "od"):
        return graph_arrays.read_arrays(path, options)
    if ending in ENDINGS:
        raise UserError(f"{limits.shown(path)}: ending {ending}; expected one that data.format {wanted} reads")
    raise UserError(
        f"{limits.shown(path)}: unknown ending {limits.short(ending)}; expected one of {', '.join(ENDINGS)}"
    )


def _folder(path: Path, options: GraphReadOptions) -> RawGraph:
    """Read a folder with `dataset.npy`, as the original's, or with a single file of readings."""
    from stcore.readers import graph_arrays, limits

    if options.format == "gpd" or (path / "dataset.npy").is_file():
        return graph_arrays.read_original_folder(path, options)
    try:
        files = sorted(one for one in path.iterdir() if one.suffix.lower() in ENDINGS and one.is_file())
    except OSError as error:
        raise UserError(f"{limits.shown(path)}: {error.strerror}; expected a readable folder") from error
    if len(files) == 1:
        return _raw(files[0], options)
    raise UserError(f"{limits.shown(path)}: {len(files)} files of readings and no dataset.npy; expected the folder of "
                    "a city, or one file")  # fmt: skip
