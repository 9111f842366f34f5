"""The prompts of all nodes of all cities, from what may be known of each.

Source cities come with their training parts and give all statistics; the target city comes with its few days, and
nothing is fitted to it but embeddings of graphs that have no other way to place a node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from gpd.data import digest
from gpd.prompts.cities import Cities
from gpd.prompts.configs import SpatialPromptConfig, TemporalPromptConfig
from gpd.prompts.file import prompts_from_file
from gpd.prompts.graph_infomax import graph_infomax_prompts
from gpd.prompts.knowledge_graph import knowledge_graph_prompts
from gpd.prompts.masked_autoencoder import masked_autoencoder_prompts
from gpd.prompts.profile import profile_prompts
from gpd.prompts.scaling import balanced
from gpd.prompts.structural import structural_prompts
from gpd.prompts.table import Prompts
from gpd.prompts.union_node2vec import union_node2vec_prompts
from stcore.configuration import to_plain
from stcore.graphs import GraphSeries

_METHODS: dict[str, Callable[..., Any]] = {
    "structural": structural_prompts,
    "union-node2vec": union_node2vec_prompts,
    "knowledge-graph": knowledge_graph_prompts,
    "graph-infomax": graph_infomax_prompts,
    "profile": profile_prompts,
    "masked-autoencoder": masked_autoencoder_prompts,
}


def compute_prompts(
    sources: Sequence[GraphSeries],
    target: GraphSeries | None = None,
    spatial: SpatialPromptConfig | None = None,
    temporal: TemporalPromptConfig | None = None,
    seed: int = 42,
) -> Prompts:
    """Compute the prompts of all nodes.

    Args:
        sources: training parts of the source cities.
        target: the few known days of the target city; its rows come last.
        spatial: what the spatial prompt is made of.
        temporal: what the temporal prompt is made of.
        seed: of everything random; the same seed gives the same prompts.

    Raises:
        UserError: no sources, a name twice, a file that does not fit, or a clock that a method cannot do with.
        Diverged: an embedding's training did.
    """
    cities = Cities.gather(sources, target)
    chosen = (spatial or SpatialPromptConfig(), temporal or TemporalPromptConfig())
    spatial_values, temporal_values = (_values(cities, config, seed) for config in chosen)
    of_row, nodes = cities.names()
    made = {
        "spatial": to_plain(chosen[0]),
        "temporal": to_plain(chosen[1]),
        "seed": seed,
        "sources": [city.name for city in sources],
        "target": None if target is None else target.name,
        "data": {city.name: digest(city) for city in cities.series},
    }
    return Prompts(spatial=spatial_values, temporal=temporal_values, cities=of_row, nodes=nodes, metadata=made)


def _values(
    cities: Cities, config: SpatialPromptConfig | TemporalPromptConfig, seed: int
) -> Float32[ndarray, "row dim"]:
    if config.kind == "none":
        return np.ones((cities.total, config.dim), dtype=np.float32)
    if config.kind == "file":
        return prompts_from_file(Path(config.file), cities).astype(np.float32)
    return balanced(_METHODS[config.kind](cities, config, seed), cities.source_rows)
