"""How a file of events is to be read: options that every package with event data shares. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from stcore.errors import UserError


@dataclass(frozen=True, kw_only=True)
class EventReadOptions:
    """Where events come from and how their columns are named."""

    source: tuple[str, ...] = ()
    """Files, folders or names of the catalogue: one (split by `split`, or a folder with a train, val and test
    part) or three (train, val, test)."""
    time_column: str = "time"
    """Column of times: numbers since the start of the sequence, or timestamps."""
    x_column: str = ""
    """Column of the first coordinate; empty looks for x, lng, lon, longitude."""
    y_column: str = ""
    """Column of the second coordinate; empty looks for y, lat, latitude."""
    mark_column: str = ""
    """Column of marks, integers or words; empty looks for mark, type; `none` reads the events as unmarked."""
    mark_edges: tuple[float, ...] = ()
    """Ascending numbers at which a column of sizes (magnitudes, amounts) is cut into marks, for tables: 6.5 7 makes
    `<6.5`, `6.5-7` and `>=7`. The mark column must then be named."""
    sequence_column: str = ""
    """Column of sequence ids; empty looks for sequence, sequence_id; without one the file is one sequence."""
    time_unit: str = ""
    """Unit of time in every report, and the unit timestamps are turned into; empty keeps the file's or `days`."""
    coordinates: Literal["auto", "planar", "degrees"] = "auto"
    """`degrees` checks longitudes and latitudes; `auto` is degrees where the columns are named so."""
    missing: Literal["error", "drop"] = "error"
    """What to do with a row that has an empty or non-finite cell."""
    window: float = 0.0
    """Cut sequences into consecutive windows of this length in `time_unit`, for one long catalogue; 0 leaves them."""
    split: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """Shares of train, val and test when one file holds all sequences; cut in the order of the file."""
    separator: str = ""
    """Separator of a CSV file; empty finds comma, semicolon or tab from the header."""
    decimal: Literal[".", ","] = "."
    """Decimal mark of a CSV file."""
    max_bytes: int = 0
    """Largest size in memory of one file; 0 means half of this machine's memory, and for compressed files not more
    than 200 times their size (from 64 MB)."""

    def __post_init__(self) -> None:
        if any(share < 0.0 for share in self.split) or not 0.999 < sum(self.split) < 1.001 or self.split[0] <= 0.0:
            raise UserError(f"data.split: {self.split}; expected three shares that sum to 1, the first above 0")
        if self.max_bytes < 0:
            raise UserError(f"data.max-bytes: {self.max_bytes}; expected 0 (half of memory) or more")
        if not 0.0 <= self.window < float("inf"):
            raise UserError(f"data.window: {self.window}; expected 0 (leave sequences whole) or a length of time")
        edges = self.mark_edges
        if any(not low < high for low, high in pairwise((float("-inf"), *edges, float("inf")))):
            raise UserError(f"data.mark-edges: {edges}; expected finite numbers, each above the one before")
        if edges and self.mark_column.lower() in ("", "none"):
            raise UserError("data.mark-edges: without data.mark-column; expected the name of the column to cut")
        if not self.time_column:
            raise UserError("data.time-column: ''; expected the name of a column")
        if len(self.separator) > 1:
            raise UserError(f"data.separator: {self.separator!r}; expected one character")
