"""Which column of a file means what, and the notes that files of our own carry beside their columns."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from stcore.errors import UserError
from stcore.readers.limits import short
from stcore.readers.options import EventReadOptions
from stcore.readers.rows import Rows

TIME_NAMES = ("time", "timestamp", "datetime", "date", "t")
X_NAMES = ("x", "lng", "lon", "longitude")
Y_NAMES = ("y", "lat", "latitude")
MARK_NAMES = ("mark", "type")
SEQUENCE_NAMES = ("sequence", "sequence_id")
METADATA_KEY = "stcore.events"
CSV_METADATA = b"# stcore.events "

_UNIT = re.compile(r"^(?P<name>.*\S)\s*[(\[](?P<unit>[^()\[\]]{1,20})[)\]]$")


def choose_columns(header: Sequence[str], options: EventReadOptions, where: str) -> dict[str, str]:
    """Return the name in the file of each column that is wanted; empty where there is none and need not be.

    Capitals, blanks around a name and a unit in brackets after it, as in `time (days)`, make no difference.

    Raises:
        UserError: a column is missing, could be several, or is wanted twice.
    """
    none = options.mark_column.lower() == "none"
    wanted = {
        "time": (options.time_column, TIME_NAMES, "--data.time-column", options.time_column != "time"),
        "x": (options.x_column, X_NAMES, "--data.x-column", bool(options.x_column)),
        "y": (options.y_column, Y_NAMES, "--data.y-column", bool(options.y_column)),
        "mark": ("" if none else options.mark_column, () if none else MARK_NAMES, "--data.mark-column", False),
        "sequence": (options.sequence_column, SEQUENCE_NAMES, "--data.sequence-column", False),
    }
    found: dict[str, str] = {}
    for role, (given, aliases, flag, named) in wanted.items():
        names = (given,) if named or (given and role in ("mark", "sequence")) else aliases
        known = {alias.strip().lower() for alias in names}
        hits = [name for name in header if name.strip().lower() in known or _bare(name) in known]
        exact = [name for name in hits if name == given]
        if len(exact) == 1:
            hits = exact
        if len(hits) > 1:
            raise UserError(f"{where}: columns {listed(hits)} could all be {role}; expected one; name it with {flag}")
        if not hits and (role in ("time", "x", "y") or given):
            raise UserError(
                f"{where}: no column {' or '.join(names)}; expected one for {role} among {listed(header)}; "
                f"name it with {flag}"
            )
        found[role] = hits[0] if hits else ""
    taken = [name for name in found.values() if name]
    if len(set(taken)) != len(taken):
        twice = next(name for name in taken if taken.count(name) > 1)
        raise UserError(
            f"{where}: column {short(twice)} is wanted twice; expected a column for each of {', '.join(found)}"
        )
    return found


def listed(names: Sequence[str]) -> str:
    """Return the first few names, for a message."""
    shown_names = ", ".join(short(name, 40) for name in list(names)[:8])
    return shown_names + (f", … ({len(names):,} columns)" if len(names) > 8 else "")


def _bare(name: str) -> str:
    found = _UNIT.match(name.strip().lower())
    return found["name"] if found else name.strip().lower()


def unit_of(name: str) -> str:
    """Return the unit in brackets after the name of a column; empty when there is none.

    >>> unit_of("time (days)"), unit_of("time")
    ('days', '')
    """
    found = _UNIT.match(name.strip())
    return found["unit"].strip() if found else ""


def parse_metadata(text: bytes, where: str) -> dict[str, Any]:
    """Read what `EventSequences.write` noted beside the columns.

    Raises:
        UserError: it is not such a note.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: metadata {short(text)}; expected a JSON object") from error
    if not isinstance(found, dict):
        raise UserError(f"{where}: metadata {short(text)}; expected a JSON object")
    facts = cast("dict[str, Any]", found)
    for name in ("mark_names", "sequence_id", "origin"):
        value = facts.get(name)
        if value is not None and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            raise UserError(f"{where}: metadata {name} is {short(value)}; expected a list of words")
    for name in ("time_unit", "coordinates"):
        if not isinstance(facts.get(name, ""), str):
            raise UserError(f"{where}: metadata {name} is {short(facts[name])}; expected a word")
    return facts


def with_metadata(rows: Rows, facts: dict[str, Any]) -> Rows:
    """Put back what `EventSequences.write` noted beside the columns.

    Raises:
        UserError: it does not fit the columns.
    """
    where, names, ids, stamps = rows.where, facts.get("mark_names"), facts.get("sequence_id"), facts.get("origin")
    if names and rows.mark is not None:
        number = {name: index for index, name in enumerate(names)}
        if any(label not in number for label in rows.labels) or len(number) != len(names):
            raise UserError(f"{where}: metadata mark_names are {short(names)}; expected each mark of the table once")
        table = np.array([number[label] for label in rows.labels] + [-1], dtype=np.int64)
        rows = replace(rows, mark=table[rows.mark], labels=tuple(names), ordered=True)
    if ids:
        number = {name: index for index, name in enumerate(ids)}
        if any(name not in number for name in rows.ids) or len(number) != len(ids):
            raise UserError(f"{where}: metadata sequence_id is {short(ids)}; expected each sequence of the table once")
        codes = np.zeros(len(rows.time), dtype=np.int64) if rows.sequence is None else rows.sequence
        table = np.array([number[name] for name in rows.ids], dtype=np.int64)
        rows = replace(rows, sequence=table[codes], ids=tuple(ids), all_ids=True)
    if stamps:
        try:
            origin = np.array(stamps, dtype="datetime64[us]")
        except ValueError as error:
            raise UserError(f"{where}: metadata origin is {short(stamps)}; expected timestamps") from error
        if len(origin) != len(rows.ids) or not rows.all_ids:
            raise UserError(f"{where}: metadata has {len(origin)} origins; expected one for each sequence")
        rows = replace(rows, origin=origin)
    kind = facts.get("coordinates", "")
    if kind not in ("", "planar", "degrees"):
        raise UserError(f"{where}: metadata coordinates is {short(kind)}; expected planar or degrees")
    return replace(rows, time_unit=facts.get("time_unit", rows.time_unit), coordinates=kind)
