"""Adapters of kind `standard` in the layout of the library peft, and back.

peft knows one A and one B for each layer. The image encoder's joint queries, keys and values have three of each here,
which is one adapter of three times the rank, whose B has three blocks on its diagonal: the same function exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from stcore.errors import UserError
from vlm4st.models.adapters import AdaptedLinear, AdaptedQkv, StandardAdapter, adapted_layers
from vlm4st.models.configs import VlmConfig

PREFIX = "base_model.model."
"""What peft puts before the names of the model it adapts, here the backbone."""


def peft_config(config: VlmConfig) -> dict[str, Any]:
    """Return the arguments of peft's `LoraConfig` with which it adapts a backbone as ours is."""
    rank, alpha = config.lora_rank, config.lora_alpha
    return {
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": ["query", "key", "value", "qkv"],
        "rank_pattern": {"qkv": 3 * rank},
        "alpha_pattern": {"qkv": 3 * alpha},
    }


def to_peft(backbone: nn.Module) -> dict[str, Tensor]:
    """Return the adapters of a backbone as peft writes them to `adapter_model.safetensors`.

    Raises:
        UserError: adapters of another kind than `standard`.
    """
    found: dict[str, Tensor] = {}
    for name, layer in adapted_layers(backbone):
        parts = [_standard(adapter, name) for adapter in layer.adapters]
        found[f"{PREFIX}{name}.lora_A.weight"] = torch.cat([part.lora_A for part in parts]).detach()
        found[f"{PREFIX}{name}.lora_B.weight"] = torch.block_diag(*(part.lora_B for part in parts)).detach()
    return found


def from_peft(backbone: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load adapters that peft wrote into a backbone.

    Args:
        backbone: with adapters of kind `standard` of the same rank and alpha.
        tensors: content of `adapter_model.safetensors`, or a state of peft's model (`.default` in its names).

    Raises:
        UserError: adapters that are missing, left over, of another rank, or, of an image encoder's joint layer, not in
            three blocks; nothing is then loaded.
    """
    given = {name.removeprefix(PREFIX).replace(".default.", "."): value
             for name, value in tensors.items() if ".lora_" in name}  # fmt: skip
    layers = dict(adapted_layers(backbone))
    wanted = {f"{name}.lora_{kind}.weight" for name in layers for kind in "AB"}
    missing, extra = sorted(wanted - given.keys()), sorted(given.keys() - wanted)
    if missing or extra:
        lacks, has = (missing or ["none"])[0], (extra or ["none"])[0]
        raise UserError(f"adapters: missing: {lacks} ({len(missing)}), left over: {has} ({len(extra)}); expected one "
                        "for each query, key and value")  # fmt: skip
    split = {name: _split(name, layer, given) for name, layer in layers.items()}
    with torch.no_grad():
        for name, layer in layers.items():
            for adapter, (lower, upper) in zip(layer.adapters, split[name], strict=True):
                part = _standard(adapter, name)
                part.lora_A.copy_(lower)
                part.lora_B.copy_(upper)


def _split(name: str, layer: AdaptedLinear | AdaptedQkv, given: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Return A and B of each adapter of a layer."""
    lower, upper = given[f"{name}.lora_A.weight"], given[f"{name}.lora_B.weight"]
    parts = [_standard(adapter, name) for adapter in layer.adapters]
    count, (rank, width), out = len(parts), parts[0].lora_A.shape, parts[0].lora_B.shape[0]
    if lower.shape == (count * rank, width) and upper.shape == (count * out, count * rank):
        blocks = [block.chunk(count, dim=1) for block in upper.chunk(count)]
        if all(not blocks[i][j].any() for i in range(count) for j in range(count) if i != j):
            return [(lower.chunk(count)[i], blocks[i][i]) for i in range(count)]
    if lower.shape == (rank, width) and upper.shape == (count * out, rank):
        # One A of all is three equal ones.
        return [(lower, upper.chunk(count)[i]) for i in range(count)]
    raise UserError(f"adapters: {name} of shapes {tuple(lower.shape)} and {tuple(upper.shape)}; expected rank {rank}, "
                    f"or {count * rank} in {count} blocks")  # fmt: skip


def _standard(adapter: nn.Module, name: str) -> StandardAdapter:
    if not isinstance(adapter, StandardAdapter):
        raise UserError(f"adapters: {name} has a {type(adapter).__name__}; expected lora-type standard, the only one "
                        "that peft has")  # fmt: skip
    return adapter
