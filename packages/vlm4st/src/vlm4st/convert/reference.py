"""State of the original's model under our names, and back.

Most names are the same. What differs, ours on the right:

    prediction_head.head.X                                       prediction_head.X
    vlm_module.visual_encoder.X                                  vlm_module.visual.X
    ….attn.{query,key,value}_lora.original_layer.X (three)       ….attn.qkv.base.X (one, their rows one after another)
    ….attn.{query,key,value}_lora.X                              ….attn.qkv.{query,key,value}.X
    vlm_module.text_encoder.encoder.layer.N.X                    vlm_module.text.N.X
    ….{query,key,value}.original_layer.X                         ….{query,key,value}.base.X
    ….{query,key,value}.X of an adapter                          ….{query,key,value}.adapter.X

Dropped, since nothing reads them: the joint `attn.qkv` beside adapters, embeddings of words, projections.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
from torch import Tensor

from stcore.errors import UserError
from vlm4st.models.vlm4st import VLM4ST

PARTS = ("query", "key", "value")
SAME = ("dix_attention.", "prompt_forge.", "gate_fusion.", "format_transformer.")
UNREAD = ("vlm_module.text_encoder.embeddings.", "vlm_module.vision_proj.", "vlm_module.text_proj.")
WRAPPERS = ("model_state_dict", "model", "state_dict")

_VIT = "vlm_module.visual_encoder."
_TEXT = "vlm_module.text_encoder.encoder.layer."
_OURS_VIT, _OURS_TEXT = "vlm_module.visual.", "vlm_module.text."
_SPLIT = re.compile(r"(blocks\.\d+\.attn\.)(query|key|value)_lora\.(.+)")
_JOINT = re.compile(r"(blocks\.\d+\.attn\.)qkv\.(weight|bias)")
_PROJECTION = re.compile(r"(.+\.self\.(?:query|key|value)\.)(.+)")


class Converted(NamedTuple):
    """A state under our names."""

    state: dict[str, Tensor]
    dropped: dict[str, Tensor]
    """What nothing reads, under the original's names."""


def plain_state(content: Mapping[str, object]) -> dict[str, Tensor]:
    """Take the tensors by name out of a checkpoint, bare or wrapped, from one device or several.

    Raises:
        UserError: there are none.
    """
    inner: Mapping[str, object] = content
    for name in WRAPPERS:
        if isinstance(inner.get(name), Mapping):
            inner = cast("Mapping[str, object]", inner[name])
            break
    state = {str(name): value for name, value in inner.items() if isinstance(value, Tensor)}
    if not state:
        keys = ", ".join(map(str, list(content)[:6])) or "nothing"
        raise UserError(f"checkpoint: holds {keys}; expected tensors by name, or a model_state_dict of them")
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return state


def convert_reference_state_dict(content: Mapping[str, object]) -> Converted:
    """Turn a checkpoint of the original into a state of ours.

    Args:
        content: the checkpoint, or the state alone.

    Returns:
        The state, and what was left out of it.

    Raises:
        UserError: a parameter that is unknown, or a part of one that is missing.
    """
    state = plain_state(content)
    ours: dict[str, Tensor] = {}
    dropped: dict[str, Tensor] = {}
    split: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        if name.startswith(UNREAD):
            dropped[name] = value
        elif name.startswith(SAME):
            ours[name] = value
        elif name.startswith("prediction_head.head."):
            ours["prediction_head." + name.removeprefix("prediction_head.head.")] = value
        elif name.startswith(_TEXT):
            ours[_OURS_TEXT + _text_name(name.removeprefix(_TEXT))] = value
        elif name.startswith(_VIT):
            _take_visual(name.removeprefix(_VIT), value, state, ours, dropped, split)
        else:
            raise UserError(f"checkpoint: unknown parameter {name!r}; expected those of a VLM4ST")
    for name, parts in split.items():
        lacking = [part for part in PARTS if part not in parts]
        if lacking:
            raise UserError(f"checkpoint: {name} has no {lacking[0]}; expected query, key and value")
        ours[_OURS_VIT + name] = torch.cat([parts[part] for part in PARTS])
    return Converted(ours, dropped)


