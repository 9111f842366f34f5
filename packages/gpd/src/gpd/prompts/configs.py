"""What the two prompts of a node are made of, as frozen dataclasses.

Standard library only, so that reading or checking a configuration never imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from stcore.errors import UserError
from stcore.option_checks import require_choice, require_option

SpatialKind = Literal["structural", "union-node2vec", "knowledge-graph", "graph-infomax", "file", "none"]
SPATIAL_KINDS: tuple[SpatialKind, ...] = get_args(SpatialKind)
TemporalKind = Literal["profile", "masked-autoencoder", "file", "none"]
TEMPORAL_KINDS: tuple[TemporalKind, ...] = get_args(TemporalKind)
Triples = Literal["transe", "complex", "rotate"]
TRIPLE_MODELS: tuple[Triples, ...] = get_args(Triples)
Level = Literal["auto", "relative", "native"]
LEVELS: tuple[Level, ...] = get_args(Level)


@dataclass(frozen=True, kw_only=True)
class SpatialPromptConfig:
    """Where a node lies in its city: its place in the road network, as a vector."""

    kind: SpatialKind = "structural"
    """Facts about the graph (structural), an embedding trained on all cities (union-node2vec, knowledge-graph,
    graph-infomax), an array of the user's (file), or ones (none)."""
    dim: int = 128
    """Numbers in the prompt; a file brings its own."""
    file: str = ""
    """Array (.npy) with a row for each node, cities in their order, the target city last (file)."""
    neighbours: int = 5
    """Nodes of other cities with the most similar daily profiles that a node is joined to (union-node2vec,
    knowledge-graph), and nearest nodes of its own city where positions are known (knowledge-graph)."""
    epochs: int = 20
    """Passes over all walks, triples or graphs (union-node2vec, knowledge-graph, graph-infomax)."""
    learning_rate: float = 0.01
    """Of the same three."""
    walk_length: int = 20
    """Nodes in a walk (union-node2vec)."""
    context: int = 10
    """Nodes of a walk that count as near one another (union-node2vec)."""
    walks: int = 10
    """Walks that start at each node, in each epoch (union-node2vec)."""
    negatives: int = 1
    """Pairs by chance for each true pair (union-node2vec)."""
    p: float = 1.0
    """Large values keep a walk from going straight back (union-node2vec)."""
    q: float = 1.0
    """Large values keep a walk near where it came from (union-node2vec)."""
    triples: Triples = "transe"
    """How heads, relations and tails are scored (knowledge-graph)."""
    bins: int = 8
    """Shared entities for each attribute: one per quantile of the source nodes (knowledge-graph)."""
    places: str = ""
    """Further triples (.csv with the columns city, node, relation, entity), such as points of interest near a node;
    entities of the same name are the same in all cities (knowledge-graph)."""

    def __post_init__(self) -> None:
        require_choice(self, "spatial", "kind", SPATIAL_KINDS)
        require_choice(self, "spatial", "triples", TRIPLE_MODELS)
        for name in ("dim", "neighbours", "epochs", "walks", "negatives"):
            require_option(getattr(self, name) >= 1, "spatial", name, getattr(self, name), "1 or more")
        for name in ("walk_length", "context", "bins"):
            require_option(getattr(self, name) >= 2, "spatial", name, getattr(self, name), "2 or more")
        require_option(
            self.context <= self.walk_length, "spatial", "context", self.context, "at most the walk's length"
        )
        for name in ("learning_rate", "p", "q"):
            require_option(getattr(self, name) > 0.0, "spatial", name, getattr(self, name), "more than 0")
        even = self.kind != "knowledge-graph" or self.triples == "transe" or self.dim % 2 == 0
        require_option(
            even, "spatial", "dim", self.dim, f"an even number for {self.triples}: it is made of complex numbers"
        )
        _needs_file(self.kind, self.file, "spatial")


@dataclass(frozen=True, kw_only=True)
class TemporalPromptConfig:
    """How the series of a node behaves, as a vector."""

    kind: TemporalKind = "profile"
    """Facts about the series (profile), the state of an encoder that was trained to fill in hidden hours
    (masked-autoencoder), an array of the user's (file), or ones (none)."""
    dim: int = 128
    """Numbers in the prompt, and width of the encoder; a file brings its own."""
    file: str = ""
    """Array (.npy) with a row for each node, cities in their order, the target city last (file)."""
    level: Level = "auto"
    """Mean and deviation of a node: against those of its city (relative), in units (native), or native where all
    cities have the same unit (auto)."""
    layers: int = 4
    """Of the encoder (masked-autoencoder)."""
    heads: int = 4
    """Of its attention (masked-autoencoder)."""
    hidden_share: float = 0.75
    """Share of the hours of a day that the encoder does not see in training (masked-autoencoder)."""
    steps: int = 300
    """Optimiser steps (masked-autoencoder)."""
    batch: int = 64
    """Days of single nodes in a step (masked-autoencoder)."""
    learning_rate: float = 1e-3
    """Of the same."""

    def __post_init__(self) -> None:
        require_choice(self, "temporal", "kind", TEMPORAL_KINDS)
        require_choice(self, "temporal", "level", LEVELS)
        for name in ("dim", "layers", "heads", "steps", "batch"):
            require_option(getattr(self, name) >= 1, "temporal", name, getattr(self, name), "1 or more")
        require_option(0.0 < self.hidden_share < 1.0, "temporal", "hidden_share", self.hidden_share, "between 0 and 1")
        require_option(self.learning_rate > 0.0, "temporal", "learning_rate", self.learning_rate, "more than 0")
        fits = self.kind != "masked-autoencoder" or self.dim % self.heads == 0
        require_option(fits, "temporal", "dim", self.dim, f"a multiple of the {self.heads} heads")
        _needs_file(self.kind, self.file, "temporal")


def _needs_file(kind: str, file: str, section: str) -> None:
    if kind == "file" and not file:
        raise UserError(f"{section}.file: none; expected the path of an .npy array with a row for each node")
    if kind != "file" and file:
        raise UserError(f"{section}.file: {file} with {section}.kind {kind}; expected it only with the kind file")
