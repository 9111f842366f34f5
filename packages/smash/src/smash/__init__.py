"""Score matching for marked spatio-temporal point processes (Li et al., ICML 2024), with calibrated uncertainty.

Public names are loaded when they are first used, so that importing the package imports no torch. The functions
`smash.train.train` and `smash.evaluate.evaluate` live in modules of their names.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smash.config import PRESETS, DataConfig, ModelConfig, SamplerConfig, TrainConfig
    from smash.evaluate import Report
    from smash.intensity import rates
    from smash.model import Smash
    from smash.predict import Drawn, Forecaster
    from smash.rollout import predict_steps, predict_within
    from stcore.events import EventSequences

_HOMES = {
    "PRESETS": "smash.config",
    "DataConfig": "smash.config",
    "Drawn": "smash.predict",
    "EventSequences": "stcore.events",
    "Forecaster": "smash.predict",
    "ModelConfig": "smash.config",
    "Report": "smash.evaluate",
    "SamplerConfig": "smash.config",
    "Smash": "smash.model",
    "TrainConfig": "smash.config",
    "predict_steps": "smash.rollout",
    "predict_within": "smash.rollout",
    "rates": "smash.intensity",
}

__all__ = [
    "PRESETS",
    "DataConfig",
    "Drawn",
    "EventSequences",
    "Forecaster",
    "ModelConfig",
    "Report",
    "SamplerConfig",
    "Smash",
    "TrainConfig",
    "predict_steps",
    "predict_within",
    "rates",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'smash' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
