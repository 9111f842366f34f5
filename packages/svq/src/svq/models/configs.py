"""Sizes and forms of the forecaster and of what stands between its parts, as frozen dataclasses.

Standard library only, so that reading or checking a configuration never imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from stcore.errors import UserError
from stcore.option_checks import require_choice, require_option

Translator = Literal[
    "gsta",
    "incepu",
    "tau",
    "van",
    "convmixer",
    "convnext",
    "hornet",
    "mlp-mixer",
    "moganet",
    "poolformer",
    "swin",
    "uniformer",
    "vit",
]
TRANSLATORS: tuple[Translator, ...] = get_args(Translator)
"""What turns the latent frames of the past into those of the future: IncepU (SimVP) or a stack of MetaFormer blocks."""
ALIASES: dict[str, Translator] = {"mlp": "mlp-mixer", "mlpmixer": "mlp-mixer", "moga": "moganet"}
"""Further names that OpenSTL gives to some of them."""

Kind = Literal[
    "none",
    "svq",
    "control",
    "vq",
    "residual-vq",
    "residual-vq-stochastic",
    "grouped-residual-vq",
    "multi-head-vq",
    "lfq",
    "residual-lfq",
    "residual-fsq",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
COMPARISONS: tuple[Kind, ...] = KINDS[3:]
"""Quantisers of vector-quantize-pytorch."""
CodebookInit = Literal["normal", "kaiming", "xavier", "sparse", "trunc", "orthogonal", "random"]
INITS: tuple[CodebookInit, ...] = get_args(CodebookInit)


class FrameShape(NamedTuple):
    """Channels, rows and columns of the frames a model is built for."""

    channels: int
    height: int
    width: int


def translator_named(name: str) -> Translator:
    """Return the translator that a name of OpenSTL's stands for, in any case.

    Raises:
        UserError: there is none.

    >>> translator_named("gSTA"), translator_named("MogaNet"), translator_named("mlp")
    ('gsta', 'moganet', 'mlp-mixer')
    """
    low = name.lower()
    for known in TRANSLATORS:
        if low == known or ALIASES.get(low) == known:
            return known
    raise UserError(f"model.translator: {name!r}; expected one of {', '.join(TRANSLATORS)}")


@dataclass(frozen=True, kw_only=True)
class SimVPConfig:
    """SimVP: encoder of single frames, translator over all of them, decoder (Gao et al. 2022; Tan et al. 2022)."""

    translator: Translator = "gsta"
    """What turns the latent frames of the past into those of the future."""
    hid_spatial: int = 64
    """Channels of the latent frames (S), even."""
    hid_temporal: int = 512
    """Channels inside the translator (D)."""
    depth_spatial: int = 4
    """Layers of the encoder, and of the decoder (N_S); every second one halves the sides of the frame."""
    depth_temporal: int = 8
    """Blocks of the translator (N_T)."""
    kernel_encoder: int = 3
    """Kernel of the encoder's convolutions, odd."""
    kernel_decoder: int = 3
    """Kernel of the decoder's convolutions, odd."""
    mlp_ratio: float = 8.0
    """Hidden width of the blocks' perceptrons over their width."""
    dropout: float = 0.0
    """Share of values dropped in the blocks' perceptrons."""
    drop_path: float = 0.0
    """Share of samples that skip the last block's branches (stochastic depth); earlier blocks have less."""
    legacy_drop_path: bool = False
    """First block with a rate of 0.01, whatever drop_path is, as in OpenSTL; false: with 0."""
    periodic_longitude: bool = False
    """Convolutions go around along the width, as a globe does; false: beyond the border there are zeros."""
    residual: Literal["none", "damped"] = "none"
    """What the decoder's frames are added to: nothing, as published, or the last known frame times a share that is
    learnt for each lead time and channel; with `data.anomalies` training starts from damped persistence."""

    def __post_init__(self) -> None:
        require_choice(self, "model", "translator", TRANSLATORS)
        require_choice(self, "model", "residual", ("none", "damped"))
        for name in ("hid_spatial", "hid_temporal", "depth_spatial", "depth_temporal"):
            require_option(getattr(self, name) >= 1, "model", name, getattr(self, name), "1 or more")
        require_option(self.hid_spatial % 2 == 0, "model", "hid_spatial", self.hid_spatial, "an even number")
        even = self.depth_spatial % 2 == 0
        require_option(even, "model", "depth_spatial", self.depth_spatial, "an even number: layers come in pairs")
        require_option(self.depth_temporal >= 2, "model", "depth_temporal", self.depth_temporal, "2 or more")
        for name in ("kernel_encoder", "kernel_decoder"):
            value = getattr(self, name)
            require_option(value >= 1 and value % 2 == 1, "model", name, value, "an odd number")
        require_option(self.mlp_ratio > 0, "model", "mlp_ratio", self.mlp_ratio, "more than 0")
        for name in ("dropout", "drop_path"):
            require_option(0 <= getattr(self, name) < 1, "model", name, getattr(self, name), "0 or more and below 1")


