"""Recurrent video prediction: ConvLSTM, TrajGRU, PredRNN and kin, with `EnhancedModule` and `Trainer`.

Public names are loaded when they are first used, so that importing the package imports no torch. The functions
`stpred.train.train` and `stpred.evaluate.evaluate` live in modules of their names.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stcore.figures_grids import register_dbz_cmap, register_rain_cmap
    from stcore.grids import GridSeries
    from stpred.callbacks import Callback
    from stpred.config import PRESETS, DataConfig, TrainConfig
    from stpred.datasets import KTHDataset, MovingMNISTDataset, TaxiBJDataset
    from stpred.lightning import as_lightning
    from stpred.models import MODELS, FrameShape, build
    from stpred.models.convlstm import ConvLSTM, ConvLSTM_KTH, ConvLSTM_MovingMNIST, ConvLSTM_TaxiBJ, ConvLSTMCell
    from stpred.models.trajgru import TrajGRU_KTH, TrajGRU_MovingMNIST, TrajGRU_TaxiBJ, TrajGRUCell
    from stpred.module import EnhancedModule
    from stpred.patches import reshape_patch, reshape_patch_back
    from stpred.predict import Forecaster
    from stpred.trainer import Trainer

_HOMES = {
    "Callback": "stpred.callbacks",
    "ConvLSTM": "stpred.models.convlstm",
    "ConvLSTMCell": "stpred.models.convlstm",
    "ConvLSTM_KTH": "stpred.models.convlstm",
    "ConvLSTM_MovingMNIST": "stpred.models.convlstm",
    "ConvLSTM_TaxiBJ": "stpred.models.convlstm",
    "DataConfig": "stpred.config",
    "EnhancedModule": "stpred.module",
    "Forecaster": "stpred.predict",
    "FrameShape": "stpred.models",
    "GridSeries": "stcore.grids",
    "KTHDataset": "stpred.datasets",
    "MODELS": "stpred.models",
    "MovingMNISTDataset": "stpred.datasets",
    "PRESETS": "stpred.config",
    "TaxiBJDataset": "stpred.datasets",
    "TrainConfig": "stpred.config",
    "Trainer": "stpred.trainer",
    "TrajGRUCell": "stpred.models.trajgru",
    "TrajGRU_KTH": "stpred.models.trajgru",
    "TrajGRU_MovingMNIST": "stpred.models.trajgru",
    "TrajGRU_TaxiBJ": "stpred.models.trajgru",
    "as_lightning": "stpred.lightning",
    "build": "stpred.models",
    "register_dbz_cmap": "stcore.figures_grids",
    "register_rain_cmap": "stcore.figures_grids",
    "reshape_patch": "stpred.patches",
    "reshape_patch_back": "stpred.patches",
}

__all__ = [
    "MODELS",
    "PRESETS",
    "Callback",
    "ConvLSTM",
    "ConvLSTMCell",
    "ConvLSTM_KTH",
    "ConvLSTM_MovingMNIST",
    "ConvLSTM_TaxiBJ",
    "DataConfig",
    "EnhancedModule",
    "Forecaster",
    "FrameShape",
    "GridSeries",
    "KTHDataset",
    "MovingMNISTDataset",
    "TaxiBJDataset",
    "TrainConfig",
    "Trainer",
    "TrajGRUCell",
    "TrajGRU_KTH",
    "TrajGRU_MovingMNIST",
    "TrajGRU_TaxiBJ",
    "as_lightning",
    "build",
    "register_dbz_cmap",
    "register_rain_cmap",
    "reshape_patch",
    "reshape_patch_back",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'stpred' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
