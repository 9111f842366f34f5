"""Adapters in peft's layout, against peft itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from vlm4st_models import made, mini

from stcore.errors import UserError
from stcore.torchvision_ops import prepare_timm
from vlm4st.convert import from_peft, peft_config, to_peft
from vlm4st.models.backbone import Backbone
from vlm4st.models.vlm4st import VLM4ST

prepare_timm()  # before peft, which imports transformers
peft = pytest.importorskip("peft")


def peft_model(backbone: Backbone, options: dict[str, Any]) -> Any:
    """Return peft's model over the same backbone without our adapters."""
    plain = VLM4ST(mini(use_lora=False)).vlm_module
    state = {name.replace(".base.", "."): value for name, value in backbone.state_dict().items()}
    plain.load_state_dict({name: state[name] for name in plain.state_dict()})
    return peft.get_peft_model(plain, peft.LoraConfig(**options)).eval()


def test_peft_computes_the_same_with_our_adapters():
    config = mini()
    backbone = made(config).vlm_module
    other = peft_model(backbone, peft_config(config.vlm))
    assert peft.get_peft_model_state_dict(other).keys() == to_peft(backbone).keys()
    loaded = peft.set_peft_model_state_dict(other, to_peft(backbone))
    assert not loaded.unexpected_keys
    image, sequence = torch.randn(2, 3, 32, 32), torch.randn(2, 5, 16)
    with torch.no_grad():
        ours, theirs = backbone(image, sequence), other(image, sequence)
    assert torch.allclose(ours.fused, theirs.fused, atol=1e-5)
    assert torch.allclose(ours.visual, theirs.visual, atol=1e-5)


def test_peft_s_own_adapters_come_in():
    """Those of a rank as wide as ours on joint queries, keys and values: one A for the three."""
    config = mini()
    backbone = made(config).vlm_module
    options = {key: value for key, value in peft_config(config.vlm).items() if not key.endswith("_pattern")}
    other = peft_model(backbone, options)
    for name, part in other.named_parameters():
        if ".lora_" in name:
            torch.nn.init.normal_(part, std=0.3)
    image, sequence = torch.randn(2, 3, 32, 32), torch.randn(2, 5, 16)
    before = backbone(image, sequence).fused
    from_peft(backbone, peft.get_peft_model_state_dict(other))
    with torch.no_grad():
        ours, theirs = backbone(image, sequence), other(image, sequence)
    assert torch.allclose(ours.fused, theirs.fused, atol=1e-5) and not torch.allclose(ours.fused, before, atol=1e-2)


def test_there_and_back():
    one, other = made().vlm_module, made(seed=3).vlm_module
    written = {name.replace(".weight", ".default.weight"): value for name, value in to_peft(one).items()}
    from_peft(other, written)
    back = to_peft(other)
    assert all(torch.equal(value, back[name]) for name, value in to_peft(one).items())


def test_adapters_that_do_not_fit_are_refused():
    backbone = made().vlm_module
    written = to_peft(backbone)
    name = "base_model.model.visual.blocks.1.attn.qkv.lora_B.weight"
    with pytest.raises(UserError, match=r"adapters: missing: visual\.blocks\.1\.attn\.qkv\.lora_B\.weight \(1\)"):
        from_peft(backbone, {key: value for key, value in written.items() if key != name})
    mixed = {**written, name: torch.ones_like(written[name])}
    with pytest.raises(UserError, match=r"expected rank 2, or 6 in 3 blocks"):
        from_peft(backbone, mixed)
    with pytest.raises(UserError, match="MtlAdapter; expected lora-type standard, the only one that peft has"):
        to_peft(made(mini(lora_type="mtl")).vlm_module)
