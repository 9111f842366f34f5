"""Every option of stpred as frozen dataclasses, and the named runs.

Standard library only, so that reading or checking a configuration never imports torch. Presets are named
`<data set>/<model>`. Those of `convlstm` and `trajgru` have the settings of the original's `main.py`
(github.com/dreaming-coder/Spatiotemporal-Prediction), the others those of OpenSTL's configurations
(github.com/chengtan9907/OpenSTL, `configs/`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from stcore.option_checks import require
from stcore.readers.grid_options import GridReadOptions
from stcore.training.config import AdamConfig, LoopConfig
from stpred.models import configs as models
from stpred.models.configs import (
    ConvLSTMConfig,
    E3DLSTMConfig,
    MAUConfig,
    MIMConfig,
    OpenSTLConvLSTMConfig,
    PhyDNetConfig,
    PredRNNConfig,
    PredRNNppConfig,
    PredRNNv2Config,
    TrajGRUConfig,
)

ModelChoice = (
    ConvLSTMConfig
    | TrajGRUConfig
    | OpenSTLConvLSTMConfig
    | PredRNNConfig
    | PredRNNppConfig
    | PredRNNv2Config
    | MIMConfig
    | E3DLSTMConfig
    | PhyDNetConfig
    | MAUConfig
)
"""One of the models; `kind` says which."""


@dataclass(frozen=True, kw_only=True)
class DigitsConfig:
    """Moving digits made on the fly, new ones in every epoch of training, where `data.source` is digits: an idx file of
    MNIST, a folder with one, or `digits` (those of scikit-learn). Other sources are read as they are."""

    sequences: int = 0
    """Sequences in an epoch of training, a tenth of it in validation and test; 0 makes none and reads the source."""
    digits: int = 2
    """Digits in a sequence."""
    canvas: int = 64
    """Height and width of a frame; digits shrink with it."""
    speed: float = 0.1
    """Step from frame to frame, as a share of the way from wall to wall."""

    def __post_init__(self) -> None:
        require(self.sequences >= 0, "data.generate.sequences", self.sequences, "0 (none) or more")
        require(self.digits >= 1, "data.generate.digits", self.digits, "at least 1")
        require(self.canvas >= 8, "data.generate.canvas", self.canvas, "at least 8")
        require(0.0 <= self.speed <= 1.0, "data.generate.speed", self.speed, "a share from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class DataConfig(GridReadOptions):
    """Where the frames come from, how they are read, and how they become batches."""

    history: int = 10
    """Frames that are given."""
    horizon: int = 10
    """Frames that are forecast in training."""
    stride: int = 1
    """Frames from the start of one window to the start of the next."""
    windows: Literal["forward", "kth"] = "forward"
    """How windows are laid: every `stride` frames, or by the rule of KTH (from the end; 3 frames for running)."""
    scaling: Literal["auto", "range", "fit", "standard", "none"] = "auto"
    """What maps values to what models see: the declared range to [0, 1], the range of the training part to [0, 1], its
    mean and deviation to 0 and 1, or nothing; `auto` takes the declared range where there is one, else the fitted."""
    batch: int = 16
    """Windows in a batch."""
    generate: DigitsConfig = field(default_factory=DigitsConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("history", "horizon", "stride", "batch"):
            require(getattr(self, name) >= 1, f"data.{name}", getattr(self, name), "at least 1")


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """How the learning rate changes."""

    kind: Literal["constant", "one-cycle", "cosine"] = "constant"
    """Not at all; per step, up over 30 % of the run and down (one-cycle); per epoch, 5 up and then a cosine down."""
    warmup: float = 0.3
    """Share of the run on the way up (one-cycle)."""
    final_divisor: float = 1e4
    """First rate over the last one (one-cycle; the first is a 25th of the highest)."""
    warmup_epochs: int = 5
    """Epochs on the way up (cosine)."""

    def __post_init__(self) -> None:
        require(0.0 <= self.warmup < 1.0, "schedule.warmup", self.warmup, "a share in [0, 1)")
        require(self.final_divisor >= 1.0, "schedule.final-divisor", self.final_divisor, "at least 1")
        require(self.warmup_epochs >= 0, "schedule.warmup-epochs", self.warmup_epochs, "0 or more")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """How a trained model is applied."""

    horizon: int = 0
    """Frames to forecast in evaluation and prediction; 0 takes as many as in training."""
    stride: int = 0
    """Frames from the start of one window to the next; 0 takes that of training."""

    def __post_init__(self) -> None:
        for name in ("horizon", "stride"):
            require(getattr(self, name) >= 0, f"evaluate.{name}", getattr(self, name), "0 (as in training) or more")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run of stpred."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelChoice = field(default_factory=ConvLSTMConfig)
    optimiser: AdamConfig = field(default_factory=AdamConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    fit: LoopConfig = field(default_factory=lambda: LoopConfig(epochs=100))
    channels_last: bool = True
    """Store the weights of convolutions channels last, which is faster; changes results by rounding."""
    compile: bool = False
    """Compile the model (torch.compile); changes results by rounding."""
    seed: int = 2022
    """Seed of weights, order and everything drawn."""


@dataclass(frozen=True, kw_only=True)
class _DataSet:
    """What the runs on one data set have in common."""

    data: DataConfig
    published: DataConfig
    """As OpenSTL trains on it, where that differs."""
    epochs: int
    schedule: Literal["one-cycle", "cosine"]
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)


_DIGITS = DataConfig(source=("moving-mnist",), generate=DigitsConfig(sequences=10_000), batch=8)
_KTH = DataConfig(source=("kth",), windows="kth", batch=8)
_TAXIBJ = DataConfig(source=("taxibj",), history=4, horizon=4, batch=32)
_SETS = {
    "moving-mnist": _DataSet(data=_DIGITS, published=replace(_DIGITS, batch=16), epochs=200, schedule="one-cycle"),
    "kth": _DataSet(data=_KTH, published=replace(_KTH, horizon=20, batch=16), epochs=100, schedule="one-cycle",
                    evaluate=EvaluateConfig(horizon=20)),
    "taxibj": _DataSet(data=_TAXIBJ, published=replace(_TAXIBJ, batch=16), epochs=50, schedule="cosine"),
}  # fmt: skip
"""Moving MNIST, KTH and TaxiBJ."""


def _original(dataset: str, model: ModelChoice, *, rate: float, batch: int) -> TrainConfig:
    """Return a run of the original's `main.py`: Adam at a constant rate, up to 1000 epochs."""
    known = _SETS[dataset]
    return TrainConfig(
        data=replace(known.data, batch=batch), model=model, optimiser=AdamConfig(learning_rate=rate),
        evaluate=known.evaluate, fit=LoopConfig(epochs=1000), seed=2022,
    )  # fmt: skip


