"""Each part of the model against the original's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from vlm4st_recordings import of_module, open_recording
from vlm4st_reference import weights_under

from vlm4st.convert.backbone import resized_positions
from vlm4st.convert.reference import convert_reference_state_dict
from vlm4st.models.adapters import AdaptedLinear, AdaptedQkv, merge, unmerge
from vlm4st.models.backbone import BertConfig, make_layer, make_vit, padding_bias, run_layer  # pyright: ignore[reportPrivateImportUsage]
from vlm4st.models.configs import (
    BertSizes,
    DixConfig,
    FormatTransformerConfig,
    GateFusionConfig,
    ModelConfig,
    PredictionHeadConfig,
    PromptForgeConfig,
    VitSizes,
    VlmConfig,
)
from vlm4st.models.dix import DixAttention
from vlm4st.models.format_transformer import FormatTransformer
from vlm4st.models.gate_fusion import GateFusion
from vlm4st.models.prediction_head import PredictionHead
from vlm4st.models.prompt_forge import PatternMemory, PromptForge

pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.fixture
def no_gradients():
    with torch.no_grad():
        yield


@pytest.mark.parametrize("name", of_module("DiX"))
def test_dix_attention(name):
    recording = open_recording(name)
    sizes = recording.config
    config = DixConfig(**{key: sizes[key] for key in ("num_heads", "num_layers", "pool_size")})
    part = DixAttention(sizes["d_model"], config).eval()
    part.load_state_dict(recording.weights())
    for prefix, timestamps in (("out/", recording.input("in/timestamps")), ("out/nots.", None)):
        maps = part(recording.input("in/X"), timestamps)
        for ours, theirs in (("temporal", "X_temporal"), ("spatial", "X_spatial"), ("cross", "X_cross"),
                             ("given", "X_input")):  # fmt: skip
            recording.check(prefix + theirs, getattr(maps, ours))
        for view in ("temporal_cls", "spatial_cls", "cross_cls"):
            recording.check(prefix + view, getattr(maps, view))


@pytest.mark.parametrize("name", of_module("PromptForge"))
def test_prompt_forge(name):
    recording = open_recording(name)
    sizes = dict(recording.config)
    part = PromptForge(sizes.pop("d_model"), PromptForgeConfig(**sizes)).eval()
    part.load_state_dict(recording.weights())
    views = ("temporal", "spatial", "cross")
    found = part(*(recording.input(f"in/{view}_cls") for view in views))
    recording.check("out/B_prompt", found.prompt)
    for view, counts in recording.fact("num_selected_coarse").items():
        pattern = found.patterns[view]
        recording.check(f"out/{view}.prompt", pattern.prompt)
        recording.check(f"out/{view}.coarse", pattern.coarse)
        recording.check(f"out/{view}.fine", pattern.fine)
        assert (pattern.fine.sum(-1) > 0).sum(-1).tolist() == counts


@pytest.mark.parametrize("name", of_module("one pattern memory"))
def test_a_prototype_may_be_enough(name):
    recording = open_recording(name)
    sizes = dict(recording.config)
    part = PatternMemory(sizes.pop("d_model"), PromptForgeConfig(**sizes))
    part.load_state_dict(recording.weights())
    found = part(recording.input("in/cls_token"))
    for key in ("prompt", "coarse", "fine"):
        recording.check(f"out/{key}", getattr(found, key))
    assert (found.fine.sum(-1) > 0).sum(-1).tolist() == recording.fact("num_selected_coarse")


@pytest.mark.parametrize("name", of_module("adaptive gated fusion"))
def test_gate_fusion(name):
    recording = open_recording(name)
    part = GateFusion(recording.config["d_model"], GateFusionConfig(), 0.1).eval()
    part.load_state_dict(recording.weights())
    found = part(*(recording.input(f"in/X_{view}") for view in ("temporal", "spatial", "cross", "input")))
    recording.check("out/X_fused", found.values)
    recording.check("out/gate_weights", found.gates)


def _format_config(sizes: dict[str, Any]) -> ModelConfig:
    width = sizes["vlm_hidden_dim"]
    return ModelConfig(
        T=sizes["T"], H=sizes["H"], W=sizes["W"], d_model=sizes["d_model"],
        prompt_forge=PromptForgeConfig(d_prompt=sizes["d_prompt"] // 3),
        format_transformer=FormatTransformerConfig(
            spatial_pool_size=sizes["spatial_pool_size"], num_latents=sizes["num_latents"], vlm_hidden_dim=width
        ),
        vlm=VlmConfig(
            image_res=sizes["vlm_image_size"], vision_width=width, vit=VitSizes(num_heads=4),
            bert_config=BertSizes(hidden_size=width, encoder_width=width, num_attention_heads=4),
        ),
    )  # fmt: skip


@pytest.mark.parametrize("name", of_module("dual path format transformer"))
def test_format_transformer(name):
    recording = open_recording(name)
    part = FormatTransformer(_format_config(recording.config)).eval()
    part.load_state_dict(recording.weights())
    fused = recording.input("in/X_fused")
    image, small = part.image(fused), part.image_projector.small(fused)
    recording.check("out/image", image.values)
    recording.check("out/image_small", small.values)
    recording.check("out/image_attn_weights", image.weights)
    sequence = part.sequence(fused, recording.input("in/B_prompt"))
    recording.check("out/sequence", sequence)
    recording.check("out/sequence_no_prompt", torch.cat([sequence[:, :1], sequence[:, 2:]], dim=1))
    recording.check("out/seq_mask", torch.ones(sequence.shape[:2], dtype=torch.int64))
    assert sequence.shape[1] == recording.fact("seq_length")


def _adapter_config(kind: str, sizes: dict[str, Any]) -> VlmConfig:
    names = ("num_tasks", "num_experts", "task_emb_dim")
    return VlmConfig(lora_type=kind, lora_rank=sizes["rank"], lora_alpha=float(sizes["alpha"]),
                     **{name: sizes[name] for name in names if name in sizes})  # fmt: skip


def _adapted(recording) -> AdaptedLinear:
    sizes = recording.config
    kind = recording.meta["module"].removeprefix("LoRA linear ").strip()
    layer = AdaptedLinear(nn.Linear(sizes["in_features"], sizes["out_features"]), _adapter_config(kind, sizes))
    named = {("base." + name.removeprefix("original_layer.") if "original" in name else f"adapter.{name}"): value
             for name, value in recording.weights().items()}  # fmt: skip
    layer.load_state_dict(named)
    return layer


@pytest.mark.parametrize("name", of_module("LoRA linear"))
def test_adapters(name):
    recording = open_recording(name)
    layer = _adapted(recording)
    recording.check("out/y3", layer(recording.input("in/x3")))
    recording.check("out/y2", layer(recording.input("in/x2")))
    recording.check("out/base3", layer.base(recording.input("in/x3")))


@pytest.mark.parametrize("name", of_module("LoRA linear standard"))
def test_merged_adapters_are_the_same_function(name):
    recording = open_recording(name)
    layer = _adapted(recording)
    before = layer.base.weight.clone()
    merge(layer)
    assert not torch.equal(layer.base.weight, before)
    recording.check("out/y3", layer(recording.input("in/x3")))
    unmerge(layer)
    assert torch.allclose(layer.base.weight, before, atol=1e-6)
    recording.check("out/y3", layer(recording.input("in/x3")))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", of_module("ALBEF vision transformer"))
def test_image_encoder(name, attention):
    recording = open_recording(name)
    sizes = recording.config
    vit = make_vit(VlmConfig(image_res=sizes["img_size"], vision_width=sizes["embed_dim"], attention=attention,
                             vit=VitSizes(depth=sizes["depth"], num_heads=sizes["num_heads"]),
                             bert_config=BertSizes(encoder_width=sizes["embed_dim"]))).eval()  # fmt: skip
    vit.load_state_dict(recording.weights())
    assert all(block.attn.fused_attn == (attention == "sdpa") for block in vit.blocks)
    seen: list[torch.Tensor] = []
    for block in vit.blocks:
        block.register_forward_hook(lambda _, given, found: seen.append(found))
    recording.check("out/last", vit.forward_features(recording.input("in/image")))
    for number, found in enumerate(seen):
        recording.check(f"out/block{number}", found)
    assert len(seen) == sizes["depth"]


def _text_config(bert: dict[str, Any], attention: str) -> VlmConfig:
    fields = BertSizes.__dataclass_fields__
    sizes = BertSizes(**{key: value for key, value in bert.items() if key in fields})
    return VlmConfig(
        vision_width=sizes.encoder_width, bert_config=sizes, attention=attention, vit=VitSizes(num_heads=4)
    )


def _text_layers(recording, config: VlmConfig) -> list[Any]:
    layers = [make_layer(config, number).eval() for number in range(config.bert_config.num_hidden_layers)]
    for number, layer in enumerate(layers):
        layer.load_state_dict(weights_under(recording, f"encoder.layer.{number}."))
    return layers


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", of_module("ALBEF BERT"))
def test_text_encoder(name, attention):
    recording = open_recording(name)
    config = _text_config(recording.config, attention)
    layers, fusion = _text_layers(recording, config), config.bert_config.fusion_layer
    sequence, visual = recording.input("in/sequence"), recording.input("in/visual")

    def passes(x, numbers, mask=None, memory=None, memory_mask=None):
        bias = padding_bias(mask, -10000.0, x.dtype)
        memory_bias = padding_bias(memory_mask, torch.finfo(x.dtype).min, x.dtype)
        for number in numbers:
            attends = memory if number >= fusion else None
            x = run_layer(layers[number], x, bias, attends, memory_bias if attends is not None else None)
        return x

    text, both = range(fusion), range(fusion, len(layers))
    for masks in ((None, None), (recording.input("in/mask_ones"), recording.input("in/vmask_ones"))):
        recording.check("out/text", passes(sequence, text, masks[0]))
        recording.check("out/fusion", passes(sequence, both, masks[0], visual, masks[1]))
        recording.check("out/multi_modal", passes(sequence, range(len(layers)), masks[0], visual, masks[1]))
    mask, visual_mask = recording.input("in/mask_pad"), recording.input("in/vmask_pad")
    recording.check("out/text_pad", passes(sequence, text, mask))
    recording.check("out/fusion_pad", passes(sequence, both, mask, visual, visual_mask))
    embedded = _embedded(recording)
    recording.check("out/embeddings", embedded)
    recording.check("out/ids_text", passes(embedded, text, mask))
    recording.check("out/ids_multi_modal", passes(embedded, range(len(layers)), mask, visual, visual_mask))


def _embedded(recording) -> torch.Tensor:
    """Embed words as the library does; the model itself is never given any."""
    from transformers.models.bert.modeling_bert import BertEmbeddings

    fields = {key: value for key, value in recording.config.items() if key not in ("fusion_layer", "encoder_width",
                                                                                   "architectures")}  # fmt: skip
    embeddings = BertEmbeddings(BertConfig(**fields)).eval()
    state = weights_under(recording, "embeddings.")
    del state["position_ids"]
    embeddings.load_state_dict(state)
    return embeddings(recording.input("in/input_ids"))


@pytest.mark.parametrize("name", of_module("ALBEF BERT"))
def test_a_layer_that_masks_the_future_would_be_far_off(name):
    """The library's default for layers that attend to images; without a mask it hides the future."""
    recording = open_recording(name)
    config = _text_config(recording.config, "sdpa")
    layers, fusion = _text_layers(recording, config), config.bert_config.fusion_layer
    assert not any(layer.attention.self.is_causal for layer in layers)
    x = recording.input("in/sequence")
    for layer in layers[fusion:]:
        layer.attention.self.is_causal = True
        x = run_layer(layer, x, None, recording.input("in/visual"))
    assert float((x - recording.expect("out/fusion")).abs().max()) > 1.0


