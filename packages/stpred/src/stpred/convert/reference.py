"""ConvLSTM and TrajGRU of dreaming-coder/Spatiotemporal-Prediction (MIT): their parameter names and ours.

ConvLSTM has kept its names. Of TrajGRU, the convolutions of the input of the three gates lie one below the other in
one convolution, and so do the 1x1 convolutions of the links, joined along input channels (links fastest); the biases
of all links of a gate only ever appear as their sum, and are one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from stcore.errors import UserError
from stpred.models.configs import ConvLSTMConfig, TrajGRUConfig

State = dict[str, Tensor]

GATES = ("z", "r", "h")
PLAIN = {"flow_x": "gammma_x", "flow_h": "gammma_h", "flow": "generate_flow"}
"""Convolutions of a TrajGRU cell that are the same in both; the three m stand in the original."""
PARTS = ("weight", "bias")
LEVELS = range(3)
SIDES = ("encoder", "forecast")


class Converted(NamedTuple):
    """A checkpoint of the original in our terms."""

    config: ConvLSTMConfig | TrajGRUConfig
    channels: int
    """Channels of the whole frames."""
    size: tuple[int, int] | None
    """Height and width of the whole frames; None when any will do."""
    state: State


def to_ours(state: Mapping[str, Tensor], kind: str) -> State:
    """Rename and join the original's parameters.

    Args:
        state: the original's state, complete.
        kind: "convlstm" or "trajgru".

    Raises:
        UserError: a parameter is missing, or one is left over.
    """
    if kind == "convlstm":
        return _complete(state, _convlstm_names(state))
    wrapped = any(name.startswith("encoder.conv1.0.") for name in state)
    links = _links(state)
    return _joined(state, _trajgru_names(links, wrapped=wrapped))


def to_theirs(state: Mapping[str, Tensor], kind: str, *, wrapped: bool = False) -> State:
    """Give our parameters the original's names and places, so that its network computes the same.

    Args:
        state: our state.
        kind: "convlstm" or "trajgru".
        wrapped: TrajGRU only: each strided convolution stands in a `Sequential`, as in the networks for KTH and TaxiBJ.

    Raises:
        UserError: the model has no counterpart there (a ConvLSTM without peephole weights).
    """
    if kind == "convlstm":
        return _complete(state, _convlstm_names(state))
    links = {
        f"{side}.layer{level + 1}": state[f"{side}.layers.{level}.flow.bias"].shape[0] // 2
        for side in SIDES
        for level in LEVELS
    }
    return _parted(state, _trajgru_names(links, wrapped=wrapped))


def cell_to_ours(state: Mapping[str, Tensor]) -> State:
    """`to_ours` for a lone `TrajGRUCell`."""
    return _joined(state, _cell_names("", "", _count_links(state, "")))


def cell_to_theirs(state: Mapping[str, Tensor]) -> State:
    """`to_theirs` for a lone `TrajGRUCell`."""
    return _parted(state, _cell_names("", "", state["flow.bias"].shape[0] // 2))


def read(state: Mapping[str, Tensor], *, patch: int | None = None, update: str = "reference") -> Converted:
    """Take sizes off the shapes of the original's state, and convert it.

    Args:
        state: the original's state.
        patch: side of the patches; the state does not say. None takes 4 where the channels are a multiple of 16 (the
            networks for Moving MNIST and KTH) and 1 otherwise.
        update: of TrajGRU; weights trained with the original's cell have their meaning only with "reference".

    Raises:
        UserError: this is no state of the original's ConvLSTM or TrajGRU.
    """
    if "encoder.encoder.0.conv_x.weight" in state:
        return _read_convlstm(to_ours(state, "convlstm"), patch)
    if "encoder.layer1.gammma_x.weight" in state:
        return _read_trajgru(to_ours(state, "trajgru"), patch or 1, update)
    raise UserError(
        f"checkpoint: parameters {', '.join(list(state)[:3]) or 'none'}; expected those of the original's ConvLSTM "
        "(encoder.encoder.0…) or TrajGRU (encoder.layer1…)"
    )


def _read_convlstm(state: State, patch: int | None) -> Converted:
    weights = [state[f"encoder.encoder.{i}.conv_h.weight"] for i in range(_depth(state))]
    inner = state["encoder.encoder.0.conv_x.weight"].shape[1]
    side = patch or (1 if inner % 16 else 4)
    if inner % side**2:
        raise UserError(f"patch: {side}; expected the {inner} channels of the network to be a multiple of its square")
    height, width = state["encoder.encoder.0.w_ci"].shape[-2:]
    config = ConvLSTMConfig(
        hidden=tuple(w.shape[1] for w in weights),
        kernels=tuple(w.shape[-1] for w in weights),
        patch=side,
        clamp="nonnegative" if side == 1 else "unit",
    )
    return Converted(config, inner // side**2, (height * side, width * side), state)


def _read_trajgru(state: State, patch: int, update: str) -> Converted:
    def three(name: str, axis: int) -> tuple[int, int, int]:
        first, second, third = (state[name.format(level)].shape[axis] for level in LEVELS)
        return first, second, third

    channels = state["encoder.convs.0.weight"].shape[1] // patch**2
    config = TrajGRUConfig(
        stem=state["encoder.convs.0.weight"].shape[0],
        hidden=three("encoder.layers.{}.flow_h.weight", 1),
        kernels=three("encoder.layers.{}.conv_x.weight", -1),
        links=_half(three("encoder.layers.{}.flow.bias", 0)),
        forecast_kernels=three("forecast.layers.{}.conv_x.weight", -1),
        forecast_links=_half(three("forecast.layers.{}.flow.bias", 0)),
        up=(state["forecast.deconvs.0.weight"].shape[1], state["forecast.deconvs.1.weight"].shape[1]),
        patch=patch,
        update="corrected" if update == "corrected" else "reference",
        clamp="unit" if channels == 1 else "nonnegative",
    )
    return Converted(config, channels, None, state)


def _half(values: tuple[int, int, int]) -> tuple[int, int, int]:
    return values[0] // 2, values[1] // 2, values[2] // 2


def _complete(state: Mapping[str, Tensor], names: list[str]) -> State:
    """Return the named parameters in this order, which must be all there are."""
    missing, extra = [name for name in names if name not in state], sorted(state.keys() - set(names))
    if missing or extra:
        raise UserError(
            f"checkpoint: parameters missing: {', '.join(missing[:3]) or 'none'} ({len(missing)}), unknown: "
            f"{', '.join(extra[:3]) or 'none'} ({len(extra)}); expected the original's, complete"
        )
    return {name: state[name] for name in names}


def _depth(state: Mapping[str, Tensor]) -> int:
    return len({found[1] for name in state if (found := re.match(r"encoder\.encoder\.(\d+)\.", name))})


def _convlstm_names(state: Mapping[str, Tensor]) -> list[str]:
    cell = ("w_ci", "w_cf", "w_co", "conv_x.weight", "conv_x.bias", "conv_h.weight", "conv_h.bias")
    names = [f"{side}.{side}.{i}.{name}" for side in SIDES for i in range(_depth(state)) for name in cell]
    return [*names, "forecast.conv_last.weight"]


def _count_links(state: Mapping[str, Tensor], cell: str) -> int:
    return max(1, sum(name.startswith(f"{cell}W_hz.") and name.endswith(".bias") for name in state))


def _links(state: Mapping[str, Tensor]) -> dict[str, int]:
    """Number of links of each cell, by its name in the original."""
    cells = [f"{side}.layer{level + 1}" for side in SIDES for level in LEVELS]
    return {cell: _count_links(state, f"{cell}.") for cell in cells}


def _cell_names(theirs: str, ours: str, count: int) -> dict[str, list[str]]:
    names = {f"{ours}{name}.{part}": [f"{theirs}{PLAIN[name]}.{part}"] for name in PLAIN for part in PARTS}
    for part in PARTS:
        names[f"{ours}conv_x.{part}"] = [f"{theirs}W_x{gate}.{part}" for gate in GATES]
        names[f"{ours}links.{part}"] = [f"{theirs}W_h{gate}.{i}.{part}" for gate in GATES for i in range(count)]
    return names


def _trajgru_names(links: Mapping[str, int], *, wrapped: bool) -> dict[str, list[str]]:
    """Each parameter of ours with those of the original that it holds."""
    names: dict[str, list[str]] = {}
    for (cell, count), place in zip(links.items(), _places("layers"), strict=True):
        names |= _cell_names(f"{cell}.", f"{place}.", count)
    inner = ".0" if wrapped else ""
    strided = {f"encoder.convs.{i}": f"encoder.conv{i + 1}{inner}" for i in LEVELS}
    strided |= {f"forecast.deconvs.{i}": f"forecast.deconv{i + 1}{inner}" for i in range(2)}
    strided |= {f"forecast.deconvs.2.{i}": f"forecast.deconv3.{i}" for i in LEVELS}
    return names | {f"{ours}.{part}": [f"{theirs}.{part}"] for ours, theirs in strided.items() for part in PARTS}


def _places(kind: str) -> Iterator[str]:
    return (f"{side}.{kind}.{level}" for side in SIDES for level in LEVELS)


def _joined(state: Mapping[str, Tensor], names: Mapping[str, list[str]]) -> State:
    theirs = _complete(state, [name for group in names.values() for name in group])
    return {ours: _join(ours, [theirs[name] for name in group]) for ours, group in names.items()}


def _parted(state: Mapping[str, Tensor], names: Mapping[str, list[str]]) -> State:
    found: State = {}
    for ours, group in names.items():
        found.update(zip(group, _split(ours, state[ours], len(group)), strict=True))
    return found


def _join(name: str, parts: list[Tensor]) -> Tensor:
    if name.endswith("links.weight"):
        return rearrange(parts, "(gate link) out inner ky kx -> (gate out) (inner link) ky kx", gate=3)
    if name.endswith("links.bias"):
        return rearrange(torch.stack(parts), "(gate link) out -> gate out link", gate=3).sum(dim=-1).flatten()
    return torch.cat(parts)


def _split(name: str, joined: Tensor, count: int) -> list[Tensor]:
    if name.endswith("links.weight"):
        pattern = "(gate out) (inner link) ky kx -> (gate link) out inner ky kx"
        return list(rearrange(joined, pattern, gate=3, link=count // 3).contiguous())
    if name.endswith("links.bias"):
        # Only the sum over the links counts: the first one has it all.
        spread = torch.zeros(3, count // 3, joined.shape[0] // 3, dtype=joined.dtype, device=joined.device)
        spread[:, 0] = joined.view(3, -1)
        return list(spread.flatten(0, 1))
    return list(joined.chunk(count))
