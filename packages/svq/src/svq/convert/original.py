"""Checkpoints of the original SVQ and of OpenSTL's SimVP and TAU, in all their shapes, and back.

Shapes: a bare state (`checkpoint.pth`), a dictionary with it under `state_dict` (`latest.pth`, Lightning), names with
`module.` (several GPUs) or `model.` (Lightning) before them. Averages that OpenSTL's EMA hook keeps as buffers
`ema_<name>` stand beside the weights and can be read in their place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple, cast

from torch import Tensor, nn

from stcore.errors import UserError
from svq.convert.names import TOLERATED, count, is_linear, pairs, translate, translator_of
from svq.models.configs import Translator

PREFIXES = ("model.", "module.")
EMA = "ema_"
_DROPPED = re.compile("|".join((*TOLERATED, rf"{EMA}.+")))


class Converted(NamedTuple):
    """A checkpoint of the original under our names."""

    state: dict[str, Tensor]
    dropped: tuple[str, ...]
    """Entries of the original that are no weights, or those that were not asked for (averages)."""


def plain_state(content: Mapping[str, object]) -> dict[str, Tensor]:
    """Take the state out of a checkpoint of any shape, under the original's own names.

    Raises:
        UserError: there are no tensors.
    """
    inner = content.get("state_dict", content)
    entries = cast("Mapping[str, object]", inner) if isinstance(inner, Mapping) else content
    state = {str(name): value for name, value in entries.items() if isinstance(value, Tensor)}
    if not state:
        keys = ", ".join(map(str, list(content)[:6]))
        raise UserError(f"checkpoint: holds {keys or 'nothing'}; expected tensors by name, or a state_dict of them")
    while any(name.startswith(PREFIXES) for name in state):
        state = {re.sub(r"^(model|module)\.", "", name): value for name, value in state.items()}
    return state


def to_ours(content: Mapping[str, object], *, ema: bool = False) -> Converted:
    """Turn a checkpoint of the original into a state of ours.

    Args:
        content: a checkpoint in any of its shapes.
        ema: take the averages of the EMA hook instead of the weights.

    Raises:
        UserError: parameters that are unknown, or no averages where they were asked for.
    """
    state = plain_state(content)
    dropped = tuple(name for name in state if _DROPPED.fullmatch(name))
    weights = {name: value for name, value in state.items() if name not in dropped}
    if ema:
        weights, dropped = _averaged(weights, state, dropped)
    translator = translator_of(weights) if any(name.startswith("hid.") for name in weights) else None
    layers = count(weights, r"dec\.dec\.(\d+)\.")
    table = tuple(pairs(translator, layers=layers, linear=is_linear(weights)))
    named = {name: translate(name, table) for name in weights}
    unknown = [name for name, ours in named.items() if ours is None]
    if unknown:
        raise UserError(f"checkpoint: unknown parameter {unknown[0]!r} ({len(unknown)} in all); expected those of a "
                        "SimVP and of its quantiser")  # fmt: skip
    ours = {new: _current(name, weights[name]) for name, new in named.items() if new is not None}
    return Converted(ours, dropped)


def to_original(state: Mapping[str, Tensor], translator: Translator) -> dict[str, Tensor]:
    """Turn our state into the original's, the inverse of `to_ours`.

    Raises:
        UserError: a parameter that the original does not have.
    """
    table = pairs(translator, layers=count(state, r"decoder\.layers\.(\d+)\."), linear=is_linear(state))
    turned = tuple((ours, theirs) for theirs, ours in table)
    named = {name: translate(name, turned) for name in state}
    unknown = [name for name, theirs in named.items() if theirs is None]
    if unknown:
        raise UserError(f"model: the original has no parameter for {unknown[0]!r} ({len(unknown)} in all); expected a "
                        f"SimVP with {translator}")  # fmt: skip
    return {theirs: state[name] for name, theirs in named.items() if theirs is not None}


def load_into(model: nn.Module, content: Mapping[str, object], *, ema: bool = False) -> tuple[str, ...]:
    """Load a checkpoint of the original into a model; return what of it was dropped.

    Args:
        model: a `SimVP` of the same sizes.
        content: a checkpoint in any of its shapes.
        ema: take the averages of the EMA hook instead of the weights.

    Raises:
        UserError: parameters that are missing, left over or of another shape; nothing is then loaded.
    """
    state, dropped = to_ours(content, ema=ema)
    wanted = model.state_dict()
    missing, extra = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    if missing or extra:
        lacks, has = ", ".join(missing[:3]) or "none", ", ".join(extra[:3]) or "none"
        raise UserError(f"checkpoint: missing: {lacks} ({len(missing)}), left over: {has} ({len(extra)}); expected the "
                        "weights of this model")  # fmt: skip
    for name, value in state.items():
        if value.shape != wanted[name].shape:
            raise UserError(f"checkpoint: {name} of shape {tuple(value.shape)}; expected {tuple(wanted[name].shape)}")
    model.load_state_dict(state)
    return dropped


def _averaged(
    weights: dict[str, Tensor], state: dict[str, Tensor], dropped: tuple[str, ...]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Put averages in the place of weights; statistics of normalisations have none and stay."""
    places = {name: EMA + name.replace(".", "_") for name in weights}
    used = {place for place in places.values() if place in state}
    if not used:
        raise UserError("checkpoint: no averages (ema_…) in it; expected some; take the weights themselves")
    taken = {name: state.get(place, weights[name]) for name, place in places.items()}
    return taken, tuple(name for name in dropped if name not in used)


def _current(name: str, value: Tensor) -> Tensor:
    """Bring a value to the shape that the quantisers' library has today."""
    return value.reshape(()) if name.endswith("_codebook.initted") else value
