"""What a file of series on a graph held, before options are applied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stcore.graphs import Adjacency


@dataclass(frozen=True, kw_only=True)
class Edges:
    """Edges between named nodes, as a list of edges has them."""

    where: str
    start: tuple[str, ...]
    end: tuple[str, ...]
    numbers: NDArray[np.float64] | None
    """Weight or length of each edge; none where edges have no numbers."""
    lengths: bool
    """The numbers are distances."""


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """A matrix between nodes, and the names of the nodes where the file tells them."""

    where: str
    values: NDArray[Any]
    ids: tuple[str, ...] = ()


Graph = Edges | Matrix | Adjacency


@dataclass(frozen=True, kw_only=True)
class RawGraph:
    """What a source held."""

    where: str
    values: NDArray[Any]
    """Readings (time, node, channel)."""
    name: str = ""
    nodes: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    times: NDArray[np.datetime64] | None = None
    step_seconds: int | None = None
    graph: Graph | None = None
    coordinates: NDArray[np.float64] | None = None
    degrees: bool = False
    valid: NDArray[np.bool_] | None = None
    first_step: int = 0
    step_word: str = "step"
    """What a message calls a step."""
    first_number: int = 0
    """What it calls the first one."""

    def place(self, step: int, node: int, channel: int) -> str:
        """Return a place in words."""
        name = f"node {self.nodes[node]}" if self.nodes else f"node {node}"
        more = f", channel {self.channels[channel]}" if len(self.channels) > 1 else ""
        return f"{self.step_word} {step + self.first_number}, {name}{more}"
