"""The miniature of ALBEF's checkpoint: what is kept of it, and what the encoders then compute."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from vlm4st_recordings import Recording, of_module, open_recording

from stcore.errors import UserError
from vlm4st.convert import import_albef, load_backbone, read_backbone, table_text, write_backbone
from vlm4st.models import (
    BertSizes,
    DixConfig,
    FormatTransformerConfig,
    ModelConfig,
    PredictionHeadConfig,
    VitSizes,
    VlmConfig,
)
from vlm4st.models.vlm4st import VLM4ST


def saved(recording: Recording, folder: Path, **changes: torch.Tensor | None) -> Path:
    """Write the checkpoint as ALBEF's training does, with some tensors replaced or left out."""
    state = {**recording.weights(), **changes}
    path = folder / "ALBEF.pth"
    model = {name: value for name, value in state.items() if value is not None}
    optimiser = {"state": {}, "param_groups": [{"lr": 1e-4}]}
    content = {"model": model, "optimizer": optimiser, "config": {"image_res": 64}, "epoch": 29}
    torch.save(content, path)
    return path


def mini(recording: Recording, **vlm: object) -> ModelConfig:
    meta, fields = recording.meta, BertSizes.__dataclass_fields__
    bert = BertSizes(**{key: value for key, value in meta["bert_config"].items() if key in fields})
    vit = VitSizes(depth=meta["vit"]["depth"], num_heads=meta["vit"]["num_heads"])
    options = {"keep_text_layers": True, "use_lora": False, **vlm}
    return ModelConfig(
        H=4, W=4, d_model=8, dix_attention=DixConfig(num_heads=2, num_layers=1),
        format_transformer=FormatTransformerConfig(spatial_pool_size=2, num_latents=3, vlm_hidden_dim=32),
        vlm=VlmConfig(image_res=meta["target_image_res"], vision_width=32, vit=vit, bert_config=bert, **options),  # pyright: ignore[reportArgumentType]
        prediction_head=PredictionHeadConfig(hidden_dim=8),
    )  # fmt: skip


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", of_module("miniature checkpoint"))
def test_encoders_of_a_checkpoint(name, attention, tmp_path):
    recording = open_recording(name)
    path = saved(recording, tmp_path)
    model = VLM4ST(mini(recording, pretrained_path=str(path), attention=attention)).eval()
    backbone = model.vlm_module
    assert not any(part.requires_grad for part in backbone.parameters())
    assert backbone.visual is not None
    assert torch.equal(backbone.visual.pos_embed, recording.expect("out/pos_embed_after_resize"))
    with torch.no_grad():
        visual = backbone.see(recording.input("in/image"))
        sequence = recording.input("in/sequence")
        recording.check("out/visual_embeds", visual)
        recording.check("out/fused_embeds", backbone.fusion_pass(sequence, visual))
        recording.check("out/text_embeds", backbone.text_pass(sequence))


@pytest.mark.parametrize("name", of_module("miniature checkpoint"))
def test_every_tensor_is_kept_or_dropped_for_a_reason(name, tmp_path):
    recording = open_recording(name)
    tensors, rows = import_albef(saved(recording, tmp_path))
    weights = recording.weights()
    assert {row.name for row in rows} == weights.keys()
    assert all(row.shape == tuple(weights[row.name].shape) for row in rows)
    assert all((row.kept_as is None) == bool(row.reason) for row in rows)
    kept = {row.kept_as: row.name for row in rows if row.kept_as is not None}
    assert kept.keys() == tensors.keys()
    assert all(torch.equal(tensors[ours], weights[theirs]) for ours, theirs in kept.items())
    depth, layers, fusion = 3, 4, 2
    assert len(kept) == 6 + 12 * depth + 16 * layers + 10 * (layers - fusion)
    lean, _ = import_albef(saved(recording, tmp_path), text_layers=False)
    assert len(kept) - len(lean) == 16 * fusion and not any(key.startswith("text.0.") for key in lean)
    text = table_text(rows)
    assert re.search(rf"^in all +{len(rows)} ", text, re.MULTILINE)
    assert sum(int(line.split()[1]) for line in text.splitlines() if line.startswith(("kept", "dropped"))) == len(rows)
    assert "averages of the training" in text and "head for masked words" in text


