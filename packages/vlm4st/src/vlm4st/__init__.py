"""Forecasts of grids with a vision-language backbone (VLM4ST): layers of ALBEF behind small trained modules.

Public names are loaded when they are first used, so that importing the package imports no torch. The functions
`vlm4st.train.train`, `vlm4st.evaluate.evaluate` and `vlm4st.few_shot.few_shot` live in modules of their names.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlm4st.config import FewShotConfig, LossConfig, TrainConfig
    from vlm4st.data_options import DataConfig
    from vlm4st.models import build
    from vlm4st.models.configs import ModelConfig
    from vlm4st.models.vlm4st import VLM4ST
    from vlm4st.predict import Forecaster
    from vlm4st.presets import PRESETS

_HOMES = {
    "DataConfig": "vlm4st.data_options",
    "FewShotConfig": "vlm4st.config",
    "Forecaster": "vlm4st.predict",
    "LossConfig": "vlm4st.config",
    "ModelConfig": "vlm4st.models.configs",
    "PRESETS": "vlm4st.presets",
    "TrainConfig": "vlm4st.config",
    "VLM4ST": "vlm4st.models.vlm4st",
    "build": "vlm4st.models",
}

__all__ = [
    "PRESETS",
    "VLM4ST",
    "DataConfig",
    "FewShotConfig",
    "Forecaster",
    "LossConfig",
    "ModelConfig",
    "TrainConfig",
    "build",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vlm4st' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
