"""Forms and sizes of the diffusion model, as frozen dataclasses.

Standard library only, so that reading or checking a configuration never imports torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, get_args

from stcore.errors import UserError
from stcore.option_checks import require_choice, require_option
from stcore.training.config import LoopConfig

Strategy = Literal["pre-inductive", "pre", "pre-adaptive", "post-adaptive", "adaptive-norm"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
"""How prompts reach the denoiser; the first to fifth are the original's Trans1 to Trans5."""
ALIASES: dict[str, Strategy] = {f"trans{number}": name for number, name in enumerate(STRATEGIES, start=1)}
WINDOWED: tuple[Strategy, ...] = ("pre-inductive", "post-adaptive", "adaptive-norm")
"""Strategies whose tokens attend to their neighbours; those of the others attend to all."""
MIXED: tuple[Strategy, ...] = ("pre", "pre-adaptive")

Layout = Literal["layerwise", "legacy"]
SpatialOn = Literal["graph", "none"]
Scaling = Literal["entry", "group", "raw"]
ScheduleKind = Literal["linear", "cosine"]
BetaScale = Literal["auto", "legacy"]
Target = Literal["v", "noise", "x0"]

STEPS_OF_LEGACY = 500
"""From so many steps on, the original's linear schedule ends in noise."""
MOST_SIGNAL = 0.2
"""Share of the clean row that may be left at the last step; sampling starts from none of it."""


def strategy_named(name: str) -> Strategy:
    """Return the strategy that a name stands for, the original's `Trans1` to `Trans5` included.

    Raises:
        UserError: there is none.

    >>> strategy_named("Trans1"), strategy_named("adaptive-norm")
    ('pre-inductive', 'adaptive-norm')
    """
    low = name.lower()
    for known in STRATEGIES:
        if low == known or ALIASES.get(low) == known:
            return known
    raise UserError(f"denoiser.strategy: {name!r}; expected one of {', '.join(STRATEGIES)}")


@dataclass(frozen=True, kw_only=True)
class DenoiserConfig:
    """The transformer over tokens of a row that tells noise from parameters (paper, section 4.3)."""

    strategy: Strategy = "adaptive-norm"
    """Where prompts enter: added to the tokens, the spatial one to those of graph layers only (pre-inductive), added
    before each block (pre), weighted per token and added before each block (pre-adaptive), weighted per token inside
    each block (post-adaptive), or as scales, shifts and gates of each block's norms (adaptive-norm)."""
    width: int = 256
    """Width of the tokens (D), even."""
    blocks: int = 4
    """Blocks."""
    heads: int = 8
    """Heads of the attention."""
    head_dim: int = 16
    """Width of a query and of a key of one head (windowed strategies)."""
    value_dim: int = 16
    """Width of a value of one head (windowed strategies)."""
    window: int = 5
    """Neighbours on each side that a token attends to (windowed strategies); 0: all tokens."""
    feedforward: int = 1024
    """Hidden width of the blocks' perceptrons."""
    dropout: float = 0.1
    """Share of values dropped behind each branch."""
    layout: Layout = "layerwise"
    """What a token is: neighbouring numbers of one layer (layerwise), or numbers strided over the whole row, as in the
    original (legacy)."""
    channels: int = 0
    """Numbers in a token (C); 0 takes 64 for rows of up to 32,768 numbers and 256 for longer ones."""
    spatial_on: SpatialOn = "graph"
    """Tokens that the spatial prompt is added to (pre-inductive): those of layers that mix over the graph, or none, as
    in the original's traffic runs."""
    token_embeddings: bool = True
    """Learn a vector for each kind of layer and for each depth, added to the tokens (layerwise)."""
    final_norm: bool = True
    """Normalise the tokens before they are read out (post-adaptive, adaptive-norm)."""
    zero_gates: bool = True
    """Start blocks as identities (adaptive-norm)."""
    scale: Literal["head", "tokens"] = "head"
    """What scores of the windowed attention are divided by the root of: the width of a head, or, as in the original,
    the number of tokens."""
    legacy_batch_attention: bool = False
    """Attend over the rows of a batch instead of over tokens, as the original does (pre, pre-adaptive). What comes out
    for a node then depends on which others are in its batch; for the original's checkpoints only."""

    def __post_init__(self) -> None:
        require_choice(self, "denoiser", "strategy", STRATEGIES)
        require_choice(self, "denoiser", "layout", get_args(Layout))
        require_choice(self, "denoiser", "spatial_on", get_args(SpatialOn))
        require_choice(self, "denoiser", "scale", ("head", "tokens"))
        for name in ("blocks", "heads", "head_dim", "value_dim", "feedforward"):
            require_option(getattr(self, name) >= 1, "denoiser", name, getattr(self, name), "at least 1")
        for name in ("window", "channels"):
            require_option(getattr(self, name) >= 0, "denoiser", name, getattr(self, name), "0 or more")
        require_option(
            self.width >= 4 and self.width % 2 == 0, "denoiser", "width", self.width, "an even number from 4 on"
        )
        require_option(0.0 <= self.dropout < 1.0, "denoiser", "dropout", self.dropout, "a share in [0, 1)")
        if self.strategy in MIXED:
            fits = self.width % self.heads == 0
            require_option(
                fits, "denoiser", "width", self.width, f"a multiple of the {self.heads} heads with {self.strategy}"
            )
        elif self.legacy_batch_attention:
            raise UserError(
                f"denoiser.legacy-batch-attention: with {self.strategy}; expected one of {', '.join(MIXED)}"
            )

    @property
    def windowed(self) -> bool:
        """Whether the attention is the original's own, over neighbours."""
        return self.strategy in WINDOWED

    def channels_for(self, numbers: int) -> int:
        """Return the numbers in a token for rows of so many.

        >>> DenoiserConfig().channels_for(16_960), DenoiserConfig().channels_for(78_528)
        (64, 256)
        """
        return self.channels or (64 if numbers <= 2**15 else 256)


