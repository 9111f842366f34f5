"""Read events from files, folders and named data sets; every family of formats has its own module.

What is wrong with a file is said in one line that names file, place, what was found and what was expected.
"""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from stcore.errors import UserError
from stcore.readers.options import EventReadOptions
from stcore.splits import PART_NAMES, Parts, cut

if TYPE_CHECKING:
    from stcore.events import EventSequences

__all__ = ["EventReadOptions", "read_event_parts", "read_events", "read_events_or_parts"]

_log = logging.getLogger(__name__)

ENDINGS = (".csv", ".tsv", ".txt", ".gz", ".parquet", ".arrow", ".feather", ".npz", ".npy", ".json", ".pkl", ".pickle")
_WORDS = {"train": "train|training", "val": "val|valid|validation|dev", "test": "test|testing"}
_LATE_SHARE = 0.1  # of the training sequences, when there is no val part


def read_events(source: str, options: EventReadOptions) -> EventSequences:
    """Read all events of a file, a folder or a named data set; its parts, if any, follow one another.

    Args:
        source: path or name; a path wins.
        options: how columns are named and what they mean; its own `source` is not used.

    Raises:
        UserError: there is no such source, or something in it is wrong.
    """
    from stcore.events import concatenate

    parts = _read_source(source, options)
    if len(parts) == 1:
        return next(iter(parts.values()))
    united = _united(_with_empty(parts))
    named = [
        replace(part, sequence_id=tuple(f"{name}/{identity}" for identity in part.sequence_id))
        for name, part in united.named().items()
        if part.num_events
    ]
    return concatenate(named)


def read_event_parts(options: EventReadOptions) -> Parts[EventSequences]:
    """Read train, val and test from `options.source`; marks of all parts are numbered by all their names.

    One source with all sequences is cut by `options.split`, in order. A source with a train and a test part but none
    for val gives the last tenth of its training sequences to val.

    Raises:
        UserError: neither one nor three sources, a part is missing, or something in one is wrong.
    """
    sources = options.source
    if len(sources) == 3:
        return _united(Parts(*(read_events(source, options) for source in sources)))
    if len(sources) != 1:
        raise UserError(f"data.source: {len(sources)} sources; expected one, or three: train, val and test")
    parts = _read_source(sources[0], options)
    if set(parts) == {""}:
        whole = parts[""]
        ranges = cut(whole.num_sequences, options.split, where=sources[0], things="sequences")
        return ranges.map(whole.select)
    for name in ("train", "test"):
        if name not in parts:
            raise UserError(f"{sources[0]}: parts {', '.join(parts)}; expected train, val and test; {name} is missing")
    return _united(_filled(parts))


def read_events_or_parts(options: EventReadOptions) -> dict[str, EventSequences]:
    """Read what `options.source` is: one set of events under the name "all", or its parts under theirs.

    Raises:
        UserError: neither one nor three sources, or something in one is wrong.
    """
    sources = options.source
    if len(sources) == 3:
        return read_event_parts(options).named()
    if len(sources) != 1:
        raise UserError(f"data.source: {len(sources)} sources; expected one, or three: train, val and test")
    parts = _read_source(sources[0], options)
    return {"all": parts[""]} if set(parts) == {""} else _united(_filled(parts)).named()


def _filled(parts: dict[str, EventSequences]) -> Parts[EventSequences]:
    """Return all three parts; a missing val is the last tenth of train, any other missing part is empty."""
    train, val, test = (parts.get(name) for name in PART_NAMES)
    if train is not None and test is not None and val is None and train.num_sequences > 1:
        ranges = cut(train.num_sequences, (1.0 - _LATE_SHARE, _LATE_SHARE, 0.0), where="train", things="sequences")
        _log.warning("no val part: the last %d of %d training sequences serve", len(ranges.val), train.num_sequences)
        return Parts(train.select(ranges.train), train.select(ranges.val), test)
    return _with_empty(parts)


