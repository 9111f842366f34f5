"""Configurations of the model: ranges, sizes that have to fit, the original's dictionary."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from stcore.configuration import from_plain, to_plain
from stcore.errors import UserError
from vlm4st.models import (
    BertSizes,
    DixConfig,
    FormatTransformerConfig,
    GateFusionConfig,
    ModelConfig,
    PredictionHeadConfig,
    PromptForgeConfig,
    VitSizes,
    VlmConfig,
    from_original,
    to_original,
)

ORIGINAL = {
    "data": {"dataset_path": "a.json"},
    "model": {
        "T": 6, "T_out": 6, "H": 32, "W": 32, "d_model": 256,
        "dix_attention": {"num_heads": 8, "num_layers": 2, "dropout": 0.1},
        "prompt_forge": {"num_coarse_prototypes": 5, "num_fine_per_coarse": 2, "d_prompt": 128},
        "gate_fusion": {"num_branches": 4},
        "format_transformer": {"spatial_pool_size": 10, "num_latents": 300, "vlm_hidden_dim": 768},
        "vlm": {
            "image_res": 224, "embed_dim": 256, "vision_width": 768, "bert_config": "./config/config_bert.json",
            "pretrained_path": None, "use_lora": True, "lora_type": "standard", "lora_rank": 16, "lora_alpha": 32,
            "num_tasks": 14, "num_experts": 4, "task_emb_dim": 32,
        },
        "prediction_head": {"hidden_dim": 512, "output_channels": 1},
    },
    "training": {"batch_size": 32},
}  # fmt: skip


def test_the_original_s_dictionary_is_our_default():
    assert from_original(ORIGINAL) == ModelConfig()
    assert from_original(ORIGINAL["model"]) == ModelConfig()
    assert from_original(to_original(ModelConfig(T=4))) == ModelConfig(T=4)


def test_a_text_encoder_from_a_file_or_inline(tmp_path):
    table = {"hidden_size": 768, "num_hidden_layers": 8, "fusion_layer": 3, "hidden_act": "gelu", "vocab_size": 30522}
    (tmp_path / "bert.json").write_text(json.dumps(table))
    inline = from_original({"model": {"vlm": {"bert_config": table}}})
    file = from_original({"model": {"vlm": {"bert_config": "bert.json"}}}, folder=tmp_path)
    assert inline == file and file.vlm.bert_config == BertSizes(num_hidden_layers=8, fusion_layer=3)
    with pytest.raises(UserError, match=r"none\.json: No such file"):
        from_original({"model": {"vlm": {"bert_config": "none.json"}}}, folder=tmp_path)
    (tmp_path / "bert.json").write_text("{")
    with pytest.raises(UserError, match=r"bert\.json: no valid JSON"):
        from_original({"model": {"vlm": {"bert_config": "bert.json"}}}, folder=tmp_path)
    with pytest.raises(UserError, match=r"model\.vlm\.bert_config\.hidden_act is 'relu'; expected 'gelu'"):
        from_original({"model": {"vlm": {"bert_config": {"hidden_act": "relu"}}}})


@pytest.mark.parametrize(("values", "message"), [
    ({"model": {"d_modle": 8}}, "config: unknown key 'd_modle'; did you mean 'd_model'"),
    ({"model": {"vlm": {"lora_rnak": 8}}}, r"config: unknown key 'vlm\.lora_rnak'; did you mean 'lora_rank'"),
    ({"model": {"T": "six"}}, "config: T is 'six'; expected a whole number"),
    ({"model": 5}, "config: model is 5; expected a table"),
    ({"model": {"norm": "layer"}}, "config: norm is 'layer'; expected one of 'batch', 'group'"),
    ({"model": {"vlm": {"lora_type": "lokr"}}}, "config:.*lora_type is 'lokr'; expected one of 'standard', 'mtl'"),
])  # fmt: skip
def test_what_is_wrong_in_a_dictionary_is_named(values, message):
    with pytest.raises(UserError, match=message):
        from_original({"T_out": 6, **values} if "model" not in values else values)


@pytest.mark.parametrize(("build", "message"), [
    (lambda: DixConfig(num_heads=0), r"model\.dix-attention\.num-heads: 0; expected 1 or more"),
    (lambda: DixConfig(dropout=1.0), r"model\.dix-attention\.dropout: 1\.0; expected 0 or more and below 1"),
    (lambda: PromptForgeConfig(d_prompt=0), r"model\.prompt-forge\.d-prompt: 0; expected 1 or more"),
    (lambda: GateFusionConfig(num_branches=3), r"model\.gate-fusion\.num-branches: 3; expected 4: temporal, spatial"),
    (lambda: FormatTransformerConfig(vlm_hidden_dim=100), r"vlm-hidden-dim: 100; expected a multiple of 8"),
    (lambda: BertSizes(fusion_layer=12), r"bert-config\.fusion-layer: 12; expected from 0 to 11"),
    (lambda: BertSizes(hidden_size=770), r"hidden-size: 770; expected a multiple of 12"),
    (lambda: VitSizes(mlp_ratio=0.0), r"vlm\.vit\.mlp-ratio: 0\.0; expected more than 0"),
    (lambda: VlmConfig(image_res=225), r"model\.vlm\.image-res: 225; expected a multiple of 16"),
    (lambda: VlmConfig(lora_rank=0), r"model\.vlm\.lora-rank: 0; expected 1 or more"),
    (lambda: VlmConfig(lora_alpha=0.0), r"model\.vlm\.lora-alpha: 0\.0; expected more than 0"),
    (lambda: VlmConfig(vision_width=384), r"encoder-width: 768; expected 384, the vision-width"),
    (lambda: VlmConfig(vision_width=770), r"model\.vlm\.vision-width: 770; expected a multiple of 12"),
    (lambda: VlmConfig(text_path="text_then_fusion", bert_config=BertSizes(fusion_layer=0)), "has no text layers"),
    (lambda: PredictionHeadConfig(hidden_dim=10), r"prediction-head\.hidden-dim: 10; expected a multiple of 4"),
    (lambda: PredictionHeadConfig(output_channels=2, residual="last"), "none with more than one output channel"),
    (lambda: ModelConfig(T=0), r"model\.T: 0; expected 1 or more"),
    (lambda: ModelConfig(d_model=12), r"model\.d-model: 12; expected a multiple of 8 \(heads of the perceiver"),
    (lambda: ModelConfig(d_model=8, dix_attention=DixConfig(num_heads=3)), "d-model: 8; expected a multiple of 3"),
    (lambda: ModelConfig(format_transformer=FormatTransformerConfig(vlm_hidden_dim=384)),
     r"vlm-hidden-dim: 384; expected 768, the hidden-size of bert-config"),
])  # fmt: skip
def test_sizes_that_do_not_fit_are_named(build, message):
    with pytest.raises(UserError, match=message):
        build()


def test_round_trip_through_tables():
    config = ModelConfig(norm="group", vlm=replace(VlmConfig(), lora_type="moe", pretrained_path="a.safetensors"))
    assert from_plain(ModelConfig, to_plain(config), where="file") == config


def test_configurations_import_no_torch():
    program = "import sys, vlm4st.models; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
