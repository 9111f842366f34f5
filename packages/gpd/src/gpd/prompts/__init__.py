"""Prompts: what the diffusion model is told about a node. Importing this imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpd.prompts.configs import SpatialPromptConfig, TemporalPromptConfig

if TYPE_CHECKING:
    from gpd.prompts.compute import compute_prompts
    from gpd.prompts.retrieval import Retrieval, nearest_rows, score_retrieval
    from gpd.prompts.table import Prompts

__all__ = [
    "Prompts",
    "Retrieval",
    "SpatialPromptConfig",
    "TemporalPromptConfig",
    "compute_prompts",
    "nearest_rows",
    "score_retrieval",
]

_MODULES = {
    "Prompts": "table",
    "compute_prompts": "compute",
    "Retrieval": "retrieval",
    "nearest_rows": "retrieval",
    "score_retrieval": "retrieval",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'gpd.prompts' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"gpd.prompts.{_MODULES[name]}"), name)
