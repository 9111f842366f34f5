"""Nested lists of events, from JSON and from the originals' pickles of plain data.

A sequence is a list of [time, x, y] or [time, mark, x, y], a list of objects with keys (time_since_start, type_event,
x, y as EasyTPP's with coordinates added), or one object of lists. The whole is a list of sequences, or an object of
such lists by part (train, val or dev, test).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np

from stcore.errors import UserError
from stcore.readers import limits
from stcore.readers.columns import choose_columns, listed
from stcore.readers.limits import short, shown
from stcore.readers.options import EventReadOptions
from stcore.readers.pickles import read_plain_pickle
from stcore.readers.rows import Rows, mark_labels
from stcore.readers.tables import rows_from_columns
from stcore.splits import PART_NAMES

PART_WORDS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
              "test": "test", "testing": "test"}  # fmt: skip
_MEMORY_PER_BYTE = 40  # an empty list is 3 letters in the file and 64 bytes in memory
_EASY = {"time_since_start": "time", "type_event": "mark"}


def read_json(path: Path, options: EventReadOptions) -> dict[str, Rows]:
    """Read a JSON file; the rows by part, `""` when there are none.

    Raises:
        UserError: it is no JSON, too large, or not events.
    """
    size = path.stat().st_size
    limits.require_size(
        path, _MEMORY_PER_BYTE * size, limits.size_limit(options.max_bytes), "JSON of this size needs about"
    )
    with limits.open_file(path) as file:
        data = file.read()
    where = shown(path)
    try:
        tree = json.loads(data.removeprefix(b"\xef\xbb\xbf").decode())
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: byte {error.start:,} is no UTF-8; expected JSON in UTF-8") from error
    except json.JSONDecodeError as error:
        raise UserError(
            f"{where}: line {error.lineno}, column {error.colno}: {error.msg.lower()}; expected JSON"
        ) from error
    except (RecursionError, ValueError) as error:
        raise UserError(
            f"{where}: {limits.one_line(error)}; expected JSON with numbers of at most 4300 digits"
        ) from error
    return from_tree(tree, options, where)


def read_pickle(path: Path, options: EventReadOptions) -> dict[str, Rows]:
    """Read a pickle of plain data; the rows by part, `""` when there are none.

    Raises:
        UserError: it asks for anything but plain data, is broken, too large, or not events.
    """
    return from_tree(read_plain_pickle(path, max_bytes=options.max_bytes), options, shown(path))


def from_tree(tree: Any, options: EventReadOptions, where: str) -> dict[str, Rows]:
    """Turn nested data into rows by part.

    Raises:
        UserError: it is not a list of sequences, or an object of them.
    """
    tree = _plain(tree)
    if isinstance(tree, dict):
        found = {PART_WORDS[str(key).lower()]: value for key, value in tree.items() if str(key).lower() in PART_WORDS}
        if found:
            return {
                name: _part(_plain(found[name]), options, f"{where}: {name}") for name in PART_NAMES if name in found
            }
        if "sequences" in tree:
            return {"": _part(_plain(tree["sequences"]), options, where)}
        return {"": _table(tree, options, where)}
    return {"": _part(tree, options, where)}


def _plain(value: Any) -> Any:
    """Return arrays and tensors as lists, tuples as lists."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return list(value) if isinstance(value, tuple) else value


def _part(tree: Any, options: EventReadOptions, where: str) -> Rows:
    if not isinstance(tree, list):
        raise UserError(f"{where}: {short(tree)}; expected a list of sequences")
    if not tree:
        raise UserError(f"{where}: empty list; expected sequences of events")
    sequences: list[Any] = [_plain(sequence) for sequence in cast("list[Any]", tree)]
    if isinstance(sequences[0], dict) and not _is_columns(sequences[0]):
        sequences = [sequences]  # a list of objects is one sequence
    for number, sequence in enumerate(sequences):
        if not isinstance(sequence, list | dict):
            raise UserError(f"{where}: sequence {number} is {short(sequence)}; expected a list of events")
        if not sequence:
            raise UserError(f"{where}: sequence {number} has no events; expected at least one")
    if all(isinstance(sequence, dict) for sequence in sequences):
        return _joined(sequences, options, where)
    if all(isinstance(event, dict) for event in chain.from_iterable(sequences)):
        return _objects(sequences, options, where)
    return _lists(sequences, options, where)


def _is_columns(item: dict[Any, Any]) -> bool:
    return any(isinstance(_plain(value), list) for value in item.values())


def _lists(sequences: list[Any], options: EventReadOptions, where: str) -> Rows:
    """Read sequences of [time, x, y] or [time, mark, x, y]."""
    lengths: list[int] = []
    events: list[Any] = []
    for number, sequence in enumerate(sequences):
        if not isinstance(sequence, list):
            raise UserError(f"{where}: sequence {number} is an object; expected a list as the others")
        lengths.append(len(sequence))
        events.extend(sequence)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    place = _places(starts)
    events = [event if type(event) is list else _plain(event) for event in events]
    width = len(events[0]) if isinstance(events[0], list) else 0
    for row, event in enumerate(events):
        if not isinstance(event, list) or len(event) != width or width not in (3, 4):
            found = f"{len(event)} values" if isinstance(event, list) else short(event)
            expected = f"{width} values as before" if width in (3, 4) and row else "[time, x, y] or [time, mark, x, y]"
            raise UserError(f"{where}: {place(row)} has {found}; expected {expected}")
    cells: list[Any] = list(chain.from_iterable(events))
    flat = [cell if type(cell) in (float, int, str) else _plain(cell) for cell in cells]
    names = ("time", "x", "y") if width == 3 else ("time", "mark", "x", "y")
    columns: dict[str, Any] = {name: flat[index::width] for index, name in enumerate(names)}
    return _rows(columns, lengths, options, where, place)


