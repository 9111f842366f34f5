"""What the tests of the original's own networks share: tolerances, and gradients under the original's names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stpred.convert.reference import cell_to_theirs, to_theirs
from stpred.models.configs import TrajGRUConfig

SAMPLED = re.compile(r"gammma_|generate_flow")
"""Parameters whose gradient has a kink wherever a flow is a whole number of pixels."""


def assert_close(found: Tensor, expected: Tensor, *, relative: float = 1e-5, absolute: float = 1e-6) -> None:
    """Compare outputs; the bound is relative to the largest expected value."""
    expected = expected.reshape(found.shape)
    bound = relative * float(expected.abs().max()) + absolute
    error = float((found.detach() - expected).abs().max())
    assert error <= bound, f"differs by {error:.3g}, allowed are {bound:.3g}"


def assert_gradients(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, trajectories: bool) -> None:
    """Compare gradients; bounds are relative to each tensor's largest value."""
    for name, gradient in expected.items():
        relative = 1e-4 if not trajectories else 2e-2 if SAMPLED.search(name) else 1e-3
        error, bound = float((found[name] - gradient).abs().max()), relative * float(gradient.abs().max()) + 1e-9
        assert error <= bound, f"gradient of {name} differs by {error:.3g}, allowed are {bound:.3g}"


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """Gradients by name; zero where a parameter takes no part."""
    return {
        name: torch.zeros_like(value) if value.grad is None else value.grad for name, value in model.named_parameters()
    }


def gradients_of_links(model: nn.Module, *, wrapped: bool | None) -> dict[str, Tensor]:
    """Gradients of a TrajGRU under the original's names (`wrapped` None: of a lone cell).

    All links of a gate share the gradient of the sum of their biases.
    """
    ours = gradients(model)
    theirs = cell_to_theirs(ours) if wrapped is None else to_theirs(ours, "trajgru", wrapped=wrapped)
    return {name: theirs[re.sub(r"(W_h[zrh])\.\d+\.bias", r"\1.0.bias", name)] for name in theirs}


def trajgru_config(meta: Mapping[str, Any], *, update: str) -> TrajGRUConfig:
    """Sizes of a recorded TrajGRU."""
    links = (meta["L_k5"], meta["L_k5"], meta["L_k3"])
    return TrajGRUConfig(
        stem=meta["stem_channels"],
        hidden=tuple(meta["hidden"]),
        links=links,
        forecast_links=links,
        up=(meta["deconv1_out"], meta["deconv2_out"]),
        update="reference" if update == "reference" else "corrected",
        clamp="nonnegative" if meta["class"].endswith("TaxiBJ") else "unit",
    )


def from_recipe(shapes: Mapping[str, torch.Size], seed: int) -> dict[str, Tensor]:
    """Weights of a full-size network by the recipe that the recording states."""
    random = np.random.RandomState(seed)
    return {
        name: torch.from_numpy(random.uniform(-a, a, size=tuple(shape)).astype("float32"))
        for name, shape in sorted(shapes.items())
        for a in (_amplitude(name, shape),)
    }


def _amplitude(name: str, shape: torch.Size) -> float:
    if re.search(r"\.W_h[zrh]\.", name):
        return 0.03
    if name.endswith("generate_flow.bias"):
        return 1.0
    if re.search(r"\.w_c[ifo]$", name):
        return 0.5
    return 0.1 if len(shape) == 1 else 1.5 / shape[1:].numel() ** 0.5


def recipe_input(shape: list[int], seed: int) -> Tensor:
    """Frames that a full-size network is fed with."""
    frames = np.random.RandomState(seed + 1).uniform(0, 1, size=shape)
    return torch.from_numpy(frames.astype("float32"))
