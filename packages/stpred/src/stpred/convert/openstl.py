"""Read and write the checkpoints of OpenSTL's recurrent models (github.com/chengtan9907/OpenSTL, Apache-2.0).

Each parameter of ours is one of theirs under another name. Parameters that OpenSTL makes but never uses are dropped
on the way in, named by `dropped`, and zero on the way out. The tables of E3D-LSTM, PhyDNet and MAU stand in
`openstl_others`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import replace
from typing import NamedTuple, cast

from torch import Tensor

from stcore.errors import UserError
from stpred.convert import openstl_others
from stpred.models.configs import (
    E3DLSTMConfig,
    MAUConfig,
    MIMConfig,
    OpenSTLConvLSTMConfig,
    PhyDNetConfig,
    PredRNNConfig,
    PredRNNppConfig,
    PredRNNv2Config,
)

StackedConfig = OpenSTLConvLSTMConfig | PredRNNConfig | PredRNNppConfig | PredRNNv2Config | MIMConfig
OtherConfig = E3DLSTMConfig | PhyDNetConfig | MAUConfig

Names = Iterator[tuple[str, str]]
"""Names of parameters, OpenSTL's and ours."""

PREFIXES = ("model.", "module.")
"""What Lightning and DataParallel put before all names."""

STACKED = ("openstl-convlstm", "predrnn", "predrnnpp", "predrnnv2", "mim")
KINDS = (*STACKED, *openstl_others.TABLES)
"""Models whose checkpoints are read here."""

CONVLSTM = {"conv_x": "from_input", "conv_h": "from_hidden"}
SPATIOTEMPORAL = {**CONVLSTM, "conv_m": "from_memory", "conv_o": "output"}
CAUSAL = {
    **CONVLSTM,
    "conv_m": "from_memory",
    "conv_c": "from_cell",
    "conv_c2m": "from_new_cell",
    "conv_om": "from_new_memory",
}
HIGHWAY = {"gradient_highway.x_concat": "highway.from_input", "gradient_highway.z_concat": "highway.from_state"}
MIM_BLOCK = {
    "conv_x_cc": "from_input",
    "conv_t_cc": "from_hidden",
    "conv_s_cc": "from_memory",
    "conv_x_concat": "stationary.from_input",
    "conv_h_concat": "stationary.from_hidden",
}
MIM_DIFFERENCE = {"conv_x_concat": "from_input", "conv_h_concat": "from_hidden"}
PEEPHOLES = {"ct_weight": "memory_weight", "oc_weight": "output_weight"}


class Sizes(NamedTuple):
    """What the shapes of a state tell of its model."""

    config: StackedConfig | OtherConfig
    channels: int
    """Channels of the frames."""
    area: tuple[int, int] | None
    """Height and width of the frames where the weights depend on them."""


