"""What the shapes of the original's weights tell of their model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor

from stcore.errors import UserError
from svq.convert.names import count, is_linear, translator_of
from svq.convert.original import plain_state
from svq.models.configs import QuantizerConfig, SimVPConfig

_PERCEPTRON = "vq.vq.proj_regression_weight"


class Sizes(NamedTuple):
    """A model as far as its weights tell; the rest is as it was given."""

    simvp: SimVPConfig
    quantizer: QuantizerConfig
    channels: int
    """Channels of the frames."""
    history: int
    """Frames that it reads."""
    cells: int | None
    """Rows × columns of the latent frames, where the weights depend on them (mlp-mixer)."""


def read_sizes(
    content: Mapping[str, object], simvp: SimVPConfig | None = None, quantizer: QuantizerConfig | None = None
) -> Sizes:
    """Read off a checkpoint of the original what it tells.

    Args:
        content: a checkpoint in any of its shapes.
        simvp: says what shapes do not tell, such as stochastic depth.
        quantizer: says what shapes do not tell, such as the place of the quantiser.

    Raises:
        UserError: this is no SimVP.
    """
    state = plain_state(content)
    translator = translator_of(state)
    first = _get(state, "enc.enc.0.conv.conv.weight")
    spatial, channels = first.shape[:2]
    incepu = translator == "incepu"
    joined = _get(state, "hid.enc.0.conv1.weight").shape[1] if incepu else _block_width(state)
    if joined % spatial:
        raise UserError(f"checkpoint: a translator of {joined} channels on latent frames of {spatial}; expected a "
                        "multiple")  # fmt: skip
    depth = count(state, r"hid\.enc\.(\d+)\.")
    temporal = _get(state, "hid.enc.0.layers.0.conv.weight").shape[0] if incepu else _second_width(state, joined)
    ratio = (simvp or SimVPConfig()).mlp_ratio if incepu else _mlp_ratio(state, joined)
    config = replace(
        simvp or SimVPConfig(),
        translator=translator,
        hid_spatial=spatial,
        hid_temporal=temporal,
        depth_spatial=count(state, r"enc\.enc\.(\d+)\."),
        depth_temporal=depth,
        kernel_encoder=first.shape[-1],
        kernel_decoder=_kernel_decoder(state),
        mlp_ratio=ratio if ratio is not None else (simvp or SimVPConfig()).mlp_ratio,
    )
    tokens = state.get("hid.enc.0.block.mlp_tokens.fc1.weight")
    return Sizes(config, _quantizer(state, quantizer or QuantizerConfig(), spatial), channels, joined // spatial,
                 None if tokens is None else tokens.shape[1])  # fmt: skip


def _get(state: Mapping[str, Tensor], name: str) -> Tensor:
    """Return a weight that every SimVP has: of a convolution, or of SVQ's perceptron."""
    if name not in state:
        raise UserError(f"checkpoint: parameter {name!r} is missing; expected those of a SimVP")
    value, axes = state[name], 2 if name.startswith("vq.") else 4
    if value.ndim != axes or not value.numel():
        raise UserError(f"checkpoint: {name} of shape {tuple(value.shape)}; expected {axes} axes, none of them empty")
    return value


def _block_width(state: Mapping[str, Tensor]) -> int:
    for norm in ("norm1", "norm", "norm_1"):
        if (found := state.get(f"hid.enc.0.block.{norm}.weight")) is not None:
            return found.shape[0]
    raise UserError("checkpoint: no normalisation in the translator's first block; expected a SimVP")


def _second_width(state: Mapping[str, Tensor], joined: int) -> int:
    """Width of the translator: the first block's successor is as wide unless something stands between."""
    found = state.get("hid.enc.0.reduction.weight")
    return joined if found is None else found.shape[0]


def _mlp_ratio(state: Mapping[str, Tensor], width: int) -> float | None:
    for name in ("mlp.fc1", "mlp_channels.fc1", "pwconv1"):
        if (found := state.get(f"hid.enc.0.block.{name}.weight")) is not None:
            hidden = found.shape[0]
            ratio = hidden / width
            # Widths are rounded down, so the quotient must not lie below the exact one.
            return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)
    return None


def _kernel_decoder(state: Mapping[str, Tensor]) -> int:
    return _get(state, "dec.dec.1.conv.conv.weight").shape[-1]


def _quantizer(state: Mapping[str, Tensor], given: QuantizerConfig, channels: int) -> QuantizerConfig:
    parts = {name.removeprefix("vq.vq."): value for name, value in state.items() if name.startswith("vq.vq.")}
    if not parts:
        return replace(given, kind="none", sparsity=0.0)
    if "codebook" in parts:
        linear = is_linear(state)
        codes = parts["codebook"].shape[0]
        middle = given.middle if linear else _get(state, f"{_PERCEPTRON}.linear_proj.weight").shape[0]
        # As wide as the codebook may mean that a wider one was asked for.
        middle = given.middle if middle == min(given.middle, codes) else middle
        return replace(given, kind="svq", codebook_size=codes, middle=middle, nonlinear=not linear)
    return _comparison(parts, replace(given, sparsity=0.0), channels)


def _comparison(parts: Mapping[str, Tensor], given: QuantizerConfig, channels: int) -> QuantizerConfig:
    books = {name: value for name, value in parts.items() if name.endswith("_codebook.embed")}
    quantizers = count(parts, r"(?:rvqs\.\d+\.)?layers\.(\d+)\.") or given.quantizers
    if books:
        size, width = next(iter(books.values())).shape[-2:]
        if groups := count(parts, r"rvqs\.(\d+)\."):
            return replace(given, kind="grouped-residual-vq", groups=groups, quantizers=quantizers, codebook_size=size)
        if "layers.0._codebook.embed" in parts:
            kind = "residual-vq-stochastic" if given.kind == "residual-vq-stochastic" else "residual-vq"
            return replace(given, kind=kind, quantizers=quantizers, codebook_size=size)
        # Heads that together are as wide as the latent frames need no projection.
        joined = parts["project_in.weight"].shape[0] if "project_in.weight" in parts else channels
        if (heads := joined // width) > 1:
            return replace(given, kind="multi-head-vq", heads=heads, head_dim=width, codebook_size=size)
        return replace(given, kind="vq", codebook_size=size)
    if "mask" in parts:
        return replace(given, kind="lfq", codebook_size=2 ** len(parts["mask"]))
    if "layers.0.mask" in parts:
        size = 2 ** len(parts["layers.0.mask"])
        return replace(given, kind="residual-lfq", quantizers=quantizers, codebook_size=size)
    return replace(given, kind="residual-fsq")