@dataclass(frozen=True, kw_only=True)
class QuantizerConfig:
    """What the latent frames pass through before the translator, or behind it."""

    kind: Kind = "svq"
    """Nothing, SVQ (Chen et al.), a perceptron without codebook as its control, or a quantiser to compare with."""
    codebook_size: int = 10_000
    """Codes (K)."""
    middle: int = 128
    """Hidden width of SVQ's perceptron (k); at most as many as there are codes."""
    hidden_relu: bool = True
    """ReLU behind the perceptron's first layer."""
    out_relu: bool = False
    """ReLU on the code weights; these must then be computed one by one, which costs time."""
    nonlinear: bool = True
    """Code weights from a perceptron of two layers; false: from one linear layer."""
    init: CodebookInit = "normal"
    """Distribution of the first codebook."""
    freeze_codebook: bool = False
    """Keep the codebook as it was drawn."""
    freeze_projection: bool = False
    """Keep the perceptron as it was drawn."""
    post: bool = False
    """Stand behind the translator instead of before it."""
    noise_ratio: float = 0.0
    """Share of the values of a training batch that are multiplied by a random number between -2 and 2."""
    sparsity: float = 0.0
    """Weight of the mean absolute code weight in the loss; above 0, code weights are computed one by one."""
    quantizers: int = 8
    """Quantisers in a row (residual kinds)."""
    groups: int = 2
    """Groups of channels with quantisers of their own (grouped-residual-vq)."""
    heads: int = 8
    """Heads (multi-head-vq)."""
    head_dim: int = 32
    """Channels of a code of one head (multi-head-vq)."""
    decay: float = 0.8
    """Of the moving averages that the codes are (vq kinds)."""
    commitment: float = 1.0
    """Weight of the commitment loss (vq kinds)."""
    temperature: float = 0.1
    """Of the draw of a code (residual-vq-stochastic)."""
    entropy_weight: float = 0.1
    """Weight of the entropy loss (lfq kinds)."""
    diversity: float = 1.0
    """Weight of the diversity of codes in the entropy loss (lfq kinds)."""
    levels: tuple[int, ...] = (8, 5, 5, 3)
    """Levels of each channel (residual-fsq)."""

    def __post_init__(self) -> None:
        require_choice(self, "quantizer", "kind", KINDS)
        require_choice(self, "quantizer", "init", INITS)
        for name in ("codebook_size", "middle", "quantizers", "groups", "heads", "head_dim"):
            require_option(getattr(self, name) >= 1, "quantizer", name, getattr(self, name), "1 or more")
        for name in ("sparsity", "commitment", "entropy_weight", "diversity"):
            require_option(getattr(self, name) >= 0, "quantizer", name, getattr(self, name), "0 or more")
        require_option(0 <= self.noise_ratio <= 1, "quantizer", "noise_ratio", self.noise_ratio, "a share from 0 to 1")
        require_option(0 < self.decay < 1, "quantizer", "decay", self.decay, "between 0 and 1")
        require_option(self.temperature > 0, "quantizer", "temperature", self.temperature, "more than 0")
        good = bool(self.levels) and all(level >= 2 for level in self.levels)
        require_option(good, "quantizer", "levels", self.levels, "2 or more for each channel")
        if self.kind in ("lfq", "residual-lfq"):
            power = self.codebook_size >= 2 and self.codebook_size.bit_count() == 1
            require_option(power, "quantizer", "codebook_size", self.codebook_size, f"a power of two for {self.kind}")
        if self.sparsity and self.kind != "svq":
            raise UserError(f"quantizer.sparsity: {self.sparsity:g} with {self.kind}; expected 0: only svq has codes")

    @property
    def hidden(self) -> int:
        """Hidden width that SVQ's perceptron really has."""
        return min(self.middle, self.codebook_size)
