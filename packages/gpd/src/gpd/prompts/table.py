"""The prompts of all nodes of all cities, and the file that holds them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from numpy import ndarray
from numpy.typing import NDArray

from stcore.errors import UserError
from stcore.training.checkpoint import load_checkpoint, save_checkpoint

KIND = "prompts"


@dataclass(frozen=True, eq=False, kw_only=True)
class Prompts:
    """A spatial and a temporal vector for each node; rows lie city after city."""

    spatial: Float32[ndarray, "row spatial"]
    temporal: Float32[ndarray, "row temporal"]
    cities: tuple[str, ...]
    """City of each row."""
    nodes: tuple[str, ...]
    """Id of each row's node in its city."""
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """How they were made: configurations, seed, digests of the data."""

    def __post_init__(self) -> None:
        for name in ("spatial", "temporal"):
            given: NDArray[np.float32] = getattr(self, name)
            if given.ndim != 2 or not len(given) == len(self.cities) == len(self.nodes):
                raise UserError(f"prompts: {name} of shape {given.shape} for {len(self.cities)} cities and "
                                f"{len(self.nodes)} nodes; expected a row for each")  # fmt: skip
            if not np.isfinite(given).all():
                row = int(np.flatnonzero(~np.isfinite(given).all(1))[0])
                raise UserError(f"prompts: {name} of node {self.nodes[row]!r} of {self.cities[row]!r} is not finite; "
                                "expected numbers")  # fmt: skip
            frozen = np.array(given, dtype=np.float32)
            frozen.setflags(write=False)
            object.__setattr__(self, name, frozen)
        pairs = list(zip(self.cities, self.nodes, strict=True))
        if len(set(pairs)) != len(pairs):
            raise UserError("prompts: a node of a city occurs twice; expected a row for each")

    def __len__(self) -> int:
        return len(self.cities)

    @property
    def names(self) -> tuple[str, ...]:
        """The cities, each once, in their order."""
        return tuple(dict.fromkeys(self.cities))

    @property
    def digest(self) -> str:
        """SHA-256 over all numbers and names: the same for the same prompts."""
        state = hashlib.sha256(repr((self.cities, self.nodes, self.spatial.shape, self.temporal.shape)).encode())
        state.update(np.ascontiguousarray(self.spatial).tobytes())
        state.update(np.ascontiguousarray(self.temporal).tobytes())
        return state.hexdigest()

    def rows_of(self, city: str) -> NDArray[np.int64]:
        """Return the numbers of a city's rows.

        Raises:
            UserError: there is no such city.
        """
        found = np.flatnonzero(np.array(self.cities) == city)
        if not found.size:
            raise UserError(f"prompts: no city {city!r} among {', '.join(self.names)}; expected one of them")
        return found

    def of(self, city: str) -> Prompts:
        """Return the prompts of one city."""
        return self.take(self.rows_of(city))

    def without(self, city: str) -> Prompts:
        """Return the prompts of all other cities; `city` need not be there."""
        return self.take(np.flatnonzero(np.array(self.cities) != city))

    def take(self, rows: NDArray[np.int64]) -> Prompts:
        """Return some rows, in the order of `rows`."""
        return Prompts(
            spatial=self.spatial[rows],
            temporal=self.temporal[rows],
            cities=tuple(self.cities[row] for row in rows),
            nodes=tuple(self.nodes[row] for row in rows),
            metadata=self.metadata,
        )

    def matched(self, cities: Sequence[str], nodes: Sequence[str]) -> Prompts:
        """Return the prompts of given nodes, in their order: those of a parameter table, for instance.

        Raises:
            UserError: one of them has no prompt.
        """
        places = {pair: row for row, pair in enumerate(zip(self.cities, self.nodes, strict=True))}
        wanted = list(zip(cities, nodes, strict=True))
        lost = [pair for pair in wanted if pair not in places]
        if lost:
            raise UserError(f"prompts: none for node {lost[0][1]!r} of {lost[0][0]!r} ({len(lost)} such); expected one "
                            "for each node; compute them from the same cities")  # fmt: skip
        return self.take(np.array([places[pair] for pair in wanted], dtype=np.int64))

    def write(self, path: Path) -> None:
        """Write to `path` (.safetensors), durably.

        Raises:
            UserError: the disk refuses.
        """
        tensors = {name: torch.from_numpy(getattr(self, name).copy()) for name in ("spatial", "temporal")}
        facts = {"package": "gpd", "kind": KIND, "digest": self.digest, "cities": list(self.cities),
                 "nodes": list(self.nodes), "made": dict(self.metadata)}  # fmt: skip
        save_checkpoint(path, tensors, facts)

    @classmethod
    def read(cls, path: Path) -> Prompts:
        """Read what `write` wrote.

        Raises:
            UserError: no such file, damaged, or of another kind.
        """
        stored = load_checkpoint(path)
        facts = stored.metadata
        if facts.get("kind") != KIND or not {"spatial", "temporal"} <= set(stored.tensors):
            raise UserError(f"{path}: holds {facts.get('kind') or 'no prompts'}; expected a file of prompts")
        arrays = {name: stored.tensors[name].float().numpy() for name in ("spatial", "temporal")}
        return cls(**arrays, cities=tuple(facts["cities"]), nodes=tuple(facts["nodes"]), metadata=dict(facts["made"]))
