"""State of the original's node networks as ours: sizes are read off the shapes, what is never used is left out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from gpd.models.configs import NodeModelConfig
from gpd.models.spec import build_node_model
from stcore.errors import UserError


class NodeState(NamedTuple):
    """A network of the original under our names."""

    model: NodeModelConfig
    features: int
    state: dict[str, Tensor]
    """Parameters and running statistics of one network, without an axis for nodes."""
    dropped: tuple[str, ...]
    """What the original holds and never uses."""


def convert_node_state(state: Mapping[str, Tensor], *, history: int = 12, layers: int = 2) -> NodeState:
    """Turn the state of a v_STGCN5 or v_GWN of the original into ours.

    Args:
        state: tensors by the original's names.
        history: steps that a v_GWN reads, which its shapes do not tell.
        layers: layers of a block of v_GWN, which they do not tell either.

    Raises:
        UserError: it is neither, or a tensor is missing or has another shape.
    """
    if "block1.Theta1" in state:
        model, features = _stgcn_sizes(state)
    elif "start_conv.weight" in state:
        model, features = _gwn_sizes(state, history, layers)
    else:
        raise UserError(f"state: tensors {', '.join(sorted(state)[:3])} …; expected those of v_STGCN5 or v_GWN")
    network = build_node_model(model, features)
    wanted = {entry.name: entry.shape for entry in network.spec if entry.used} | network.states
    for name, shape in wanted.items():
        found = tuple(state[name].shape) if name in state else "missing"
        if found != shape:
            raise UserError(f"state: {name} is {found}; expected {shape}")
    known = {entry.name for entry in network.spec}
    spare = [name for name in state if name not in wanted]
    strange = [name for name in spare if name not in known and not re.fullmatch(r"bn\.\d+\.(running_|num_).*", name)]
    if strange:
        raise UserError(f"state: {strange[0]!r} beside those of {model.kind}; expected no such tensor")
    return NodeState(model, features, {name: state[name].float() for name in wanted}, tuple(spare))


def original_node_state(state: Mapping[str, Tensor], model: NodeModelConfig, features: int) -> dict[str, Tensor]:
    """Return the state of one network under the original's names, zeros for what is never used."""
    import torch

    spec = build_node_model(model, features).spec
    return {entry.name: state.get(entry.name, torch.zeros(entry.shape)) for entry in spec} | dict(state)


def _stgcn_sizes(state: Mapping[str, Tensor]) -> tuple[NodeModelConfig, int]:
    width, spatial = _shape(state, "block1.Theta1", 2)
    _, features, _, kernel = _shape(state, "block1.temporal1.conv1.weight", 4)
    horizon, flat = _shape(state, "fully.weight", 2)
    config = NodeModelConfig(
        kind="stgcn", norm="batch", row="legacy", history=flat // width + 3 * (kernel - 1), horizon=horizon,
        channels=width, graph_channels=spatial, kernel=kernel,
    )  # fmt: skip
    return config, features


def _gwn_sizes(state: Mapping[str, Tensor], history: int, layers: int) -> tuple[NodeModelConfig, int]:
    residual, features, _, _ = _shape(state, "start_conv.weight", 4)
    inside, _, _, kernel = _shape(state, "filter_convs.0.weight", 4)
    skip, _, _, _ = _shape(state, "skip_convs.0.weight", 4)
    horizon, end, _, _ = _shape(state, "end_conv_2.weight", 4)
    count = sum(bool(re.fullmatch(r"filter_convs\.\d+\.weight", name)) for name in state)
    if count % layers:
        raise UserError(f"state: {count} layers; expected a multiple of {layers}, those of a block")
    config = NodeModelConfig(
        kind="gwn", norm="batch", row="legacy", history=history, horizon=horizon, channels=residual,
        dilation_channels=inside, skip_channels=skip, end_channels=end, kernel=kernel, blocks=count // layers,
        layers=layers,
    )  # fmt: skip
    return config, features


def _shape(state: Mapping[str, Tensor], name: str, axes: int) -> tuple[int, ...]:
    found = tuple(state[name].shape) if name in state else ()
    if len(found) != axes:
        raise UserError(f"state: {name} is {found or 'missing'}; expected a tensor of {axes} axes")
    return found
