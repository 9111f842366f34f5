"""Names of the original's parameters beside ours.

Each entry holds the beginnings of two names, the original's and ours; `{}` is a number, and an entry without a dot at
its end is a whole name. Values are the same tensors in the same shapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from torch import Tensor

from stcore.errors import UserError
from svq.models.configs import TRANSLATORS, Translator

Pairs = tuple[tuple[str, str], ...]

_SAME: Pairs = tuple((name, name) for name in ("norm1.", "norm2.", "mlp.fc1.", "mlp.fc2."))
_SCALES: Pairs = (("layer_scale_1", "scale1"), ("layer_scale_2", "scale2"))

_GATED: Pairs = (
    *_SAME,
    *_SCALES,
    ("attn.proj_1.", "attention.enter."),
    ("attn.proj_2.", "attention.leave."),
    ("attn.spatial_gating_unit.conv0.", "attention.gate.wide.near."),
    ("attn.spatial_gating_unit.conv_spatial.", "attention.gate.wide.far."),
    ("attn.spatial_gating_unit.conv1.", "attention.gate.wide.mix."),
    ("attn.spatial_gating_unit.fc.0.", "attention.gate.squeeze."),
    ("attn.spatial_gating_unit.fc.2.", "attention.gate.excite."),
    ("mlp.dwconv.dwconv.", "mlp.depthwise."),
)
_TOKENS: Pairs = (("", "inner."),)

BLOCKS: dict[Translator, Pairs] = {
    "gsta": _GATED,
    "tau": _GATED,
    "van": _GATED,
    "convmixer": (
        ("conv_dw.", "depthwise."),
        ("norm_1.", "norm1."),
        ("conv_pw.", "pointwise."),
        ("norm_2.", "norm2."),
    ),
    "convnext": (("", ""),),
    "hornet": (
        ("norm1.", "norm1."),
        ("norm2.", "norm2."),
        ("gamma1", "scale1"),
        ("gamma2", "scale2"),
        ("gnconv.proj_in.", "gate.enter."),
        ("gnconv.dwconv.", "gate.depthwise."),
        ("gnconv.pws.{}.", "gate.widen.{}."),
        ("gnconv.proj_out.", "gate.leave."),
        ("pwconv1.", "mlp.fc1."),
        ("pwconv2.", "mlp.fc2."),
    ),
    "mlp-mixer": _TOKENS,
    "moganet": (
        *_SAME,
        *_SCALES,
        ("attn.sigma", "attention.contrast"),
        ("attn.proj_1.", "attention.enter."),
        ("attn.gate.", "attention.gate."),
        ("attn.value.DW_conv0.", "attention.value.near."),
        ("attn.value.DW_conv1.", "attention.value.middle."),
        ("attn.value.DW_conv2.", "attention.value.far."),
        ("attn.value.PW_conv.", "attention.value.mix."),
        ("attn.proj_2.", "attention.leave."),
        ("mlp.sigma", "mlp.contrast"),
        ("mlp.dwconv.", "mlp.depthwise."),
        ("mlp.decompose.", "mlp.common."),
    ),
    "poolformer": (*_SAME, *_SCALES),
    "swin": (*_SAME, ("attn.", "attention.")),
    "uniformer": (
        *_SAME,
        ("gamma_1", "scale1"),
        ("gamma_2", "scale2"),
        ("pos_embed.", "position."),
        ("conv1.", "enter."),
        ("conv2.", "leave."),
        ("attn.qkv.", "attention.qkv."),
        ("attn.proj.", "attention.proj."),
        ("attn.", "local."),
    ),
    "vit": _TOKENS,
}
"""What stands behind `hid.enc.{}.block.` there and `translator.stages.{}.block.` here."""

_INCEPU: Pairs = tuple(
    (f"hid.{theirs}.{{}}.{part}", f"translator.{ours}.{{}}.{name}")
    for theirs, ours in (("enc", "down"), ("dec", "up"))
    for part, name in (("conv1.", "enter."), ("layers.{}.", "branches.{}."))
)
_CODER: Pairs = (
    ("enc.enc.{}.conv.conv.", "encoder.layers.{}.conv."),
    ("enc.enc.{}.conv.norm.", "encoder.layers.{}.norm."),
    ("dec.dec.{}.conv.norm.", "decoder.layers.{}.norm."),
    ("dec.readout.", "decoder.readout."),
)
_PERCEPTRON = "vq.vq.proj_regression_weight.linear_proj"

TOLERATED = (
    # Constants that Swin kept among its weights up to timm 0.6.
    r"hid\.enc\.\d+\.block\.attn\.relative_position_index",
    r"hid\.enc\.\d+\.block\.attn_mask",
)
"""Names that hold nothing that was learnt."""


def pairs(translator: Translator | None, *, layers: int, linear: bool) -> Iterator[tuple[str, str]]:
    """All beginnings of names, the original's and ours, most telling first.

    Args:
        translator: name of the translator; None for parts of a model that are without one.
        layers: of the decoder, every second of which keeps its convolution one level deeper there.
        linear: SVQ has one linear layer instead of two.
    """
    yield from _CODER
    for i in range(layers):
        yield f"dec.dec.{i}.conv.conv.{'' if i % 2 else '0.'}", f"decoder.layers.{i}.conv."
    if translator == "incepu":
        yield from _INCEPU
    elif translator is not None:
        yield "hid.enc.{}.reduction.", "translator.stages.{}.reduction."
        for theirs, ours in BLOCKS[translator]:
            yield f"hid.enc.{{}}.block.{theirs}", f"translator.stages.{{}}.block.{ours}"
    yield "vq.vq.codebook", "quantizer.codebook"
    yield f"{_PERCEPTRON}.", "quantizer.codes." if linear else "quantizer.hidden."
    yield f"{_PERCEPTRON}2.", "quantizer.codes."
    yield "vq.vq.", "quantizer.inner."


def is_linear(names: Iterable[str]) -> bool:
    """Tell from names, the original's or ours, whether SVQ has one linear layer."""
    names = tuple(names)
    if any(name.startswith("vq.") for name in names):
        return not any(name.startswith(f"{_PERCEPTRON}2.") for name in names)
    return not any(name.startswith("quantizer.hidden.") for name in names)


