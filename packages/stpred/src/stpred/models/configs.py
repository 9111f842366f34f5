"""Sizes and forms of every forecaster, as frozen dataclasses.

Standard library only, so that reading or checking a configuration never imports torch. `kind` names the model in
files and checkpoints. One section per family of models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from stcore.option_checks import require


class FrameShape(NamedTuple):
    """Channels, rows and columns of the frames a model is built for."""

    channels: int
    height: int
    width: int


@runtime_checkable
class ModelConfig(Protocol):
    """What all configurations share."""

    @property
    def kind(self) -> str:
        """Name of the model in the registry."""
        ...


def require_positive(config: object, *names: str) -> None:
    """Check that integers, or all integers of a tuple, are 1 or more."""
    for name in names:
        value = getattr(config, name)
        values = value if isinstance(value, tuple) else (value,)
        good = bool(values) and all(isinstance(v, int) and v >= 1 for v in values)
        require(good, f"model.{name.replace('_', '-')}", value, "1 or more")


def require_odd(config: object, *names: str) -> None:
    """Check kernel sizes: only odd ones keep the size of a frame."""
    require_positive(config, *names)
    for name in names:
        value = getattr(config, name)
        values = value if isinstance(value, tuple) else (value,)
        require(all(v % 2 for v in values), f"model.{name.replace('_', '-')}", value, "odd kernel sizes")


def require_choice(config: object, name: str, choices: tuple[str, ...]) -> None:
    """Check a named choice; configurations built in Python are not checked by the command line."""
    require(
        getattr(config, name) in choices, f"model.{name.replace('_', '-')}", getattr(config, name), ", ".join(choices)
    )


def require_checkpointing(every: int) -> None:
    """Check the number of steps between kept states."""
    require(every >= 0, "model.checkpoint-every", every, "0 (off) or more steps")


# Encoder and forecaster of dreaming-coder/Spatiotemporal-Prediction: ConvLSTM, TrajGRU.

ValueRange = Literal["unit", "nonnegative", "none"]
"""What a forecast is clamped to: [0, 1], zero and above, or nothing."""
VALUE_RANGES = ("unit", "nonnegative", "none")
Peephole = Literal["reference", "full", "none"]
PEEPHOLES = ("reference", "full", "none")
Update = Literal["corrected", "reference"]
UPDATES = ("corrected", "reference")


@dataclass(frozen=True, kw_only=True)
class ConvLSTMConfig:
    """ConvLSTM, encoder and forecaster (Shi et al. 2015)."""

    kind: Literal["convlstm"] = "convlstm"
    hidden: tuple[int, ...] = (128, 64, 64)
    """Width of each layer; encoder and forecaster have the same."""
    kernels: tuple[int, ...] = (5, 5, 5)
    """Kernel of each layer, odd."""
    patch: int = 4
    """Side of the patches that frames are cut into; 1 leaves them whole."""
    peephole: Peephole = "reference"
    """Gates that see the cell state: input and output (reference, as in the original), the forget gate too (full, as in
    the paper), none of them (none; the only form that takes frames of any size)."""
    forget_bias: float = 0.01
    """Added to the forget gate before its sigmoid."""
    clamp: ValueRange = "unit"
    """Range of the forecast."""
    clamp_in_loss: bool = True
    """Clamp before the loss as the original does: pixels out of range then have no gradient. False: forecasts only."""
    checkpoint_every: int = 0
    """Steps between kept states in training; what lies between is computed again in the backward pass. 0 keeps all."""

    def __post_init__(self) -> None:
        require_positive(self, "hidden", "patch")
        require_odd(self, "kernels")
        equal = len(self.kernels) == len(self.hidden)
        require(equal, "model.kernels", self.kernels, f"one for each of the {len(self.hidden)} layers of model.hidden")
        require_choice(self, "peephole", PEEPHOLES)
        require_choice(self, "clamp", VALUE_RANGES)
        require_checkpointing(self.checkpoint_every)


@dataclass(frozen=True, kw_only=True)
class TrajGRUConfig:
    """TrajGRU, encoder and forecaster of three levels (Shi et al. 2017). Defaults: the original's for Moving MNIST."""

    kind: Literal["trajgru"] = "trajgru"
    stem: int = 8
    """Width of the first convolution and of the head."""
    hidden: tuple[int, int, int] = (64, 96, 128)
    """Widths of the encoder's layers, finest first; the forecaster has the same, coarsest first."""
    kernels: tuple[int, int, int] = (5, 5, 3)
    """Kernels of the encoder's layers, 3 or 5."""
    links: tuple[int, int, int] = (13, 13, 9)
    """Places of the last state that each pixel of the encoder's layers looks at."""
    forecast_kernels: tuple[int, int, int] = (5, 5, 3)
    """Kernels of the forecaster's layers, coarsest first, 3 or 5."""
    forecast_links: tuple[int, int, int] = (13, 13, 9)
    """Links of the forecaster's layers, coarsest first."""
    up: tuple[int, int] = (0, 0)
    """Output widths of the first two transposed convolutions; 0 takes the width of the layer it leads to."""
    patch: int = 1
    """Side of the patches that frames are cut into; 1 (as in the original) leaves them whole."""
    update: Update = "corrected"
    """Update of the state: the paper's (corrected), or the original code's, whose gate cancels (for old weights)."""
    resample_act: Literal["none", "leaky"] = "none"
    """What follows the strided convolutions: nothing, or LeakyReLU as in the original before May 2022."""
    clamp: ValueRange = "unit"
    """Range of the forecast."""
    clamp_in_loss: bool = True
    """Clamp before the loss as the original does: pixels out of range then have no gradient. False: forecasts only."""
    checkpoint_every: int = 0
    """Steps between kept states in training; what lies between is computed again in the backward pass. 0 keeps all."""

    def __post_init__(self) -> None:
        require_positive(self, "stem", "hidden", "links", "forecast_links", "patch")
        for name in ("kernels", "forecast_kernels"):
            good = all(k in (3, 5) for k in getattr(self, name))
            require(good, f"model.{name.replace('_', '-')}", getattr(self, name), "kernels of 3 or 5")
        for name in ("hidden", "kernels", "links", "forecast_kernels", "forecast_links"):
            require(
                len(getattr(self, name)) == 3, f"model.{name.replace('_', '-')}", getattr(self, name), "three values"
            )
        good = len(self.up) == 2 and min(self.up) >= 0
        require(good, "model.up", self.up, "two widths, 0 (automatic) or more")
        require_choice(self, "update", UPDATES)
        require_choice(self, "resample_act", ("none", "leaky"))
        require_choice(self, "clamp", VALUE_RANGES)
        require_checkpointing(self.checkpoint_every)


