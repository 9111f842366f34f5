"""The model and its parts. Importing this imports no torch; the model is imported when it is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlm4st.models.configs import (
    ABLATIONS,
    LORA_TYPES,
    BertSizes,
    DixConfig,
    FormatTransformerConfig,
    GateFusionConfig,
    ModelConfig,
    PredictionHeadConfig,
    PromptForgeConfig,
    VitSizes,
    VlmConfig,
    check_ablation,
    from_original,
    to_original,
)

if TYPE_CHECKING:
    from vlm4st.models.vlm4st import VLM4ST

__all__ = [
    "ABLATIONS",
    "LORA_TYPES",
    "BertSizes",
    "DixConfig",
    "FormatTransformerConfig",
    "GateFusionConfig",
    "ModelConfig",
    "PredictionHeadConfig",
    "PromptForgeConfig",
    "VitSizes",
    "VlmConfig",
    "build",
    "check_ablation",
    "from_original",
    "to_original",
]


def build(config: ModelConfig, ablation: str | None = None, *, load_backbone: bool = True) -> VLM4ST:
    """Make the model that a configuration describes.

    Args:
        config: sizes, forms, adapters, where the backbone's weights lie.
        ablation: a part to leave out, one of `ABLATIONS`.
        load_backbone: read the backbone's weights from `config.vlm.pretrained_path`; false where all weights are
            loaded afterwards.

    Raises:
        UserError: an unknown ablation; no file for a backbone that is to be frozen, or one that does not fit.
    """
    from vlm4st.models.vlm4st import VLM4ST

    return VLM4ST(config, ablation, load_backbone=load_backbone)
