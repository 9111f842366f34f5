"""Small models for tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from vlm4st.models import (
    BertSizes,
    DixConfig,
    FormatTransformerConfig,
    ModelConfig,
    PredictionHeadConfig,
    PromptForgeConfig,
    VitSizes,
    VlmConfig,
)
from vlm4st.models.adapters import Adapter
from vlm4st.models.vlm4st import VLM4ST

BERT = BertSizes(hidden_size=16, encoder_width=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
                 fusion_layer=1)  # fmt: skip
VLM = VlmConfig(image_res=32, vision_width=16, embed_dim=4, vit=VitSizes(depth=2, num_heads=2), bert_config=BERT,
                allow_random_backbone=True, lora_rank=2, lora_alpha=4.0, num_tasks=3, num_experts=2,
                task_emb_dim=4)  # fmt: skip
MINI = ModelConfig(
    T=3, T_out=2, H=4, W=5, d_model=8,
    dix_attention=DixConfig(num_heads=2, num_layers=1),
    prompt_forge=PromptForgeConfig(num_coarse_prototypes=3, d_prompt=4),
    format_transformer=FormatTransformerConfig(spatial_pool_size=2, num_latents=3, vlm_hidden_dim=16),
    vlm=VLM,
    prediction_head=PredictionHeadConfig(hidden_dim=8),
)  # fmt: skip
"""The smallest that has every part; every dropout is as by default."""


def mini(**vlm: Any) -> ModelConfig:
    """Return the smallest configuration with fields of the backbone replaced."""
    return replace(MINI, vlm=replace(VLM, **vlm))


def calm(config: ModelConfig = MINI) -> ModelConfig:
    """Return a configuration without any dropout but PromptForge's, which its mode decides."""
    bert = replace(config.vlm.bert_config, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    return replace(config, dix_attention=replace(config.dix_attention, dropout=0.0),
                   format_transformer=replace(config.format_transformer, dropout=0.0),
                   vlm=replace(config.vlm, bert_config=bert))  # fmt: skip


def made(config: ModelConfig = MINI, ablation: str | None = None, *, seed: int = 0) -> VLM4ST:
    """Return a model in evaluation mode whose adapters do something."""
    torch.manual_seed(seed)
    model = VLM4ST(config, ablation)
    for part in model.modules():
        if isinstance(part, Adapter):
            for parameter in part.parameters():
                nn.init.normal_(parameter, std=0.3)
    return model.eval()


def batch(config: ModelConfig = MINI, size: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Return known frames, their timestamps and the truth."""
    draw = torch.Generator().manual_seed(1)
    x = torch.rand(size, config.T, config.H, config.W, generator=draw) * 2 - 1
    stamps = torch.stack([torch.randint(7, (size, config.T), generator=draw),
                          torch.randint(48, (size, config.T), generator=draw)], -1)  # fmt: skip
    return x, stamps, torch.rand(size, config.T_out, config.H, config.W, generator=draw) * 2 - 1