def _with_empty(parts: dict[str, EventSequences]) -> Parts[EventSequences]:
    some = next(iter(parts.values()))
    return Parts(*(parts[name] if name in parts else some.select([]) for name in PART_NAMES))


def _united(parts: Parts[EventSequences]) -> Parts[EventSequences]:
    from stcore.events import unite_marks

    return unite_marks(parts)


def _read_source(source: str, options: EventReadOptions) -> dict[str, EventSequences]:
    """Return events by part, the name of the part empty when the source has no parts."""
    from stcore import catalog

    path = Path(source)
    if path.is_dir():
        return _read_folder(path, options)
    if not _exists(path) and (card := catalog.known(source)) is not None:
        return catalog.read(card, options, _read_file)
    return _read_file(path, options)


def _exists(path: Path) -> bool:
    try:
        path.lstat()
    except OSError:
        return False
    return True


def _read_folder(folder: Path, options: EventReadOptions) -> dict[str, EventSequences]:
    """Read the files of a folder whose names hold train, val or test, or its only file."""
    from stcore.readers.limits import shown

    try:
        files = sorted(file for file in folder.iterdir() if file.suffix.lower() in ENDINGS and file.is_file())
    except OSError as error:
        raise UserError(f"{shown(folder)}: {error.strerror}; expected a readable folder") from error
    parts: dict[str, EventSequences] = {}
    for name, words in _WORDS.items():
        mine = [file for file in files if re.search(rf"(^|[\W_])({words})([\W_]|$)", file.name.lower())]
        if len(mine) > 1:
            raise UserError(f"{shown(folder)}: {mine[0].name} and {mine[1].name}; expected one file for {name}")
        if mine:
            parts[name] = _only(_read_file(mine[0], options), mine[0])
    if parts:
        return parts
    if len(files) != 1:
        raise UserError(
            f"{shown(folder)}: {len(files)} files of events and none named train, val or test; expected one for each "
            "part, or a single file"
        )
    return _read_file(files[0], options)


def _only(parts: dict[str, EventSequences], path: Path) -> EventSequences:
    from stcore.readers.limits import shown

    if set(parts) != {""}:
        raise UserError(f"{shown(path)}: holds parts {', '.join(parts)}; expected one part")
    return parts[""]


def _read_file(path: Path, options: EventReadOptions) -> dict[str, EventSequences]:
    """Read one file by its ending; nothing is opened before it is known to be a regular file."""
    from stcore.readers import arrays, limits, nested, tables
    from stcore.readers.rows import Rows, to_events

    limits.require_file(path)
    ending = path.suffix.lower()
    if ending == ".gz" and Path(path.stem).suffix.lower() not in (".csv", ".tsv", ".txt"):
        ending = ".gz of an unknown kind"
    if options.mark_edges and ending in (".npz", ".npy", ".json", ".pkl", ".pickle"):
        raise UserError(f"{limits.shown(path)}: data.mark-edges for {ending}; expected them for tables of events only")
    rows: dict[str, Rows]
    if ending in (".csv", ".tsv", ".txt", ".gz"):
        rows = {"": tables.read_csv(path, options)}
    elif ending == ".parquet":
        rows = {"": tables.read_parquet(path, options)}
    elif ending in (".arrow", ".feather"):
        rows = {"": tables.read_arrow(path, options)}
    elif ending == ".npz":
        rows = arrays.read_npz(path, options)
    elif ending == ".npy":
        rows = {"": arrays.read_npy(path, options)}
    elif ending == ".json":
        rows = nested.read_json(path, options)
    elif ending in (".pkl", ".pickle"):
        rows = nested.read_pickle(path, options)
    else:
        raise UserError(
            f"{limits.shown(path)}: unknown ending {limits.short(ending)}; expected one of {', '.join(ENDINGS)}"
        )
    return {name: to_events(part, options) for name, part in rows.items()}