def _places(starts: Any) -> Callable[[int], str]:
    def place(row: int) -> str:
        sequence = int(np.searchsorted(starts, row, side="right")) - 1
        return f"sequence {sequence}, event {row - int(starts[sequence])}"

    return place


def _objects(sequences: list[Any], options: EventReadOptions, where: str) -> Rows:
    """Read sequences of objects, one per event."""
    lengths = [len(sequence) for sequence in sequences]
    place = _places(np.concatenate([[0], np.cumsum(lengths)]))
    events = list(chain.from_iterable(sequences))
    chosen = _choose(events[0], options, f"{where}: {place(0)}")
    for row, event in enumerate(events):
        for name in chosen.values():
            if name not in event:
                raise UserError(f"{where}: {place(row)} has no {short(name)}; expected it as in the first event")
    columns = {role: [event[name] for event in events] for role, name in chosen.items()}
    return _rows(columns, lengths, options, where, place)


def _joined(sequences: list[dict[Any, Any]], options: EventReadOptions, where: str) -> Rows:
    """Read sequences that are objects of equally long lists."""
    columns: dict[str, list[Any]] = {}
    lengths: list[int] = []
    for number, sequence in enumerate(sequences):
        chosen = _choose(sequence, options, f"{where}: sequence {number}")
        if columns and chosen.keys() != columns.keys():
            raise UserError(
                f"{where}: sequence {number} has {', '.join(chosen)}; expected {', '.join(columns)} as before"
            )
        values = {role: _plain(sequence[name]) for role, name in chosen.items()}
        for role, items in values.items():
            if not isinstance(items, list) or len(items) != len(values["time"]):
                found = f"{len(items)} values" if isinstance(items, list) else short(items)
                raise UserError(f"{where}: sequence {number}: {chosen[role]} has {found}; expected one per time")
            columns.setdefault(role, []).extend(items)
        if not values["time"]:
            raise UserError(f"{where}: sequence {number} has no events; expected at least one")
        lengths.append(len(values["time"]))
    return _rows(columns, lengths, options, where, _places(np.concatenate([[0], np.cumsum(lengths)])))


def _choose(item: dict[Any, Any], options: EventReadOptions, where: str) -> dict[str, str]:
    names = [str(name) for name in item]
    renamed = [_EASY.get(name, name) if _EASY.get(name) not in names else name for name in names]
    chosen = choose_columns(renamed, options, where)
    back = dict(zip(renamed, names, strict=True))
    return {role: back[name] for role, name in chosen.items() if name and role != "sequence"}


def _table(tree: dict[Any, Any], options: EventReadOptions, where: str) -> Rows:
    """Read one object of equally long lists as a table."""
    columns = {str(name): _plain(value) for name, value in tree.items()}
    lists = {name: value for name, value in columns.items() if isinstance(value, list)}
    if not lists:
        raise UserError(
            f"{where}: an object with {listed(list(columns))}; expected sequences of events, perhaps by part"
        )
    return rows_from_columns(lists, options, where, lambda row: f"event {row}")


def _rows(
    columns: dict[str, Any], lengths: Sequence[int], options: EventReadOptions, where: str, place: Callable[[int], str]
) -> Rows:
    """Make rows of columns of Python values."""
    count = len(lengths)
    mark, labels = None, ()
    if "mark" in columns and options.mark_column.lower() != "none":
        mark, labels = _marks(columns["mark"], where, place)
    return Rows(
        where=where,
        time=_numbers(columns["time"], "time", where, place),
        location=np.column_stack([_numbers(columns[name], name, where, place) for name in ("x", "y")]),
        place=place,
        mark=mark,
        labels=labels,
        sequence=np.repeat(np.arange(count, dtype=np.int64), lengths),
        ids=tuple(map(str, range(count))),
    )


def _numbers(values: list[Any], name: str, where: str, place: Callable[[int], str]) -> Any:
    try:
        return np.array(values, dtype=np.float64).reshape(len(values))
    except (ValueError, TypeError, OverflowError):
        for row, value in enumerate(values):
            if not (value is None or isinstance(value, int | float)) or (
                isinstance(value, int) and abs(value) > 2**1000
            ):
                raise UserError(f"{where}: {place(row)}: {name} is {short(value)}; expected a number") from None
        raise


def _marks(values: list[Any], where: str, place: Callable[[int], str]) -> tuple[Any, tuple[str, ...]]:
    """Return codes (-1 where missing) and labels."""
    number: dict[Any, int] = {}
    first: list[int] = []
    codes = np.empty(len(values), dtype=np.int64)
    for row, value in enumerate(values):
        if value is None or value == "" or value != value:
            codes[row] = -1
            continue
        if not isinstance(value, int | float | str):
            raise UserError(f"{where}: {place(row)}: mark is {short(value)}; expected a class: an integer or a word")
        code = number.setdefault(value, len(number))
        if code == len(first):
            first.append(row)
        codes[row] = code
    return codes, mark_labels(where, list(number), lambda index: place(first[index]), "mark")
