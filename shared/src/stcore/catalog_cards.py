"""What is said about a named data set."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["events", "grids", "digits", "graphs"]


@dataclass(frozen=True, kw_only=True)
class CardFile:
    """One file of a data set."""

    path: str
    """Name in the folder of the data set."""
    part: str
    """train, val, test, or empty when it holds everything."""
    origin: str
    """Path in the repository it comes from."""
    sha256: str
    """Checksum of its content."""
    address: str = ""
    """Where it can be fetched; empty when no address is known to work."""
    prepared: str = ""
    """How it was made from its origin; empty when it is the original file."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a data set is, in which units, from where, and how it is read."""

    name: str
    kind: Kind = "events"
    """Which container it is read into; `digits` are still images that moving ones are made of."""
    title: str
    content: str
    """What one sequence and one event, one frame and its channels, or one node and its channels are."""
    axes: str
    """Sizes along sequence and event, or along time, channel, row and column."""
    units: str
    source: str
    """Repository and commit."""
    licence: str
    size_mb: float
    """Size of the files in megabytes."""
    folders: tuple[str, ...]
    """Names under which the folder is looked for."""
    files: tuple[CardFile, ...] = ()
    notes: tuple[str, ...] = ()
    """What is known to be odd."""
    by_hand: str = ""
    """What is to be put into the folder by hand, where the set comes as one of several layouts and not as known files:
    the folder is then read as a whole, by what is in it."""
    reading: dict[str, Any] = field(default_factory=dict)
    """Options of reading that differ from the defaults."""

    def __post_init__(self) -> None:
        if bool(self.files) == bool(self.by_hand):
            raise ValueError(f"card {self.name}: files and by_hand; expected one of them")
