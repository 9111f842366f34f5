"""Read what the authors' code wrote: checkpoints and sample files (github.com/zichongli5/SMASH).

Our names on the left, theirs on the right; sizes are inferred from shapes. Parameters of theirs that never took
part in a computation are dropped and named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from smash.config import ModelConfig
from smash.model import Smash
from stcore.errors import UserError

DEAD = (
    re.compile(r"transformer\.(alpha|beta)"),
    re.compile(r"transformer\.encoder\.event_emb_temporal\..+"),
    re.compile(r"decoder\.model\.time_mlp\..+"),
    re.compile(r"transformer\.encoder\.temporal_enc\..+|decoder\.model\.time_mlp\.0\..+"),
)
"""Parameters of the original that received no gradient."""

PADDING_ROW = "transformer.encoder.event_emb_mark.weight[0]"
"""Row of the original's mark table that stands for padding and stays zero."""

STACKS = {"temporal": "_temporal", "spatial": "_loc", "joint": "", "mark": "_mark"}
RECURRENT = {"temporal": "rnn_temporal", "spatial": "rnn_spatial", "joint": "rnn", "mark": "rnn_mark"}
LAYER = {
    "output": "slf_attn.fc",
    "attention_norm": "slf_attn.layer_norm",
    "expand": "pos_ffn.w_1",
    "contract": "pos_ffn.w_2",
    "feed_forward_norm": "pos_ffn.layer_norm",
}
PROJECTIONS = ("w_qs", "w_ks", "w_vs")
INJECTIONS = {
    "temporal_injection": "cond_temporal",
    "spatial_injection": "cond_spatial",
    "joint_injection": "cond_joint",
}
PERCEPTRONS = {
    "temporal_trunk": ("linears_temporal", 4),
    "spatial_trunk": ("linears_spatial", 4),
    "temporal_gate": ("linear_t", 3),
    "spatial_gate": ("linear_s", 3),
    "gate_code": ("cond_all", 2),
    "intensity_head": ("output_intensity", 2),
    "location_head": ("output_score", 2),
}
"""Linear layers of each; the original numbers the ReLUs between them too."""


class Converted(NamedTuple):
    """A checkpoint of the original in our terms."""

    config: ModelConfig
    num_marks: int
    state: dict[str, Tensor]
    dropped: tuple[str, ...]
    """Names of the original's parameters that have no part in the model."""


def pairs(config: ModelConfig, *, num_marks: int) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each parameter of ours with the parameters of the original that it holds, one below the other."""
    both = ("weight", "bias")
    branches = [name for name in STACKS if name != "mark" or num_marks > 1]
    for index in (0, 2, 4, 6):
        yield from (
            (f"encoder.location_code.{index}.{p}", (f"transformer.encoder.event_emb_loc.{index}.{p}",)) for p in both
        )
    if num_marks > 1:
        yield "encoder.mark_code.weight", ("transformer.encoder.event_emb_mark.weight",)
    for branch in branches:
        ours, theirs = f"encoder.branches.{branch}", f"transformer.{RECURRENT[branch]}"
        for i in range(config.layers):
            stack = f"transformer.encoder.layer_stack{STACKS[branch]}.{i}"
            weights = tuple(f"{stack}.slf_attn.{name}.weight" for name in PROJECTIONS)
            yield f"{ours}.layers.{i}.query_key_value.weight", weights
            yield from ((f"{ours}.layers.{i}.{a}.{p}", (f"{stack}.{b}.{p}",)) for a, b in LAYER.items() for p in both)
        for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
            yield f"{ours}.recurrence.{name}", (f"{theirs}.rnn.{name}",)
        yield from ((f"{ours}.projection.{p}", (f"{theirs}.projection.{p}",)) for p in both)
    for ours, theirs in INJECTIONS.items():
        yield from ((f"score.{ours}.{i}.{p}", (f"decoder.model.{theirs}.{i}.{p}",)) for i in range(3) for p in both)
    for ours, (theirs, count) in PERCEPTRONS.items():
        yield from (
            (f"score.{ours}.{i}.{p}", (f"decoder.model.{theirs}.{2 * i}.{p}",)) for i in range(count) for p in both
        )


def infer(state: Mapping[str, Tensor], *, heads: int = 4) -> tuple[ModelConfig, int]:
    """Read sizes and the number of marks off the shapes of the original's state."""

    def shape(name: str, rank: int = 2) -> tuple[int, ...]:
        found = tuple(state[name].shape) if name in state else None
        if found is None or len(found) != rank or 0 in found:
            what = "missing" if found is None else f"of shape {found}"
            raise UserError(
                f"checkpoint: parameter {name!r} is {what}; expected the original SMASH model's, with {rank} axes"
            )
        return found

    if heads < 1:
        raise UserError(f"heads: {heads}; expected 1 or more attention heads")
    first = "transformer.encoder.layer_stack.0"
    width = shape("transformer.encoder.event_emb_loc.0.weight")[0]
    keys, values = (shape(f"{first}.slf_attn.{name}.weight")[0] for name in ("w_qs", "w_vs"))
    if keys % heads or values % heads:
        raise UserError(f"heads: {heads}; expected a divisor of the attention widths {keys} and {values}")
    num_marks = shape("decoder.model.output_intensity.2.weight")[0]
    layers = {int(m[1]) for name in state if (m := re.match(r"transformer\.encoder\.layer_stack\.(\d+)\.", name))}
    return ModelConfig(
        width=width,
        layers=len(layers),
        heads=heads,
        key_width=keys // heads,
        value_width=values // heads,
        feed_forward_width=shape(f"{first}.pos_ffn.w_1.weight")[0],
        recurrent_width=shape("transformer.rnn.rnn.weight_hh_l0")[1],
        units=shape("decoder.model.linears_temporal.2.weight")[0],
    ), num_marks