def _openstl(dataset: str, model: ModelChoice, *, rate: float, batch: int = 16, accumulate: int = 1) -> TrainConfig:
    """Return a run of OpenSTL's benchmark."""
    known = _SETS[dataset]
    return TrainConfig(
        data=replace(known.published, batch=batch), model=model, optimiser=AdamConfig(learning_rate=rate),
        schedule=ScheduleConfig(kind=known.schedule), fit=LoopConfig(epochs=known.epochs, accumulate=accumulate),
        seed=42,
    )  # fmt: skip


_LARGE = (192, 192, 192, 192)
_ORIGINAL = {
    "moving-mnist/convlstm": (models.CONVLSTM_MOVING_MNIST, 1e-3, 8),
    "kth/convlstm": (models.CONVLSTM_KTH, 1e-3, 8),
    "taxibj/convlstm": (models.CONVLSTM_TAXIBJ, 1e-3, 32),
    "moving-mnist/trajgru": (models.TRAJGRU_MOVING_MNIST, 1e-4, 8),
    "kth/trajgru": (models.TRAJGRU_KTH, 1e-4, 4),
    "taxibj/trajgru": (models.TRAJGRU_TAXIBJ, 1e-4, 32),
}
"""Model, learning rate, batch."""
_OPENSTL: dict[str, tuple[ModelChoice, tuple[float, float, float], tuple[int, int, int]]] = {
    "openstl-convlstm": (OpenSTLConvLSTMConfig(), (5e-4, 1e-3, 5e-4), (4, 2, 2)),
    "openstl-convlstm-large": (OpenSTLConvLSTMConfig(hidden=_LARGE), (5e-4, 1e-3, 5e-4), (4, 2, 2)),
    "predrnn": (PredRNNConfig(), (5e-4, 1e-3, 1e-4), (4, 2, 2)),
    "predrnnpp": (PredRNNppConfig(), (1e-4, 1e-3, 1e-4), (4, 2, 2)),
    "predrnnv2": (PredRNNv2Config(), (5e-4, 1e-3, 5e-4), (4, 2, 2)),
    "mim": (MIMConfig(), (5e-4, 1e-4, 1e-2), (4, 4, 2)),
    "e3dlstm": (E3DLSTMConfig(), (1e-4, 5e-4, 5e-3), (4, 8, 2)),
    "phydnet": (PhyDNetConfig(), (1e-3, 1e-3, 5e-4), (4, 4, 2)),
    "mau": (MAUConfig(), (1e-3, 5e-4, 1e-3), (4, 2, 2)),
}
"""Model, learning rates and sides of the patches (or how much latent frames shrink) on the three data sets."""


def _published() -> dict[str, TrainConfig]:
    runs = {name: _original(name.split("/")[0], model, rate=rate, batch=batch)
            for name, (model, rate, batch) in _ORIGINAL.items()}  # fmt: skip
    for name, (model, rates, sides) in _OPENSTL.items():
        shrinks = "downsample" if isinstance(model, PhyDNetConfig | MAUConfig) else "patch"
        for dataset, rate, side in zip(_SETS, rates, sides, strict=True):
            fitted: Any = replace(model, **{shrinks: side})
            runs[f"{dataset}/{name}"] = _openstl(dataset, fitted, rate=rate)
    large = replace(E3DLSTMConfig(), patch=8, stride=2)
    runs["kth/e3dlstm"] = _openstl("kth", large, rate=5e-4, batch=8, accumulate=2)
    runs["kth/predrnnv2"] = replace(runs["kth/predrnnv2"], model=PredRNNv2Config(patch=2, decoupling=0.01))
    return runs


DEMO = TrainConfig(
    data=DataConfig(
        source=("digits",), generate=DigitsConfig(sequences=256, digits=1, canvas=32), history=6, horizon=6, batch=16
    ),
    model=ConvLSTMConfig(hidden=(24, 24), kernels=(5, 5), patch=4, clamp_in_loss=False),
    optimiser=AdamConfig(learning_rate=3e-3),
    schedule=ScheduleConfig(kind="one-cycle"),
    fit=LoopConfig(epochs=12, clip_norm=1.0),
)
"""Small enough for a minute on two cores."""

PRESETS: dict[str, TrainConfig] = {**_published(), "demo": DEMO}
"""The published runs, and the one of `stpred demo`."""
