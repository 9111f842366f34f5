"""The named runs. Standard library only.

`default` and `no_pretrain` have the sizes and the recipe of the original's two files, with the head, the attention
dropout and the decay of weights that new trainings should have; the original's YAML itself (`--config F.yaml`) gives
what it gave. `small` and `tiny` are trained from scratch.
"""

from __future__ import annotations

from dataclasses import replace

from stcore.training.config import LoopConfig
from vlm4st.config import OptimiserConfig, ScheduleConfig, TrainConfig
from vlm4st.data_options import DataConfig
from vlm4st.models.configs import (
    BertSizes,
    DixConfig,
    FormatTransformerConfig,
    ModelConfig,
    PredictionHeadConfig,
    PromptForgeConfig,
    VitSizes,
    VlmConfig,
)

DEFAULT_PRESET = "default"
ALBEF = "checkpoints/pretrained/ALBEF_14M.pth"
"""Where the original expects ALBEF's weights."""

_HEAD = PredictionHeadConfig(output_refine="residual", residual="last")
_DIX = DixConfig(attention_dropout=0.0)
_RECIPE = LoopConfig(epochs=65, clip_norm=1.0)

_PUBLISHED = TrainConfig(
    data=DataConfig(batch_rule="adaptive"),
    model=ModelConfig(dix_attention=_DIX, prediction_head=_HEAD, vlm=VlmConfig(pretrained_path=ALBEF)),
    fit=_RECIPE,
)

_SMALL = TrainConfig(
    data=DataConfig(batch=16, anomalies="week", usual_pooled=True),
    model=ModelConfig(
        d_model=32,
        norm="group",
        dix_attention=DixConfig(num_heads=4, num_layers=1, dropout=0.05, attention_dropout=0.0),
        prompt_forge=PromptForgeConfig(d_prompt=32, dropout=0.05),
        format_transformer=FormatTransformerConfig(
            spatial_pool_size=5, num_latents=30, vlm_hidden_dim=64, dropout=0.05
        ),
        vlm=VlmConfig(
            image_res=80,
            embed_dim=32,
            vision_width=64,
            vit=VitSizes(depth=4, num_heads=4),
            bert_config=BertSizes(
                hidden_size=64,
                num_hidden_layers=6,
                num_attention_heads=4,
                intermediate_size=256,
                fusion_layer=3,
                encoder_width=64,
                hidden_dropout_prob=0.05,
                attention_probs_dropout_prob=0.0,
            ),
            use_lora=False,
            lora_rank=8,
            lora_alpha=16.0,
        ),
        prediction_head=replace(_HEAD, hidden_dim=32, residual="linear"),
    ),
    fit_grid=True,
    optimiser=OptimiserConfig(learning_rate=1e-3),
    schedule=ScheduleConfig(kind="smooth"),
    fit=LoopConfig(epochs=10, clip_norm=1.0, patience=5),
)

_TINY = TrainConfig(
    data=DataConfig(batch=16),
    model=ModelConfig(
        H=8,
        W=8,
        d_model=16,
        norm="group",
        dix_attention=DixConfig(num_heads=4, dropout=0.0, attention_dropout=0.0),
        prompt_forge=PromptForgeConfig(d_prompt=8, dropout=0.0),
        format_transformer=FormatTransformerConfig(spatial_pool_size=4, num_latents=6, vlm_hidden_dim=32, dropout=0.0),
        vlm=VlmConfig(
            image_res=48,
            embed_dim=8,
            vision_width=32,
            vit=VitSizes(depth=3, num_heads=4),
            bert_config=BertSizes(
                hidden_size=32,
                num_hidden_layers=4,
                num_attention_heads=4,
                intermediate_size=64,
                fusion_layer=2,
                encoder_width=32,
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
            ),
            use_lora=False,
            lora_rank=4,
            lora_alpha=8.0,
            num_tasks=5,
            num_experts=3,
            task_emb_dim=6,
        ),
        prediction_head=replace(_HEAD, hidden_dim=16),
    ),
    fit_grid=True,
    optimiser=OptimiserConfig(learning_rate=2e-3),
    schedule=ScheduleConfig(kind="smooth"),
    fit=LoopConfig(epochs=15, clip_norm=1.0),
)

PRESETS: dict[str, TrainConfig] = {
    "default": _PUBLISHED,
    "no_pretrain": replace(
        _PUBLISHED,
        model=replace(_PUBLISHED.model, vlm=replace(_PUBLISHED.model.vlm, pretrained_path=None, use_lora=False)),
    ),
    "small": _SMALL,
    "tiny": _TINY,
}
"""Runs by name, the published ones first."""

DEMO = replace(
    _TINY,
    data=replace(_TINY.data, source=("crowd-flow",), anomalies="week", usual_pooled=True),
    model=replace(_TINY.model, prediction_head=replace(_TINY.model.prediction_head, residual="linear")),
    fit=replace(_TINY.fit, epochs=4, checkpoint_every=50),
)
"""The run of `vlm4st demo`."""