def count(names: Iterable[str], pattern: str) -> int:
    """Count the numbers that stand in names at the group of a pattern."""
    found = (re.match(pattern, name) for name in names)
    return len({match[1] for match in found if match})


def translate(name: str, table: Iterable[tuple[str, str]]) -> str | None:
    """Return the counterpart of a name, or None when no entry of the table fits."""
    for start, target in table:
        pattern = re.escape(start).replace(r"\{\}", r"(\d+)") + ("(.+)" if start.endswith(".") or not start else "()")
        if match := re.fullmatch(pattern, name):
            *numbers, rest = match.groups()
            return target.format(*numbers) + rest
    return None


def translator_of(state: Mapping[str, Tensor]) -> Translator:
    """Tell the translator by the original's names.

    Raises:
        UserError: it is none that is known.
    """
    if any(name.startswith("hid.enc.0.conv1.") for name in state):
        return "incepu"
    parts = {match[1] for name in state if (match := re.match(r"hid\.enc\.\d+\.block\.(.+)", name))}
    for sign, kind in _SIGNS:
        if any(part.startswith(sign) for part in parts):
            return kind
    gate = state.get("hid.enc.0.block.attn.spatial_gating_unit.conv1.weight")
    if gate is not None:
        return "gsta" if gate.shape[0] == 2 * gate.shape[1] else "van"
    if any(part.startswith("layer_scale_1") for part in parts):
        return "poolformer"
    some = ", ".join(list(state)[:3])
    raise UserError(f"checkpoint: parameters {some or 'none'}; expected those of a SimVP with one of the translators "
                    f"{', '.join(TRANSLATORS)}")  # fmt: skip


_SIGNS: tuple[tuple[str, Translator], ...] = (
    ("attn.spatial_gating_unit.fc.", "tau"),
    ("gnconv.", "hornet"),
    ("attn.value.", "moganet"),
    ("pos_embed.", "uniformer"),
    ("attn.relative_position_bias_table", "swin"),
    ("conv_pw.", "convmixer"),
    ("conv_dw.", "convnext"),
    ("mlp_tokens.", "mlp-mixer"),
    ("attn.qkv.", "vit"),
)
"""Beginnings of names that only one kind of block has, most telling first."""
