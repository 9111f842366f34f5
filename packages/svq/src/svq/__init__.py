"""Forecasts of fields and frames with SimVP and differentiable sparse vector quantisation (arXiv 2312.03406).

Public names are loaded when they are first used, so that importing the package imports no torch. The functions
`svq.train.train` and `svq.evaluate.evaluate` live in modules of their names.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stcore.grids import GridSeries
    from svq.config import DataConfig, LossConfig, TrainConfig
    from svq.models import FrameShape, QuantizerConfig, SimVPConfig, build
    from svq.models.simvp import SimVP
    from svq.models.sparse import SVQ
    from svq.predict import Forecaster
    from svq.presets import PRESETS

_HOMES = {
    "DataConfig": "svq.config",
    "Forecaster": "svq.predict",
    "FrameShape": "svq.models",
    "GridSeries": "stcore.grids",
    "LossConfig": "svq.config",
    "PRESETS": "svq.presets",
    "QuantizerConfig": "svq.models",
    "SVQ": "svq.models.sparse",
    "SimVP": "svq.models.simvp",
    "SimVPConfig": "svq.models",
    "TrainConfig": "svq.config",
    "build": "svq.models",
}

__all__ = [
    "PRESETS",
    "SVQ",
    "DataConfig",
    "Forecaster",
    "FrameShape",
    "GridSeries",
    "LossConfig",
    "QuantizerConfig",
    "SimVP",
    "SimVPConfig",
    "TrainConfig",
    "build",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'svq' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
