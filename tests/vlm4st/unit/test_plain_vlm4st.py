"""The plain VLM4ST that the package is timed against reproduces the recordings of the original."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from benchmarks.vlm4st.plain import (
    PlainBert,
    PlainDix,
    PlainForge,
    PlainFormat,
    PlainGate,
    PlainHead,
    PlainLora,
    PlainMemory,
    PlainVit,
    PlainVLM4ST,
    plain_loss,
)
from torch import nn
from vlm4st_recordings import NORM, Recording, of_module, open_recording, with_gradients

NO_LORA: dict[str, Any] = {"use_lora": False}


def loaded(part: nn.Module, recording: Recording) -> Any:
    state = {key: value for key, value in recording.weights().items() if not key.endswith("position_ids")}
    part.load_state_dict(state)
    return part.eval()


def plain_model(recording: Recording) -> PlainVLM4ST:
    model = PlainVLM4ST(recording.config["model"], recording.meta["bert_config"], recording.meta["vit"],
                        recording.meta["ablation_mode"])  # fmt: skip
    return loaded(model, recording)


@pytest.mark.parametrize("name", of_module("full model"))
def test_plain_model(name):
    recording = open_recording(name)
    with torch.no_grad():
        prediction, between = plain_model(recording)(recording.input("in/X"), recording.input("in/timestamps"))
        recording.check("out/prediction", prediction)
        recording.check("out/loss", plain_loss(prediction, recording.input("in/target")))
    for key, found in between.items():
        recording.check(f"out/{key}", found)


@pytest.mark.parametrize("name", with_gradients())
def test_plain_gradients(name):
    recording = open_recording(name)
    model = plain_model(recording)
    assert (
        sum(part.numel() for part in model.parameters() if part.requires_grad) == recording.fact("counts")["trainable"]
    )
    plain_loss(
        model(recording.input("in/X"), recording.input("in/timestamps"))[0], recording.input("in/target")
    ).backward()
    for key in recording.under("extra/grad."):
        recording.check_gradient(key, model.get_parameter(key.removeprefix("extra/grad.")).grad)
    for key, norm in recording.fact("grad_norms").items():
        gradient = model.get_parameter(key).grad
        assert gradient is not None
        assert float(gradient.norm()) == pytest.approx(norm, rel=NORM["rtol"], abs=NORM["atol"]), key


def test_plain_parts():
    dix = open_recording("dix_attention")
    with torch.no_grad():
        part = loaded(PlainDix(16, {**dix.config, "dropout": 0.1}), dix)
        maps, tokens = part(dix.input("in/X"), None)
        for key, found in zip(("X_temporal", "X_spatial", "X_cross", "X_input", "temporal_cls", "spatial_cls",
                               "cross_cls"), (*maps, *tokens), strict=True):  # fmt: skip
            dix.check(f"out/nots.{key}", found)
        forge = open_recording("prompt_forge")
        given = [forge.input(f"in/{view}_cls") for view in ("temporal", "spatial", "cross")]
        forge.check("out/B_prompt", loaded(PlainForge(16, forge.config), forge)(*given)[0])
        one = open_recording("pattern_memory_top1")
        pattern = loaded(PlainMemory(16, one.config), one)(one.input("in/cls_token"))
        for key, found in zip(("prompt", "coarse", "fine"), pattern, strict=True):
            one.check(f"out/{key}", found)
        gate = open_recording("gate_fusion")
        maps = [gate.input(f"in/X_{view}") for view in ("temporal", "spatial", "cross", "input")]
        gate.check("out/X_fused", loaded(PlainGate(16, 0.1), gate)(maps)[0])
        form = open_recording("format_transformer")
        table = {**form.config, "format_transformer": form.config,
                 "prompt_forge": {"d_prompt": form.config["d_prompt"] // 3}}  # fmt: skip
        part = loaded(PlainFormat(table, form.config["vlm_image_size"]), form)
        image, sequence = part(form.input("in/X_fused"), form.input("in/B_prompt"))
        form.check("out/image", image)
        form.check("out/sequence", sequence)
        vit = open_recording("vit_stack")
        part = loaded(PlainVit(48, 24, {**vit.config, "patch_size": 16}, NO_LORA), vit)
        vit.check("out/last", part(vit.input("in/image")))


@pytest.mark.parametrize("name", of_module("LoRA linear"))
def test_plain_adapters(name):
    recording = open_recording(name)
    sizes = recording.config
    kind = recording.meta["module"].removeprefix("LoRA linear ").strip()
    vlm = {"num_experts": 0, "num_tasks": 0, **sizes, "lora_type": kind, "lora_rank": sizes["rank"],
           "lora_alpha": sizes["alpha"]}  # fmt: skip
    layer = loaded(PlainLora(nn.Linear(sizes["in_features"], sizes["out_features"]), vlm), recording)
    recording.check("out/y3", layer(recording.input("in/x3")))
    recording.check("out/y2", layer(recording.input("in/x2")))


@pytest.mark.parametrize("name", of_module("ALBEF BERT"))
def test_plain_text_encoder(name):
    recording = open_recording(name)
    bert = loaded(PlainBert(recording.config, NO_LORA), recording)
    sequence, mask, visual = (
        recording.input("in/sequence"),
        recording.input("in/mask_pad"),
        recording.input("in/visual"),
    )
    with torch.no_grad():
        recording.check("out/text_pad", bert.text(sequence, mask))
        recording.check("out/fusion_pad", bert.fusion(sequence, mask, visual, recording.input("in/vmask_pad")))
        recording.check("out/embeddings", bert.embeddings(recording.input("in/input_ids")))


@pytest.mark.parametrize("name", of_module("prediction head"))
def test_plain_head(name):
    recording = open_recording(name)
    sizes = recording.config
    table = {**sizes, "prediction_head": sizes, "format_transformer": sizes, "d_model": sizes["dix_feature_dim"],
             "dix_attention": {"dropout": 0.1}}  # fmt: skip
    head = PlainHead(table)
    head.load_state_dict({key.removeprefix("head."): value for key, value in recording.weights().items()})
    found = head.eval()(recording.input("in/fused_embeds"), recording.input("in/dix_features"))
    recording.check("out/prediction", found)