def to_ours(state: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Turn OpenSTL's state into ours.

    Args:
        state: parameters under OpenSTL's names, with or without the prefix of a wrapper (`model.`, `module.`).
        kind: name of the model in the registry.

    Raises:
        UserError: a parameter is missing or unknown.
    """
    plain = without_prefix(state)
    if kind in openstl_others.TABLES:
        return openstl_others.to_ours(plain, kind)
    names = parameter_names(plain, kind)
    _require_names(plain.keys() - set(dropped(plain, kind)), names.keys(), kind)
    return {ours: plain[theirs] for theirs, ours in names.items()}


def to_openstl(state: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Turn our state into OpenSTL's, the inverse of `to_ours`; parameters that it never uses are zero.

    Raises:
        UserError: a parameter is missing or unknown.
    """
    if kind in openstl_others.TABLES:
        return openstl_others.to_openstl(state, kind)
    names = {ours: theirs for theirs, ours in parameter_names(state, kind).items()}
    _require_names(state.keys(), names.keys(), kind)
    return {names[ours]: value for ours, value in state.items()} | _zeros(state, kind)


def dropped(state: Mapping[str, Tensor], kind: str) -> tuple[str, ...]:
    """Name the parameters in OpenSTL's state that `to_ours` leaves out, since no computation uses them."""
    plain = without_prefix(state)
    if kind in openstl_others.TABLES:
        return openstl_others.dropped(plain, kind)
    dead = re.compile(_DEAD[_known(kind)])
    return tuple(name for name in plain if dead.fullmatch(name))


def parameter_names(state: Mapping[str, Tensor], kind: str) -> dict[str, str]:
    """Table of all parameters, OpenSTL's names to ours, for a state (under either names) with as many layers."""
    layers = _layers(state)
    pairs = dict(_pairs(_known(kind), layers))
    normed = any(name.endswith((".1.weight", ".norm.weight")) for name in state)
    return {theirs: ours for theirs, ours in pairs.items() if normed or ".norm." not in ours}


def read_sizes(state: Mapping[str, Tensor], given: StackedConfig | OtherConfig) -> Sizes:
    """Read off the shapes of OpenSTL's state what they tell.

    Args:
        state: parameters under OpenSTL's names.
        given: names the model, and says what shapes do not tell, such as the patch.

    Raises:
        UserError: a parameter is missing or unknown, or the patch does not fit the channels.
    """
    if isinstance(given, OtherConfig):
        one = cast("E3DLSTMConfig", given)  # the function takes each of the three, but not their union
        return Sizes(*openstl_others.read_sizes(without_prefix(state), one))
    ours = to_ours(state, given.kind)
    config = replace(
        given,
        hidden=_hidden(ours, given.kind),
        kernel=ours[f"{_layer_name(given.kind, 0)}.from_hidden.conv.weight"].shape[-1],
        layer_norm=any(".norm." in name for name in ours),
    )
    patched, patch = ours["head.weight"].shape[0], given.patch
    if patched % patch**2:
        raise UserError(f"patch: {patch} on {patched} channels; expected a side whose square divides the channels")
    maps = (value.shape[1:] for name, value in ours.items() if name.endswith(("norm.weight", "output_weight")))
    rows, columns = next(maps, (0, 0))
    return Sizes(config, patched // patch**2, (rows * patch, columns * patch) if rows else None)


def without_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take off what a wrapper has put before all names."""
    for prefix in PREFIXES:
        if state and all(name.startswith(prefix) for name in state):
            return without_prefix({name.removeprefix(prefix): value for name, value in state.items()})
    return dict(state)


_DEAD = {
    "openstl-convlstm": r"cell_list\.\d+\.conv_(o\.[01]\.(weight|bias)|last\.weight)",
    "predrnn": r"(?!)",
    "predrnnpp": r"cell_list\.\d+\.conv_o\.[01]\.(weight|bias)",
    "predrnnv2": r"(?!)",
    "mim": r"stlstm_layer_diff\.\d+\.conv_last\.weight",
}
"""Parameters of OpenSTL's that receive no gradient; the models without any match nothing."""


def _pairs(kind: str, layers: int) -> Names:
    yield "conv_last.weight", "head.weight"
    if kind == "mim":
        yield from _mim(layers)
        return
    parts = {"openstl-convlstm": CONVLSTM, "predrnnpp": CAUSAL}.get(kind, SPATIOTEMPORAL)
    for i in range(layers):
        yield from _gates(parts, f"cell_list.{i}.", f"layers.{i}.")
        if kind != "openstl-convlstm":
            yield f"cell_list.{i}.conv_last.weight", f"layers.{i}.merge.weight"
    if kind == "predrnnpp":
        yield from _gates(HIGHWAY, "", "")
    if kind == "predrnnv2":
        yield "adapter.weight", "adapter.weight"


def _mim(layers: int) -> Names:
    yield from _gates(SPATIOTEMPORAL, "stlstm_layer.0.", "first.")
    yield "stlstm_layer.0.conv_last.weight", "first.merge.weight"
    for i in range(layers - 1):
        block, difference = f"stlstm_layer.{i + 1}.", f"stlstm_layer_diff.{i}."
        yield from _gates(MIM_BLOCK, block, f"blocks.{i}.")
        yield f"{block}conv_last.weight", f"blocks.{i}.merge.weight"
        yield from _gates(MIM_DIFFERENCE, difference, f"differences.{i}.")
        for theirs, ours in PEEPHOLES.items():
            yield f"{block}{theirs}", f"blocks.{i}.stationary.{ours}"
            yield f"{difference}{theirs}", f"differences.{i}.{ours}"


def _gates(parts: Mapping[str, str], theirs: str, ours: str) -> Names:
    for part, name in parts.items():
        yield f"{theirs}{part}.0.weight", f"{ours}{name}.conv.weight"
        yield from ((f"{theirs}{part}.1.{leaf}", f"{ours}{name}.norm.{leaf}") for leaf in ("weight", "bias"))


def _known(kind: str) -> str:
    if kind not in STACKED:
        raise UserError(f"model.kind: {kind!r}; expected one of {', '.join(KINDS)}")
    return kind


def _layers(state: Mapping[str, Tensor]) -> int:
    """Count the layers from either names; MIM's blocks of ours do not include its first layer."""
    numbers = (re.match(r"(?:cell_list|stlstm_layer|layers|(blocks))\.(\d+)\.", name) for name in state)
    found = [int(match[2]) + (2 if match[1] else 1) for match in numbers if match]
    return max(found, default=1)


def _layer_name(kind: str, index: int) -> str:
    if kind == "mim":
        return f"blocks.{index - 1}" if index else "first"
    return f"layers.{index}"


def _hidden(ours: Mapping[str, Tensor], kind: str) -> tuple[int, ...]:
    names = [_layer_name(kind, index) for index in range(_layers(ours))]
    return tuple(ours[f"{name}.from_hidden.conv.weight"].shape[1] for name in names)


def _zeros(ours: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Make OpenSTL's unused parameters: convolutions from two states to one, with the norms of one state."""
    layers = _layers(ours)
    if kind == "mim":
        like = ours["first.merge.weight"]
        return {f"stlstm_layer_diff.{i}.conv_last.weight": like.new_zeros(like.shape) for i in range(layers - 1)}
    zeros: dict[str, Tensor] = {}
    if kind not in ("openstl-convlstm", "predrnnpp"):
        return zeros
    for i in range(layers):
        like = ours[f"layers.{i}.from_hidden.conv.weight"]
        width, kernel = like.shape[1:3]
        zeros[f"cell_list.{i}.conv_o.0.weight"] = like.new_zeros(width, 2 * width, kernel, kernel)
        norm = ours.get(f"layers.{i}.from_hidden.norm.weight")
        if norm is not None:
            for leaf in ("weight", "bias"):
                zeros[f"cell_list.{i}.conv_o.1.{leaf}"] = norm.new_zeros(width, *norm.shape[1:])
        if kind == "openstl-convlstm":
            zeros[f"cell_list.{i}.conv_last.weight"] = like.new_zeros(width, 2 * width, 1, 1)
    return zeros


def _require_names(found: Set[str], expected: Set[str], kind: str) -> None:
    missing, unknown = sorted(expected - found), sorted(found - expected)
    if missing:
        raise UserError(f"checkpoint: parameter {missing[0]!r} is missing ({len(missing)} in all); expected {kind}")
    if unknown:
        raise UserError(f"checkpoint: unknown parameter {unknown[0]!r} ({len(unknown)} in all); expected {kind}")
