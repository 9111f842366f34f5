"""A module whose `forward` is what training calls, while its state is that of the module inside."""

from __future__ import annotations

from typing import Any

from torch import nn

_INSIDE = "module."


class Forwarded(nn.Module):
    """A module whose `forward` runs a step of another one; its state has the names of that other one.

    What accelerate wraps around a model, precision and the exchange of gradients, reaches `forward` only.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.register_state_dict_post_hook(_without_inside)
        self.register_load_state_dict_pre_hook(_with_inside)


def _without_inside(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    _rename(state, f"{prefix}{_INSIDE}", prefix)


def _with_inside(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    _rename(state, prefix, f"{prefix}{_INSIDE}")


def _rename(state: dict[str, Any], old: str, new: str) -> None:
    for name in [name for name in state if name.startswith(old)]:
        state[f"{new}{name.removeprefix(old)}"] = state.pop(name)
