"""How many parameters a model has, by module, and how many the original's of the same configuration has.

The original holds weights that nothing reads: the joint layer of queries, keys and values beside their adapters,
embeddings of words, projections to ALBEF's common space, and the text layers, whose output is dropped.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch

from vlm4st.models.adapters import adapter_parameters
from vlm4st.models.configs import ModelConfig
from vlm4st.models.vlm4st import VLM4ST

WORDS, POSITIONS, KINDS = 30522, 512, 2
"""Rows of ALBEF's embeddings."""


class Counts(NamedTuple):
    """Numbers of parameters."""

    modules: dict[str, int]
    """Of each part of the model."""
    adapters: int
    trainable: int
    frozen: int

    @property
    def total(self) -> int:
        """All parameters."""
        return self.trainable + self.frozen


def count(config: ModelConfig, ablation: str | None = None) -> Counts:
    """Count the parameters of a model, without making them."""
    with torch.device("meta"):
        model = VLM4ST(config, ablation, load_backbone=False)
    modules = {name: sum(part.numel() for part in module.parameters()) for name, module in model.named_children()}
    found = model.get_trainable_parameters()
    adapters = sum(part.numel() for part in adapter_parameters(model))
    return Counts(modules, adapters, found["trainable"], found["frozen"])


def count_reference(config: ModelConfig, *, words: int = WORDS, positions: int = POSITIONS) -> Counts:
    """Count the parameters of the original's model of a configuration, those that nothing reads among them.

    Args:
        config: sizes and adapters.
        words: rows of the embedding of words.
        positions: rows of that of positions.
    """
    ours = count(replace(config, vlm=replace(config.vlm, keep_text_layers=True)))
    width = config.format_transformer.vlm_hidden_dim
    embeddings = (words + positions + KINDS + 2) * width
    projections = 2 * (width + 1) * config.vlm.embed_dim
    joint = config.vlm.vit.depth * 3 * (width + 1) * width if config.vlm.use_lora else 0
    dead = embeddings + projections + joint
    modules = {**ours.modules, "vlm_module": ours.modules["vlm_module"] + dead}
    if config.vlm.use_lora or config.vlm.pretrained_path is not None:
        return Counts(modules, ours.adapters, ours.trainable, ours.frozen + dead)
    return Counts(modules, ours.adapters, ours.trainable + dead, ours.frozen)