@pytest.mark.parametrize("name", of_module("miniature checkpoint"))
def test_a_small_file_takes_its_place(name, tmp_path):
    recording = open_recording(name)
    source, small = saved(recording, tmp_path), tmp_path / "albef.safetensors"
    write_backbone(import_albef(source)[0], small, about={"source": "ALBEF.pth"})
    assert small.stat().st_size < source.stat().st_size / 2
    one, other = (VLM4ST(mini(recording, pretrained_path=str(path))) for path in (source, small))
    state = other.backbone_state()
    assert all(torch.equal(value, state[name]) for name, value in one.backbone_state().items())
    adapted = VLM4ST(mini(recording, pretrained_path=str(small), use_lora=True, lora_rank=2))
    assert torch.equal(adapted.state_dict()["vlm_module.text.2.attention.self.query.base.weight"],
                       state["vlm_module.text.2.attention.self.query.weight"])  # fmt: skip


@pytest.mark.parametrize("name", of_module("miniature checkpoint"))
def test_the_other_shapes_of_a_checkpoint(name, tmp_path):
    """Fine-tuned ones: no `model`, no averages, no `bert.`; or both names, of which the one without is right."""
    recording = open_recording(name)
    expected, _ = import_albef(saved(recording, tmp_path))
    weights = {key: value for key, value in recording.weights().items() if "_m." not in key}
    plain = {re.sub(r"^text_encoder\.bert\.", "text_encoder.", key): value for key, value in weights.items()}
    wrong = {key: torch.zeros_like(value) for key, value in weights.items() if "bert.encoder" in key}
    for content in (plain, {f"module.{key}": value for key, value in weights.items()}, {**wrong, **plain}):
        torch.save(content, tmp_path / "tuned.pth")
        found, rows = import_albef(tmp_path / "tuned.pth")
        assert found.keys() == expected.keys() and len(rows) == len(content)
        assert all(torch.equal(value, expected[key]) for key, value in found.items())


@pytest.mark.parametrize("name", of_module("miniature checkpoint"))
@pytest.mark.parametrize(("tensor", "value", "message"), [
    ("visual_encoder.blocks.1.attn.qkv.bias", None, r"no visual\.blocks\.1\.attn\.qkv\.bias \(1 missing of 126\)"),
    ("text_encoder.bert.encoder.layer.3.crossattention.self.key.weight", None,
     r"no text\.3\.crossattention\.self\.key\.weight \(1 missing"),
    ("visual_encoder.norm3.weight", torch.zeros(1), r"visual\.norm3\.weight \(1 in all\) belongs to no encoder"),
    ("adapter.weight", torch.zeros(1), r"tensor 'adapter\.weight' belongs to nothing that is known"),
])  # fmt: skip
def test_a_checkpoint_that_is_not_whole_is_refused(name, tensor, value, message, tmp_path):
    path = saved(open_recording(name), tmp_path, **{tensor: value})
    with pytest.raises(UserError, match=message):
        import_albef(path)


@pytest.mark.parametrize("name", of_module("miniature checkpoint"))
def test_a_backbone_that_does_not_fit_is_refused_whole(name, tmp_path):
    recording = open_recording(name)
    tensors, _ = import_albef(saved(recording, tmp_path))
    model = VLM4ST(mini(recording))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    out = tmp_path / "b.safetensors"
    for change, message in (
        (
            {"text.3.output.dense.bias": torch.zeros(5)},
            r"text\.3\.output\.dense\.bias of shape \(5,\); expected \(32,\)",
        ),
        ({"visual.blocks.3.norm1.bias": torch.zeros(32)}, r"visual\.blocks\.3\.norm1\.bias \(1 left over\)"),
    ):
        write_backbone({**tensors, **change}, out)
        with pytest.raises(UserError, match=message):
            load_backbone(model, out)
    write_backbone({key: value for key, value in tensors.items() if key != "visual.cls_token"}, out)
    with pytest.raises(UserError, match=r"no visual\.cls_token \(1 missing of 126\)"):
        load_backbone(model, out)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_another_file_is_no_backbone(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", {"kind": "weather"})
    with pytest.raises(UserError, match=r"of kind 'weather'; expected 'vlm4st-backbone'"):
        read_backbone(tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").write_bytes(b"no tensors")
    with pytest.raises(UserError, match="no valid safetensors"):
        read_backbone(tmp_path / "b.safetensors")
    with pytest.raises(UserError, match="expected weights of a backbone"):
        read_backbone(tmp_path / "c.safetensors")
    with pytest.raises(UserError, match="no such file"):
        read_backbone(tmp_path / "c.pth")
