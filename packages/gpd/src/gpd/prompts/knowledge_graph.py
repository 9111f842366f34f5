"""A knowledge graph over all cities, embedded: what nodes share ties cities together.

Triples (node, adjacent, node), (node, near, node), (node, similar, node of another city) and (node, attribute, bin),
where the bins of an attribute are entities that all cities share, and whatever the user adds, points of interest for
instance. The embeddings are torch_geometric's: TransE (Bordes et al. 2013), ComplEx (Trouillon et al. 2016), RotatE
(Sun et al. 2019).
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from numpy import ndarray
from numpy.typing import NDArray
from scipy.spatial import KDTree
from torch import Tensor

from gpd.prompts.cities import Cities
from gpd.prompts.configs import SpatialPromptConfig
from gpd.prompts.fitting import minimise, seeded
from gpd.prompts.geometric import geometric_nn
from gpd.prompts.profile import behaviour
from gpd.prompts.structural import FACTS, structure
from gpd.prompts.union import similar_nodes
from stcore.errors import UserError
from stcore.graphs import GraphSeries
from stcore.readers.limits import require_file, require_size

BATCH = 512
"""Triples in a step."""
COLUMNS = ("city", "node", "relation", "entity")
"""Of a file of further triples."""
MAX_BYTES = 256 << 20
"""Such a file may be this large."""


@dataclass
class Graph:
    """Triples of numbers; nodes of all cities come first among the entities."""

    entities: int
    relations: dict[str, int] = field(default_factory=dict[str, int])
    parts: list[Int64[ndarray, "triple 3"]] = field(default_factory=list[Any])
    """Heads, relations and tails."""

    def add(self, heads: NDArray[np.int64], relation: str, tails: NDArray[np.int64]) -> None:
        """Add triples of one relation."""
        number = self.relations.setdefault(relation, len(self.relations))
        self.parts.append(np.column_stack([heads, np.full(len(heads), number), tails]).astype(np.int64))

    def triples(self) -> Int64[ndarray, "triple 3"]:
        """Return all triples, each once."""
        return np.unique(np.concatenate(self.parts), axis=0)


def knowledge_graph_prompts(cities: Cities, config: SpatialPromptConfig, seed: int) -> Float64[ndarray, "row dim"]:
    """Return the embeddings of all nodes; complex numbers as real parts, then imaginary ones."""
    graph = build_graph(cities, config)
    triples = torch.from_numpy(graph.triples())
    with seeded(seed, "knowledge-graph") as generator:
        model = _model(config, graph)
        optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
        minimise(optimiser, _losses(model, triples, config.epochs, generator), "spatial prompts")
    return _embeddings(model, config)[: cities.total].detach().double().numpy()


def build_graph(cities: Cities, config: SpatialPromptConfig) -> Graph:
    """Return all triples about the cities.

    Raises:
        UserError: the user's file of triples is wrong.
    """
    graph = Graph(cities.total)
    near, _ = similar_nodes(cities, config.neighbours)
    graph.add(np.repeat(np.arange(cities.total), near.shape[1]), "similar", near.reshape(-1))
    for first, city in zip(cities.offsets, cities.series, strict=True):
        edges = city.adjacency.edges[:, city.adjacency.edges[0] != city.adjacency.edges[1]] + first
        graph.add(edges[0], "adjacent", edges[1])
        if city.coordinates is not None:
            graph.add(*_near(city, config.neighbours, first))
    _add_bins(graph, cities, config.bins)
    if config.places:
        _add_places(graph, cities, Path(config.places))
    return graph


def attributes(city: GraphSeries) -> Float64[ndarray, "node attribute"]:
    """Return the facts of which bins are made: those of the graph, and all of the series that are known."""
    return np.concatenate([structure(city.adjacency)[:, : len(FACTS)], behaviour(city)], axis=1)


def _near(city: GraphSeries, neighbours: int, first: int) -> tuple[NDArray[np.int64], str, NDArray[np.int64]]:
    place = np.array(city.coordinates)
    if city.degrees:  # a degree of longitude is shorter than one of latitude
        place[:, 0] *= np.cos(np.radians(place[:, 1].mean()))
    count = min(neighbours, city.num_nodes - 1)
    found = np.asarray(KDTree(place).query(place, k=count + 1)[1]).reshape(city.num_nodes, -1)
    node = np.repeat(np.arange(city.num_nodes), found.shape[1])
    apart = node != found.reshape(-1)
    return node[apart] + first, "near", found.reshape(-1)[apart].astype(np.int64) + first


def _add_bins(graph: Graph, cities: Cities, bins: int) -> None:
    """Join each node to the bin that holds it, for every attribute; the bounds are quantiles of the source nodes."""
    facts = np.concatenate([attributes(city) for city in cities.series])
    for attribute, column in enumerate(facts.T):
        known = np.flatnonzero(np.isfinite(column))
        sources = column[known[known < cities.source_rows]]
        bounds = np.unique(np.quantile(sources, np.arange(1, bins) / bins)) if sources.size else np.zeros(0)
        if not bounds.size or sources.min() == sources.max():
            continue
        graph.add(known, f"attribute {attribute}", graph.entities + np.searchsorted(bounds, column[known], "right"))
        graph.entities += len(bounds) + 1


def _add_places(graph: Graph, cities: Cities, path: Path) -> None:
    places = {pair: row for row, pair in enumerate(zip(*cities.names(), strict=True))}
    known = {city.name for city in cities.series}
    entities: dict[str, int] = {}
    found: dict[str, list[tuple[int, int]]] = {}
    for number, (city, node, relation, entity) in _rows(path):
        if city not in known:
            continue  # the file may tell of more cities than this run has
        if (city, node) not in places:
            raise UserError(f"{path}: line {number}: no node {node!r:.60} in {city!r:.60}; expected one of its ids")
        tail = entities.setdefault(entity, graph.entities + len(entities))
        found.setdefault(relation, []).append((places[city, node], tail))
    if not found:
        raise UserError(f"{path}: no line tells of {', '.join(sorted(known))}; expected triples of these cities")
    graph.entities += len(entities)
    for relation, pairs in found.items():
        heads, tails = np.array(pairs, dtype=np.int64).T
        graph.add(heads, f"place {relation}", tails)


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    require_size(path, require_file(path, "triples"), MAX_BYTES, "is of")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            head = [name.strip().lower() for name in next(lines, [])]
            if head != list(COLUMNS):
                raise UserError(f"{path}: columns {', '.join(head)[:80]!r}; expected {', '.join(COLUMNS)}")
            for row in lines:
                if len(row) != len(COLUMNS):
                    raise UserError(f"{path}: line {lines.line_num}: {len(row)} fields; expected {len(COLUMNS)}")
                yield lines.line_num, [cell.strip() for cell in row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a table of text ({error}); expected .csv in UTF-8") from error


def _model(config: SpatialPromptConfig, graph: Graph) -> Any:
    kge, sizes = geometric_nn().kge, (graph.entities, len(graph.relations))
    if config.triples == "transe":
        return kge.TransE(*sizes, config.dim)
    return (kge.ComplEx if config.triples == "complex" else kge.RotatE)(*sizes, config.dim // 2)


def _embeddings(model: Any, config: SpatialPromptConfig) -> Tensor:
    """Return what enters the scores: TransE scales its embeddings to length 1 first."""
    if config.triples == "transe":
        return torch.nn.functional.normalize(model.node_emb.weight, p=model.p_norm, dim=1)
    return torch.cat([model.node_emb.weight, model.node_emb_im.weight], dim=1)


def _losses(model: Any, triples: Tensor, epochs: int, generator: torch.Generator) -> Iterator[Callable[[], Tensor]]:
    for _ in range(epochs):
        for ids in torch.randperm(len(triples), generator=generator).split(BATCH):
            head, relation, tail = triples[ids].T
            yield lambda head=head, relation=relation, tail=tail: model.loss(head, relation, tail)