def original_denoiser(strategy: str, *, width: int = 512, channels: int = 0) -> DenoiserConfig:
    """Return the denoiser as the original has it, with its options of attention, tokens and norms."""
    known = strategy_named(strategy)
    first = known == "pre-inductive"
    return DenoiserConfig(
        strategy=known, width=width, blocks=3 if first else 4, dropout=0.2 if first else 0.1,
        heads=8 if known in MIXED else 10, head_dim=10, value_dim=10, window=5, feedforward=2048, layout="legacy",
        channels=channels, token_embeddings=False, final_norm=False, zero_gates=False, scale="tokens",
        legacy_batch_attention=known in MIXED,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """The way from rows to noise, what the denoiser is trained to tell, and how (paper, section 4.2)."""

    steps: int = 500
    """Steps from a clean row to noise (T)."""
    schedule: ScheduleKind = "linear"
    """How noise grows over the steps."""
    beta_scale: BetaScale = "auto"
    """Scale of the linear schedule: the original's own from 500 steps on, for fewer steps as much steeper as it takes
    to end in noise (auto); or the original's for any number (legacy)."""
    objective: Target = "v"
    """What the denoiser tells: the velocity, the noise, or the clean row."""
    loss: Literal["l2", "l1"] = "l2"
    """Squared or absolute error."""
    scaling: Scaling = "entry"
    """What makes rows fit for diffusion: the mean of each number over the training rows and the deviation of its kind
    of layer (entry), which tells networks apart that were trained from one start; mean and deviation of each kind of
    layer (group), for networks with starts of their own; nothing, as in the original (raw)."""
    prompt_dropout: float = 0.1
    """Share of training rows that are seen without prompts, which guidance needs."""
    batch: int = 64
    """Rows in a step, over all processes."""
    repeat: int = 30
    """Passes over the training rows that make an epoch; evaluations come between epochs."""
    learning_rate: float = 8e-5
    """Learning rate of Adam."""
    beta2: float = 0.99
    """Decay of Adam's second moment."""
    ema_after: int = 100
    """Steps before weights are averaged (with the decay in `fit.ema_decay`)."""
    ema_every: int = 10
    """Steps between updates of the average."""
    held_out: str = ""
    """A source city whose rows are not trained on, but decide which weights are best."""
    validation: float = 0.1
    """Share of the rows that are held back for that where no city is; 0 keeps the last weights."""

    def __post_init__(self) -> None:
        require_choice(self, "diffusion", "schedule", get_args(ScheduleKind))
        require_choice(self, "diffusion", "beta_scale", get_args(BetaScale))
        require_choice(self, "diffusion", "objective", get_args(Target))
        require_choice(self, "diffusion", "loss", ("l2", "l1"))
        require_choice(self, "diffusion", "scaling", get_args(Scaling))
        require_option(2 <= self.steps <= 100_000, "diffusion", "steps", self.steps, "2 to 100,000")
        for name in ("batch", "repeat", "ema_every"):
            require_option(getattr(self, name) >= 1, "diffusion", name, getattr(self, name), "at least 1")
        require_option(self.ema_after >= 0, "diffusion", "ema_after", self.ema_after, "0 or more")
        for name in ("prompt_dropout", "validation", "beta2"):
            require_option(
                0.0 <= getattr(self, name) < 1.0, "diffusion", name, getattr(self, name), "a share in [0, 1)"
            )
        good = 0.0 < self.learning_rate < 10.0
        require_option(good, "diffusion", "learning_rate", self.learning_rate, "a number in (0, 10)")
        left = math.sqrt(math.prod(1.0 - beta for beta in betas(self.steps, self.schedule, self.beta_scale)))
        if left > MOST_SIGNAL:
            raise UserError(f"diffusion.steps: {self.steps} with the {self.schedule} schedule leave {left:.2f} of a "
                            f"row at the last step; expected at most {MOST_SIGNAL:g}, since sampling starts from "
                            "noise; use more steps, or --diffusion.beta-scale auto")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How rows are generated."""

    method: Literal["ddim", "ancestral"] = "ddim"
    """In few steps without further noise (ddim), or in all steps (ancestral), as the original."""
    steps: int = 25
    """Steps (ddim)."""
    eta: float = 0.0
    """Share of the ancestral noise that is added in each step (ddim)."""
    batch: int = 32
    """Rows at once; changes memory and time, not the result."""
    guidance: float = 1.0
    """How far to go in the direction of the prompts; 1 follows them as trained, and costs half."""
    clip: Literal["range", "legacy", "none"] = "range"
    """Bounds of the clean row in each step: those of the training rows of each kind of layer, a tenth wider (range), -1
    and 1 (legacy), or none."""
    draws: int = 1
    """Rows that are drawn for each node and averaged."""

    def __post_init__(self) -> None:
        require_choice(self, "sampling", "method", ("ddim", "ancestral"))
        require_choice(self, "sampling", "clip", ("range", "legacy", "none"))
        for name in ("steps", "batch", "draws"):
            require_option(getattr(self, name) >= 1, "sampling", name, getattr(self, name), "at least 1")
        require_option(0.0 <= self.eta <= 1.0, "sampling", "eta", self.eta, "a number from 0 to 1")
        require_option(0.0 <= self.guidance < math.inf, "sampling", "guidance", self.guidance, "a number, 0 or more")


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """What a training of the diffusion model was asked for; it is kept in the run of that stage."""

    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    fit: LoopConfig = field(default_factory=LoopConfig)
    seed: int = 42


def betas(steps: int, kind: ScheduleKind, scale: BetaScale = "auto") -> list[float]:
    """Return the variance of the noise that each step adds (Ho et al. 2020; Nichol and Dhariwal 2021, eq. 17).

    The linear schedule runs from 1e-5 to 0.02 and is not scaled with the number of steps in the original.

    >>> [round(beta, 4) for beta in betas(3, "linear", "legacy")]
    [0.0, 0.01, 0.02]
    """
    if kind == "cosine":
        bars = [_cosine(step / steps) for step in range(steps + 1)]
        return [min(max(1.0 - after / before, 0.0), 0.999) for before, after in pairwise(bars)]
    first, last = 1e-5, 0.02
    steeper = 1000.0 / steps if scale == "auto" and steps < STEPS_OF_LEGACY else 1.0
    return [min(steeper * (first + (last - first) * step / (steps - 1)), 0.999) for step in range(steps)]


def _cosine(share: float, offset: float = 0.008) -> float:
    return math.cos((share + offset) / (1.0 + offset) * math.pi / 2.0) ** 2