def convert_state(state: Mapping[str, Tensor], *, heads: int = 4) -> Converted:
    """Turn the original's state into ours.

    Args:
        state: parameters under the original's names.
        heads: attention heads, which shapes do not tell (4 in all published runs).

    Returns:
        Sizes, number of marks, our state, and the names that were dropped.

    Raises:
        UserError: a parameter is missing, unknown, or has a shape that does not fit the others.
    """
    config, num_marks = infer(state, heads=heads)
    with torch.random.fork_rng(devices=[]):
        expected = {name: tuple(value.shape) for name, value in Smash(config, num_marks=num_marks).state_dict().items()}
    converted: dict[str, Tensor] = {}
    used: set[str] = set()
    for ours, theirs in pairs(config, num_marks=num_marks):
        used.update(theirs)
        missing = [name for name in theirs if name not in state]
        if missing:
            raise UserError(
                f"checkpoint: parameter {missing[0]!r} is missing; expected every parameter of the original"
            )
        converted[ours] = _join(theirs, state, expected[ours])
    unknown = [name for name in state if name not in used]
    dropped = [name for name in unknown if any(pattern.fullmatch(name) for pattern in DEAD)]
    strange = sorted(set(unknown) - set(dropped))
    if strange:
        raise UserError(
            f"checkpoint: unknown parameter {strange[0]!r} ({len(strange)} in all); expected the names of the original "
            f"SMASH model with {num_marks} marks"
        )
    if num_marks > 1:
        dropped.append(PADDING_ROW)
    return Converted(config, num_marks, converted, tuple(dropped))


def restore_state(converted: Converted) -> dict[str, Tensor]:
    """Put our state back under the original's names (its dead parameters are not recovered)."""
    restored: dict[str, Tensor] = {}
    for ours, theirs in pairs(converted.config, num_marks=converted.num_marks):
        value = converted.state[ours]
        if ours == "encoder.mark_code.weight":
            value = torch.cat([torch.zeros_like(value[:1]), value])
        heads, key, width = converted.config.heads, converted.config.key_width, converted.config.value_width
        sizes = [heads * key, heads * key, heads * width] if len(theirs) == 3 else [len(value)]
        restored.update(zip(theirs, value.split(sizes), strict=True))
    return restored


def _join(names: tuple[str, ...], state: Mapping[str, Tensor], shape: tuple[int, ...]) -> Tensor:
    parts = [state[name] for name in names]
    if names[0] + "[0]" == PADDING_ROW:
        parts = [parts[0][1:]]
    fits = all(part.ndim == len(shape) and part.shape[1:] == parts[0].shape[1:] for part in parts)
    joined = torch.cat(parts) if fits else parts[0]
    if tuple(joined.shape) != shape:
        found = [tuple(state[name].shape) for name in names]
        raise UserError(
            f"checkpoint: parameter {names[0]!r} has shape {found[0]}; expected {shape} together with its peers"
        )
    return joined.detach().clone().contiguous()
