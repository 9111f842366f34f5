"""The node-level forecasters. Importing this imports no torch; a model is imported when it is built."""

from __future__ import annotations

from gpd.models.configs import NodeModelConfig, NodeTrainingConfig

__all__ = ["NodeModelConfig", "NodeTrainingConfig"]