CONVLSTM_MOVING_MNIST = CONVLSTM_KTH = ConvLSTMConfig()
CONVLSTM_TAXIBJ = ConvLSTMConfig(patch=1, clamp="nonnegative")
TRAJGRU_MOVING_MNIST = TrajGRUConfig()
TRAJGRU_KTH = TrajGRUConfig(hidden=(64, 96, 96), up=(96, 96))
TRAJGRU_TAXIBJ = TrajGRUConfig(hidden=(96, 96, 96), links=(5, 5, 9), forecast_links=(5, 5, 9), clamp="nonnegative")
"""Sizes and forms of the original's six networks."""


# Recurrent models of OpenSTL with one stack: ConvLSTM, PredRNN, PredRNN++, PredRNNv2, MIM.


@dataclass(frozen=True, kw_only=True)
class StackConfig:
    """What the recurrent models of OpenSTL have in common."""

    hidden: tuple[int, ...] = (128, 128, 128, 128)
    """Width of each layer."""
    kernel: int = 5
    """Kernel of the gates' convolutions, odd."""
    patch: int = 4
    """Side of the patches that frames are cut into; 1 leaves them whole."""
    layer_norm: bool = False
    """Normalise after each convolution; the model then takes frames of one size only."""
    checkpoint_every: int = 0
    """Steps between kept states in training; what lies between is computed again in the backward pass. 0 keeps all."""

    def __post_init__(self) -> None:
        require_positive(self, "hidden", "patch")
        require_odd(self, "kernel")
        require_checkpointing(self.checkpoint_every)


@dataclass(frozen=True, kw_only=True)
class OpenSTLConvLSTMConfig(StackConfig):
    """ConvLSTM that feeds its forecast back (Shi et al. 2015, as in OpenSTL); the defaults are ConvLSTM-S."""

    kind: Literal["openstl-convlstm"] = "openstl-convlstm"


@dataclass(frozen=True, kw_only=True)
class _MemoryConfig(StackConfig):
    def __post_init__(self) -> None:
        super().__post_init__()
        equal = len(set(self.hidden)) == 1
        require(equal, "model.hidden", self.hidden, "equal widths: one memory travels through all layers")


@dataclass(frozen=True, kw_only=True)
class PredRNNConfig(_MemoryConfig):
    """PredRNN (Wang et al. 2017)."""

    kind: Literal["predrnn"] = "predrnn"


@dataclass(frozen=True, kw_only=True)
class PredRNNppConfig(_MemoryConfig):
    """PredRNN++ (Wang et al. 2018)."""

    kind: Literal["predrnnpp"] = "predrnnpp"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(self.hidden) > 1, "model.hidden", self.hidden, "two layers or more, with the highway between")


@dataclass(frozen=True, kw_only=True)
class PredRNNv2Config(_MemoryConfig):
    """PredRNNv2 (Wang et al. 2022)."""

    kind: Literal["predrnnv2"] = "predrnnv2"
    decoupling: float = 0.1
    """Weight of the loss that keeps the two memories apart (OpenSTL takes 0.01 for KTH)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.decoupling >= 0, "model.decoupling", self.decoupling, "0 or more")


@dataclass(frozen=True, kw_only=True)
class MIMConfig(_MemoryConfig):
    """Memory in Memory (Wang et al. 2019)."""

    kind: Literal["mim"] = "mim"
    detach_stationary: bool = True
    """Cut the gradient through the stationary cell memory at each step, as OpenSTL does."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(self.hidden) > 1, "model.hidden", self.hidden, "two layers or more, with differences between them")


