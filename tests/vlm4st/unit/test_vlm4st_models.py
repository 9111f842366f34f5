"""What the model promises beyond the recordings."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from vlm4st_models import MINI, VLM, batch, calm, made, mini

from stcore.errors import UserError
from vlm4st.models import ABLATIONS, LORA_TYPES, PredictionHeadConfig, to_original
from vlm4st.models.adapters import adapted_layers, merge, unmerge
from vlm4st.models.prompt_forge import PatternMemory
from vlm4st.models.vlm4st import VLM4ST


def test_the_original_s_use_is_accepted_as_written():
    x, stamps, target = batch()
    torch.manual_seed(0)
    model = VLM4ST(to_original(MINI), ablation_mode=None).eval()
    prediction, between = model(x, timestamps=stamps, return_intermediate=True)
    assert prediction.shape == (2, 2, 4, 5, 1)
    loss, parts = model.get_loss(prediction, target, {"mse_weight": 2.0, "mae_weight": 0.25})
    error = prediction[..., 0] - target
    assert loss.item() == pytest.approx(2 * error.square().mean().item() + 0.25 * error.abs().mean().item(), rel=1e-6)
    assert parts.keys() == {"total_loss", "mse_loss", "mae_loss"} and torch.equal(parts["total_loss"], loss)
    assert between.keys() == {"X_temporal", "X_spatial", "X_cross", "X_input", "B_prompt", "pattern_info", "X_fused",
                              "gate_weights", "image", "sequence", "vlm_output", "format_outputs"}  # fmt: skip
    coarse, fine = between["pattern_info"]["cross_weights"]
    assert (coarse.shape, fine.shape) == ((2, 3), (2, 3, 2))
    assert torch.allclose(between["gate_weights"].sum(-1), torch.ones(2, 3, 4, 5))
    counts = model.get_trainable_parameters()
    assert counts["total"] == counts["trainable"] + counts["frozen"] == sum(part.numel() for part in model.parameters())


def test_loss_of_some_cells_only():
    model, (x, _, target) = made(), batch()
    prediction = model(x)
    mask = torch.zeros(2, 1, 4, 5, dtype=torch.bool)
    mask[..., :2, :3] = True
    loss, _ = model.get_loss(prediction, target, mask=mask)
    part, _ = model.get_loss(prediction[:, :, :2, :3], target[..., :2, :3])
    assert loss.item() == pytest.approx(part.item(), rel=1e-6)


def test_loss_of_several_channels_compares_each_with_its_own():
    config = replace(MINI, prediction_head=PredictionHeadConfig(hidden_dim=8, output_channels=2))
    model, (x, _, target) = made(config), batch()
    prediction = model(x)
    truth = torch.stack([target, -target], -1)
    loss, _ = model.get_loss(prediction, truth, {"mse_weight": 1.0, "mae_weight": 0.0})
    assert loss.item() == pytest.approx((prediction - truth).square().mean().item(), rel=1e-6)
    with pytest.raises(ValueError, match="target of shape"):
        model.get_loss(prediction, target)


def test_unknown_weights_of_the_loss_are_refused():
    model, (x, _, target) = made(), batch()
    with pytest.raises(UserError, match="loss: unknown key 'huber'; expected mse_weight and mae_weight"):
        model.get_loss(model(x), target, {"huber": 1.0})


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_everything_that_an_ablation_trains_gets_a_gradient(ablation):
    model, (x, stamps, target) = made(calm(), ablation).train(), batch()
    model.get_loss(model(x, stamps), target)[0].backward()
    silent = [name for name, part in model.named_parameters() if part.requires_grad and part.grad is None]
    assert silent == []
    prediction, between = model.eval()(x, stamps, return_intermediate=True)
    assert torch.allclose(prediction, model(x, stamps), atol=1e-6)
    assert between["pattern_info"]["temporal_weights"][0].shape == (2, 3)
    assert between["vlm_output"]["visual_embeds"].shape == (2, 5, 16)


@pytest.mark.parametrize("kind", LORA_TYPES)
def test_fresh_adapters_change_nothing(kind):
    x, stamps, _ = batch()
    torch.manual_seed(0)
    adapted = VLM4ST(mini(lora_type=kind)).eval()
    plain = VLM4ST(mini(use_lora=False)).eval()
    state = {name.replace(".base.", "."): value for name, value in adapted.state_dict().items()}
    plain.load_state_dict({name: state[name] for name in plain.state_dict()})
    assert torch.allclose(adapted(x, stamps), plain(x, stamps), atol=1e-6)


@pytest.mark.parametrize("kind", LORA_TYPES)
def test_adapters_are_found_by_type_and_frozen_with_nothing_else(kind):
    model = made(mini(lora_type=kind))
    before = {name for name, part in model.named_parameters() if part.requires_grad}
    inside = {name for name in before if name.startswith("vlm_module.")}
    assert inside and all(".adapter." in name or ".qkv." in name for name in inside)
    assert not any(".base." in name for name in inside)
    model.unfreeze_all()
    model.freeze_vlm_backbone()
    assert {name for name, part in model.named_parameters() if part.requires_grad} == before
    assert len(list(adapted_layers(model))) == 2 + 3 + 3  # two image blocks, self- and cross-attention of one layer


def test_merged_adapters_forecast_the_same_and_come_apart_again():
    model, (x, stamps, _) = made(), batch()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        expected = model(x, stamps)
        merge(model)
        merge(model)
        assert torch.allclose(model(x, stamps), expected, atol=1e-5)
        unmerge(model)
        assert torch.allclose(model(x, stamps), expected, atol=1e-5)
    assert all(torch.allclose(value, before[name], atol=1e-6) for name, value in model.state_dict().items())
    with pytest.raises(UserError, match="MoeAdapter, whose update depends on the sample; expected lora-type standard"):
        merge(made(mini(lora_type="moe")))


def test_a_random_backbone_is_frozen_only_where_that_is_asked_for(tmp_path):
    with pytest.raises(UserError, match=r"model\.vlm\.pretrained-path: none.*or set model\.vlm\.allow-random-backbone"):
        VLM4ST(mini(allow_random_backbone=False))
    with pytest.raises(
        UserError, match=r"model\.vlm\.pretrained-path: no file '.*weights\.pth'; expected the backbone"
    ):
        VLM4ST(mini(pretrained_path=str(tmp_path / "weights.pth")))
    assert VLM4ST(mini(allow_random_backbone=False, use_lora=False)).get_trainable_parameters()["frozen"] == 0
    assert VLM4ST(mini(allow_random_backbone=False), load_backbone=False).get_trainable_parameters()["frozen"] > 0


@pytest.mark.parametrize("refine", ["reference", "residual", "none"])
def test_an_untrained_model_of_changes_forecasts_persistence(refine):
    head = PredictionHeadConfig(hidden_dim=8, output_refine=refine, residual="last")
    model, (x, stamps, target) = made(replace(calm(), prediction_head=head)), batch()
    assert torch.equal(model(x, stamps)[..., 0], x[:, -1:].expand(-1, 2, -1, -1))
    model.train()
    model.get_loss(model(x, stamps), target)[0].backward()
    moved = model.prediction_head.fusion_conv[-1] if refine != "reference" else model.prediction_head.output_refine[-1]
    assert moved.bias.grad.abs().sum() > 0


def test_a_correction_starts_at_nothing():
    alone = replace(MINI, prediction_head=PredictionHeadConfig(hidden_dim=8, output_refine="none"))
    refined = replace(MINI, prediction_head=PredictionHeadConfig(hidden_dim=8, output_refine="residual"))
    one, other, (x, stamps, _) = made(alone), made(refined), batch()
    other.load_state_dict(one.state_dict(), strict=False)
    assert torch.equal(one(x, stamps), other(x, stamps))


def test_group_norm_does_not_mix_samples():
    config = replace(calm(), norm="group")
    model, (x, stamps, _) = made(config).train(), batch(size=3)
    model.prompt_forge.eval()
    together, alone = model(x, stamps), model(x[:1], stamps[:1])
    assert torch.allclose(together[:1], alone, atol=1e-5)
    mixing = made(calm()).train()
    mixing.prompt_forge.eval()
    assert not torch.allclose(mixing(x, stamps)[:1], mixing(x[:1], stamps[:1]), atol=1e-3)


def test_one_known_frame_has_no_deviation_and_constant_ones_a_finite_gradient():
    single = replace(MINI, T=1)
    x, stamps, _ = batch(single)
    assert made(single)(x, stamps).isfinite().all()
    model, (x, stamps, target) = made(calm()), batch()
    model.get_loss(model(torch.zeros_like(x), stamps), target)[0].backward()
    assert all(part.grad.isfinite().all() for part in model.parameters() if part.grad is not None)


def test_text_layers_come_before_the_fusion_where_asked():
    through, (x, stamps, _) = made(mini(text_path="text_then_fusion")), batch()
    straight = made(mini(keep_text_layers=True))
    straight.load_state_dict(through.state_dict())
    prediction, between = through(x, stamps, return_intermediate=True)
    other, also = straight(x, stamps, return_intermediate=True)
    assert torch.allclose(between["vlm_output"]["text_embeds"], also["vlm_output"]["text_embeds"], atol=1e-6)
    assert not torch.allclose(prediction, other, atol=1e-4)
    assert made()(x, stamps, return_intermediate=True)[1]["vlm_output"]["text_embeds"] is None


def test_backbone_dropout_can_be_switched_off():
    quiet, loud = made(mini(backbone_dropout=False)).train(), made(mini()).train()
    assert not any(part.training for part in quiet.vlm_module.text.modules())
    assert all(part.training for part in loud.vlm_module.text.modules())
    sequence, visual = torch.randn(2, 5, 16), torch.randn(2, 5, 16)
    passes = [part.vlm_module.fusion_pass for part in (quiet, loud)]
    assert torch.equal(passes[0](sequence, visual), passes[0](sequence, visual))
    assert not torch.equal(passes[1](sequence, visual), passes[1](sequence, visual))


@pytest.mark.parametrize("ablation", [None, *ABLATIONS])
def test_recomputed_gradients_are_the_same(ablation):
    x, stamps, target = batch()
    found = []
    for enable in (False, True):
        model = made(calm(), ablation).train()
        model.set_gradient_checkpointing(enable)
        torch.manual_seed(5)
        model.get_loss(model(x, stamps), target)[0].backward()
        found.append({name: part.grad for name, part in model.named_parameters() if part.grad is not None})
    assert found[0].keys() == found[1].keys()
    assert all(torch.allclose(found[0][name], found[1][name], atol=1e-5) for name in found[0])


def test_half_precision_stays_close():
    model, (x, stamps, _) = made(), batch()
    with torch.no_grad():
        exact = model(x, stamps)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(x, stamps)
    assert float((rough - exact).norm() / exact.norm()) < 3e-2


def test_the_whole_model_is_one_graph():
    """In a process of its own, since the checks of shapes that tests run with are no part of a graph."""
    command = [sys.executable, str(Path(__file__).parents[1] / "vlm4st_graphs.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "the same\n"


def test_prototypes_are_looked_up_for_all_samples_at_once():
    """As many operations for one sample as for many, and none that waits for a device."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Names(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.seen: list[str] = []

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.seen.append(str(func))
            return func(*args, **(kwargs or {}))

    memory = PatternMemory(8, MINI.prompt_forge)
    counts = []
    for size in (1, 16):
        with Names() as names:
            memory(torch.randn(size, 8)).prompt.sum().backward()
        assert not any("_local_scalar_dense" in name or "nonzero" in name for name in names.seen)
        counts.append(len(names.seen))
    assert counts[0] == counts[1]


def test_layers_of_an_encoder_start_apart():
    config = replace(MINI, dix_attention=replace(MINI.dix_attention, num_layers=2))
    first, second = made(config).dix_attention.spatial_encoder.spatial_encoder.layers
    assert not torch.equal(first.linear1.weight, second.linear1.weight)


def test_attention_dropout_of_its_own():
    config = replace(MINI, dix_attention=replace(MINI.dix_attention, attention_dropout=0.0))
    rates = {
        name: part.dropout for name, part in made(config).named_modules() if isinstance(part, nn.MultiheadAttention)
    }
    assert set(rates.values()) == {0.0}
    layers = made().dix_attention.spatial_encoder.spatial_encoder.layers
    assert layers[0].attention_dropout == 0.1 and layers[0].dropout.p == 0.1


def test_unknown_ablations_are_refused():
    with pytest.raises(UserError, match="ablation: 'no_text'; expected one of no_dix, no_prompt, no_seq, no_visual"):
        VLM4ST(MINI, "no_text")
    assert VLM.allow_random_backbone
