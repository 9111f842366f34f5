"""Denoisers of the original (Trans1 to Trans5) under our names, and back.

Sizes are read off the tensors. What these do not tell are the heads of the attention, of which only the product with
their width is known, and its window: both are the original's constants unless they are named.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from torch import Tensor

from gpd.diffusion.configs import MIXED, DenoiserConfig, Strategy
from stcore.errors import UserError

Pairs = tuple[tuple[str, str], ...]

_COMMON: Pairs = (
    ("_embedding.", "enter."),
    ("_linear.", "leave."),
    ("step_mlp.1.", "step.0."),
    ("step_mlp.3.", "step.2."),
)
_WINDOWED: Pairs = (
    *((f"layers_encoding.{{}}._selfAttention._W_{theirs}.", f"blocks.{{}}.attention.{ours}.")
      for theirs, ours in (("q", "query"), ("k", "key"), ("v", "value"), ("o", "leave"))),
    ("layers_encoding.{}._feedForward._linear1.", "blocks.{}.perceptron.enter."),
    ("layers_encoding.{}._feedForward._linear2.", "blocks.{}.perceptron.leave."),
    ("layers_encoding.{}._layerNorm1.", "blocks.{}.norm1."),
    ("layers_encoding.{}._layerNorm2.", "blocks.{}.norm2."),
)  # fmt: skip
_LIBRARY: Pairs = (("layers_encoding.{}.", "blocks.{}."),)
_PROMPTS: Pairs = (("kgEmb_linear.", "spatial."), ("timeEmb_linear.", "temporal."))

_NAMES: dict[Strategy, Pairs] = {
    "pre-inductive": (
        *_COMMON,
        *_WINDOWED,
        ("timelinear.", "temporal."),
        ("kgEmb_mlp.0.", "spatial.0."),
        ("kgEmb_mlp.2.", "spatial.2."),
    ),
    "pre": (*_COMMON, *_LIBRARY, ("kgEmb_mlp.0.", "spatial."), ("timeEmb_mlp.0.", "temporal.")),
    "pre-adaptive": (*_COMMON, *_LIBRARY, *_PROMPTS, ("forQueryFunc.0.", "mixture.query.")),
    "post-adaptive": (
        *_COMMON,
        *_WINDOWED,
        *_PROMPTS,
        ("layers_encoding.{}._layerNorm3.", "blocks.{}.norm3."),
        ("layers_encoding.{}._crossAttention.forQueryFunc.0.", "blocks.{}.prompts.query."),
    ),
    "adaptive-norm": (
        *_COMMON,
        *_WINDOWED,
        ("layers_encoding.{}.adaLN_modulation.1.", "blocks.{}.modulation."),
    ),
}
_UNUSED = re.compile(
    r"layers_decoding\..+|last_mlp\..+|timelinear\..+|(kg|time)Emb_(mlp|linear)\..+|layers_encoding\.\d+\._layerNorm3\..+"
)
"""Parameters that the original makes and never uses, in some strategy or in all."""

_HEADS_OF_WINDOWED, _HEADS_OF_LIBRARY, _WINDOW = 10, 8, 5
"""Constants of the original."""


class LegacyDenoiser(NamedTuple):
    """A denoiser of the original under our names."""

    config: DenoiserConfig
    state: dict[str, Tensor]
    dropped: tuple[str, ...]
    """Parameters that the original never uses."""
    channels: int
    """Numbers in a token."""
    spatial_dim: int
    temporal_dim: int


def from_legacy_state_dict(
    state: Mapping[str, Tensor],
    *,
    heads: int = 0,
    window: int = _WINDOW,
    dropout: float | None = None,
    spatial_on: bool = True,
    batch_attention: bool = True,
) -> LegacyDenoiser:
    """Turn the state of a denoiser of the original into ours, with the configuration that it needs.

    Args:
        state: its parameters under the original's names.
        heads: of the attention; 0 takes the original's.
        window: neighbours on each side that a token of Trans1, 4 and 5 attends to.
        dropout: rate in training; None takes the original's.
        spatial_on: add the spatial prompt to the tokens of graph layers (Trans1).
        batch_attention: attend over the batch, as the original does (Trans2, Trans3).

    Raises:
        UserError: it is no denoiser of the original.
    """
    strategy = _strategy_of(state)
    named = {name: _translate(name, _NAMES[strategy]) for name in state}
    dropped = tuple(name for name, ours in named.items() if ours is None and _UNUSED.fullmatch(name))
    unknown = [name for name, ours in named.items() if ours is None and name not in dropped]
    if unknown:
        raise UserError(f"checkpoint: unknown parameter {unknown[0]!r} ({len(unknown)} in all); expected those of a "
                        f"denoiser with {strategy}")  # fmt: skip
    ours = {new: state[name] for name, new in named.items() if new is not None}
    width, channels = ours["enter.weight"].shape
    blocks = _count(ours)
    heads = heads or (_HEADS_OF_LIBRARY if strategy in MIXED else _HEADS_OF_WINDOWED)
    hidden = ours["blocks.0.linear1.weight" if strategy in MIXED else "blocks.0.perceptron.enter.weight"].shape[0]
    sizes: dict[str, int] = {}
    if strategy not in MIXED:
        for name, part in (("head_dim", "query"), ("value_dim", "value")):
            product = ours[f"blocks.0.attention.{part}.weight"].shape[0]
            if product % heads:
                raise UserError(f"checkpoint: {product} rows of {part} for {heads} heads; expected a multiple")
            sizes[name] = product // heads
    config = DenoiserConfig(
        strategy=strategy, width=width, blocks=blocks, heads=heads, window=window, feedforward=hidden,
        dropout=(0.2 if strategy == "pre-inductive" else 0.1) if dropout is None else dropout,
        layout="legacy", channels=channels, spatial_on="graph" if spatial_on else "none", token_embeddings=False,
        final_norm=False, zero_gates=False, scale="tokens",
        legacy_batch_attention=batch_attention and strategy in MIXED, **sizes,
    )  # fmt: skip
    return LegacyDenoiser(config, ours, dropped, channels, *_prompt_dims(state, strategy))


def to_legacy_state_dict(state: Mapping[str, Tensor], strategy: Strategy) -> dict[str, Tensor]:
    """Turn our state into the original's, without what it makes and never uses.

    Raises:
        UserError: a parameter that the original does not have.
    """
    turned = tuple((ours, theirs) for theirs, ours in _NAMES[strategy])
    named = {name: _translate(name, turned) for name in state}
    unknown = [name for name, theirs in named.items() if theirs is None]
    if unknown:
        raise UserError(f"denoiser: the original has no parameter for {unknown[0]!r} ({len(unknown)} in all); expected "
                        "one without embeddings of layers and final norm")  # fmt: skip
    return {theirs: state[name] for name, theirs in named.items() if theirs is not None}


def _strategy_of(state: Mapping[str, Tensor]) -> Strategy:
    names = " ".join(state)
    if "_embedding.weight" not in state or "layers_encoding.0." not in names:
        some = ", ".join(list(state)[:3])
        raise UserError(f"checkpoint: parameters {some or 'none'}; expected those of a denoiser, Trans1 to Trans5")
    if "layers_encoding.0.adaLN_modulation." in names:
        return "adaptive-norm"
    if "layers_encoding.0._crossAttention.forQueryFunc." in names:
        return "post-adaptive"
    if "timelinear.weight" in state:
        return "pre-inductive"
    return "pre-adaptive" if "forQueryFunc.0.weight" in state else "pre"


def _prompt_dims(state: Mapping[str, Tensor], strategy: Strategy) -> tuple[int, int]:
    """Return the widths of the prompts; Trans5 keeps them in layers that it never uses, or not at all."""
    spatial = next((state[name] for name in ("kgEmb_linear.weight", "kgEmb_mlp.0.weight") if name in state), None)
    temporal = state.get("timelinear.weight")
    for name in ("timeEmb_linear.weight", "timeEmb_mlp.0.weight"):
        temporal = state.get(name) if temporal is None else temporal
    if spatial is not None and temporal is not None:
        return spatial.shape[1], temporal.shape[1]
    if strategy != "adaptive-norm":
        raise UserError("checkpoint: no layer of the prompts (kgEmb_…, timeEmb_…); expected both")
    both = state["layers_encoding.0.adaLN_modulation.1.weight"].shape[1]
    return both // 2, both - both // 2


def _count(state: Iterable[str]) -> int:
    found = (re.match(r"blocks\.(\d+)\.", name) for name in state)
    return len({match[1] for match in found if match})


def _translate(name: str, table: Pairs) -> str | None:
    for start, target in table:
        pattern = re.escape(start).replace(r"\{\}", r"(\d+)") + "(.+)"
        if match := re.fullmatch(pattern, name):
            *numbers, rest = match.groups()
            return target.format(*numbers) + rest
    return None