# Further models of OpenSTL: E3D-LSTM, PhyDNet, MAU.


@dataclass(frozen=True, kw_only=True)
class E3DLSTMConfig:
    """E3D-LSTM, eidetic memory over 3-D convolutions (Wang et al. 2019)."""

    kind: Literal["e3dlstm"] = "e3dlstm"
    hidden: tuple[int, ...] = (128, 128, 128, 128)
    """Width of each layer; all are equal."""
    kernel: int = 5
    """Rows and columns of the kernel, odd."""
    window: int = 2
    """Frames that lie behind one another along the depth axis; also the depth of the kernel."""
    stride: int = 1
    """Stride of the convolutions, whose results are enlarged again; 2 saves work on large frames."""
    patch: int = 4
    """Side of the patches that frames are cut into; 1 leaves them whole."""
    memory: Literal["correct", "reference"] = "correct"
    """Spatio-temporal memory: carried from cell to cell (correct), or always zero as in OpenSTL (for its weights)."""
    checkpoint_every: int = 0
    """Steps between kept states in training; what lies between is computed again in the backward pass. 0 keeps all."""

    def __post_init__(self) -> None:
        require_positive(self, "hidden", "window", "stride", "patch")
        require_odd(self, "kernel")
        equal = len(set(self.hidden)) == 1
        require(equal, "model.hidden", self.hidden, "equal widths: one memory travels through all layers")
        require_checkpointing(self.checkpoint_every)
        require_choice(self, "memory", ("correct", "reference"))


@dataclass(frozen=True, kw_only=True)
class PhyDNetConfig:
    """PhyDNet, a physical branch of learned derivatives beside a residual branch (Le Guen and Thome 2020)."""

    kind: Literal["phydnet"] = "phydnet"
    downsample: Literal[2, 4] = 4
    """How much smaller the latent frames are than the frames (OpenSTL calls it the patch size)."""
    encoder_width: int = 32
    """Width of the outer blocks of encoder and decoder, a multiple of 16."""
    width: int = 64
    """Width of the latent frames and of the physical cell, a multiple of 16."""
    hidden: tuple[int, ...] = (128, 128, 64)
    """Widths of the residual branch's ConvLSTM layers; the last is that of the latent frames."""
    kernel: int = 7
    """Kernel of the derivatives, odd; their number is its square."""
    checkpoint_every: int = 0
    """Steps between kept states in training; what lies between is computed again in the backward pass. 0 keeps all."""

    def __post_init__(self) -> None:
        require(self.downsample in (2, 4), "model.downsample", self.downsample, "2 or 4")
        require_positive(self, "encoder_width", "width", "hidden")
        require_odd(self, "kernel")
        require(self.encoder_width % 16 == 0, "model.encoder-width", self.encoder_width, "a multiple of 16")
        require(self.width % 16 == 0, "model.width", self.width, "a multiple of 16")
        last = self.hidden[-1] == self.width
        require(last, "model.hidden", self.hidden, f"the last to be model.width, {self.width}")
        require_checkpointing(self.checkpoint_every)


@dataclass(frozen=True, kw_only=True)
class MAUConfig:
    """MAU, motion-aware units with attention over their last states (Chang et al. 2021)."""

    kind: Literal["mau"] = "mau"
    hidden: tuple[int, ...] = (64, 64, 64, 64)
    """Width of each layer; all are equal, encoder and decoder too."""
    kernel: int = 5
    """Kernel of the units, odd."""
    window: int = 5
    """Earlier steps that a unit attends to."""
    downsample: int = 4
    """How much smaller the encoded frames are, a power of two."""
    patch: int = 1
    """Side of the patches that frames are cut into; 1 (all published runs) leaves them whole."""
    cell: Literal["normal", "residual"] = "normal"
    """Whether a unit adds its spatial input to its spatial output (residual)."""
    mode: Literal["normal", "recall"] = "normal"
    """Whether the decoder adds the encoder's features of the same size (recall)."""
    checkpoint_every: int = 0
    """Steps between kept states in training; what lies between is computed again in the backward pass. 0 keeps all."""

    def __post_init__(self) -> None:
        require_positive(self, "hidden", "window", "downsample", "patch")
        require_odd(self, "kernel")
        equal = len(set(self.hidden)) == 1
        require(equal, "model.hidden", self.hidden, "equal widths: each layer adds to what it gets")
        require_checkpointing(self.checkpoint_every)
        require(self.downsample.bit_count() == 1, "model.downsample", self.downsample, "a power of two")
        require_choice(self, "cell", ("normal", "residual"))
        require_choice(self, "mode", ("normal", "recall"))