def _take_visual(
    name: str,
    value: Tensor,
    state: Mapping[str, Tensor],
    ours: dict[str, Tensor],
    dropped: dict[str, Tensor],
    split: dict[str, dict[str, Tensor]],
) -> None:
    """File one tensor of the image encoder."""
    if match := _SPLIT.fullmatch(name):
        place, part, rest = match.groups()
        if rest.startswith("original_layer."):
            joint = f"{place}qkv.base.{rest.removeprefix('original_layer.')}"
            split.setdefault(joint, {})[part] = value
        else:
            ours[f"{_OURS_VIT}{place}qkv.{part}.{rest}"] = value
    elif (match := _JOINT.fullmatch(name)) and f"{_VIT}{match[1]}query_lora.original_layer.weight" in state:
        dropped[_VIT + name] = value
    else:
        ours[_OURS_VIT + name] = value


def _text_name(name: str) -> str:
    match = _PROJECTION.fullmatch(name)
    if match is None or match[2] in ("weight", "bias"):
        return name
    place, rest = match.groups()
    if rest.startswith("original_layer."):
        return f"{place}base.{rest.removeprefix('original_layer.')}"
    return f"{place}adapter.{rest}"


def to_reference_state_dict(
    state: Mapping[str, Tensor], dropped: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Turn our state into the original's, the inverse of `convert_reference_state_dict`.

    Args:
        state: of one of our models.
        dropped: what nothing reads, as it was left out; without it the original's model lacks these.

    Raises:
        UserError: a parameter that the original does not have.
    """
    theirs: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.startswith(SAME):
            theirs[name] = value
        elif name.startswith("prediction_head."):
            theirs["prediction_head.head." + name.removeprefix("prediction_head.")] = value
        elif name.startswith(_OURS_TEXT):
            inner = name.removeprefix(_OURS_TEXT).replace(".base.", ".original_layer.").replace(".adapter.", ".")
            theirs[_TEXT + inner] = value
        elif name.startswith(_OURS_VIT):
            theirs |= {_VIT + inner: tensor for inner, tensor in _visual_back(name.removeprefix(_OURS_VIT), value)}
        else:
            raise UserError(f"model: the original has no parameter for {name!r}")
    return {**theirs, **(dropped or {})}


def _visual_back(name: str, value: Tensor) -> list[tuple[str, Tensor]]:
    """Return what one of our tensors is in the original, where the base of adapters lies in four."""
    match = re.fullmatch(r"(blocks\.\d+\.attn\.)qkv\.(base|query|key|value)\.(.+)", name)
    if match is None:
        return [(name, value)]
    place, part, rest = match.groups()
    if part != "base":
        return [(f"{place}{part}_lora.{rest}", value)]
    rows = zip(PARTS, value.chunk(3), strict=True)
    return [(f"{place}qkv.{rest}", value),
            *((f"{place}{each}_lora.original_layer.{rest}", rows_of) for each, rows_of in rows)]  # fmt: skip


def load_reference(model: VLM4ST, content: Mapping[str, object]) -> tuple[str, ...]:
    """Load a checkpoint of the original into a model; return, under their names, the tensors that were left out.

    Args:
        model: of the same sizes; with an ablation, the parts that it leaves out are left out of the checkpoint too.
        content: the checkpoint, or the state alone.

    Raises:
        UserError: parameters that are missing, left over or of another shape; nothing is then loaded.
    """
    state, dropped = convert_reference_state_dict(content)
    wanted = model.state_dict()
    unbuilt = {name for name in state.keys() - wanted.keys() if _is_unbuilt(name, wanted)}
    missing = sorted(wanted.keys() - state.keys())
    extra = sorted(state.keys() - wanted.keys() - unbuilt)
    if missing or extra:
        lacks, has = ", ".join(missing[:3]) or "none", ", ".join(extra[:3]) or "none"
        raise UserError(f"checkpoint: missing: {lacks} ({len(missing)}), left over: {has} ({len(extra)}); expected the "
                        "weights of this model")  # fmt: skip
    for name, value in wanted.items():
        if value.shape != state[name].shape:
            raise UserError(f"checkpoint: {name} of shape {tuple(state[name].shape)}; expected {tuple(value.shape)}")
    model.load_state_dict({name: state[name] for name in wanted})
    return (*dropped, *sorted(unbuilt))


def _is_unbuilt(name: str, wanted: Mapping[str, Tensor]) -> bool:
    """Say whether a tensor belongs to a part that the model does not have at all."""
    for start in (r"dix_attention\.(?:temporal|spatial|cross)_encoder\.", r"prompt_forge\.", r"vlm_module\.visual\.",
                  r"vlm_module\.text\.\d+\."):  # fmt: skip
        if match := re.match(start, name):
            return not any(other.startswith(match[0]) for other in wanted)
    return False