@pytest.mark.parametrize("name", of_module("position embedding"))
def test_positions_are_resampled_without_smoothing(name):
    recording = open_recording(name)
    from timm.layers.pos_embed import resample_abs_pos_embed

    for key in recording.under("extra/in_"):
        sides = key.removeprefix("extra/in_").split("_to_")
        table, side = recording.input(key), int(sides[1])
        out = f"extra/out_{sides[0]}_to_{sides[1]}"
        recording.check(out, resized_positions(table, side))
        if int(sides[0]) > side:
            smoothed = resample_abs_pos_embed(table, [side, side], num_prefix_tokens=1)
            assert float((smoothed - recording.expect(out)).abs().max()) > 0.5


@pytest.mark.parametrize("name", of_module("prediction head"))
def test_prediction_head(name):
    recording = open_recording(name)
    sizes = recording.config
    width = sizes["vlm_hidden_dim"]
    config = _format_config({"T": sizes["T_in"], "H": sizes["H"], "W": sizes["W"], "d_model": sizes["dix_feature_dim"],
                             "vlm_hidden_dim": width, "d_prompt": 24, "spatial_pool_size": 3, "num_latents": 5,
                             "vlm_image_size": 32})  # fmt: skip
    head = PredictionHeadConfig(hidden_dim=sizes["hidden_dim"], output_channels=sizes["output_channels"])
    part = PredictionHead(replace(config, T_out=sizes["T_out"], prediction_head=head)).eval()
    part.load_state_dict(weights_under(recording, "head."))
    recording.check("out/prediction", part(recording.input("in/fused_embeds"), recording.input("in/dix_features")))


def test_joint_adapters_are_three():
    """Queries, keys and values from one layer with three updates are those of three layers."""
    torch.manual_seed(0)
    config = VlmConfig(lora_rank=2, lora_alpha=3.0)
    joint = AdaptedQkv(nn.Linear(8, 24), config)
    for part in joint.parameters():
        nn.init.normal_(part)
    x = torch.randn(2, 5, 8)
    for part, adapter, rows in zip(joint(x).chunk(3, -1), joint.adapters, joint.base.weight.chunk(3), strict=True):
        number = [id(each) for each in joint.adapters].index(id(adapter))
        weight = rows + 1.5 * adapter.lora_B @ adapter.lora_A
        assert torch.allclose(part, x @ weight.T + joint.base.bias.chunk(3)[number], atol=1e-5)


def test_unknown_parameters_of_the_original_are_refused():
    from stcore.errors import UserError

    with pytest.raises(UserError, match=r"checkpoint: unknown parameter 'dix\.weight'; expected those of a VLM4ST"):
        convert_reference_state_dict({"dix.weight": torch.zeros(1)})
