"""Encoder, score network and loss against recordings of the original, driven by their metadata alone."""

from __future__ import annotations

import pytest
import torch
from recordings import Recording, names, open_recording
from torch import Tensor

from smash.config import LossConfig, NoiseConfig
from smash.convert import PADDING_ROW, Converted, convert_state, restore_state
from smash.encoder import LegacyMasks
from smash.loss import mark_loss, score_matching, total_loss
from smash.model import Batch, Smash
from smash.score import ScoreNetwork, mark_distribution

TOLERANCE = 1e-5


def converted(recording: Recording) -> Converted:
    return convert_state(recording.parameters, heads=recording.meta["n_head"])


def legacy(recording: Recording) -> bool:
    return "legacy" in recording.meta.get("note", "")


def build(recording: Recording) -> Smash:
    from dataclasses import replace

    found = converted(recording)
    model = Smash(replace(found.config, legacy_masks=legacy(recording)), num_marks=found.num_marks)
    model.load_state_dict(found.state, strict=True)
    return model.eval()


def batch(recording: Recording) -> Batch:
    mark = (recording.input("batch/mark").long() - 1).clamp_min(0) if recording.marked else None
    location = torch.stack([recording.input("batch/lng"), recording.input("batch/lat")], dim=-1)
    time, gap, lengths = (recording.input(key) for key in ("batch/time", "batch/dt", "data/length"))
    return Batch(time, gap, location, mark, lengths)


def levels(recording: Recording) -> NoiseConfig:
    return NoiseConfig(sigma_time=recording.meta["sigma_time"], sigma_location=recording.meta["sigma_loc"])


def objective(recording: Recording, *, smoothing: float | None = None) -> LossConfig:
    meta = recording.meta
    return LossConfig(
        perturbations=meta["num_noise"],
        mark_weight=meta["loss_lambda"],
        location_weight=meta["loss_lambda2"],
        smoothing=meta["smooth"] if smoothing is None else smoothing,
    )


def close(found: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    torch.testing.assert_close(found, expected, rtol=0.0, atol=tolerance)


@pytest.mark.parametrize("name", names())
def test_sizes_and_parameter_totals_are_the_originals(name: str) -> None:
    recording = open_recording(name)
    state, meta = recording.parameters, recording.meta
    found = converted(recording)
    config = found.config
    sizes = (config.width, config.layers, config.key_width, config.value_width, config.feed_forward_width)
    assert sizes == tuple(meta[key] for key in ("cond_dim", "n_layers", "d_k", "d_v", "d_inner"))
    assert (config.recurrent_width, config.units) == (meta["d_rnn"], meta["num_units"])
    assert found.num_marks == meta["num_types"]
    ours = sum(parameter.numel() for parameter in Smash(config, num_marks=found.num_marks).parameters())
    dead = sum(config.width if key == PADDING_ROW else state[key].numel() for key in found.dropped)
    assert ours + dead == sum(value.numel() for value in state.values())
    for key, value in restore_state(found).items():
        assert torch.equal(value, state[key]), key


@pytest.mark.parametrize("name", names("enc/cond"))
def test_encoder_branches_and_condition(name: str) -> None:
    recording = open_recording(name)
    model, data = build(recording), batch(recording)
    masks = LegacyMasks(data.time, data.location) if legacy(recording) else None
    lengths = model.lengths(data)
    count = data.time.shape[1]
    present = torch.arange(count) < data.lengths[:, None]
    real = masks.valid if masks else present[..., None].float()
    close(real, recording.expect("enc/mask"), 0.0)
    with torch.no_grad():
        codes = model.encoder.codes(data.time, data.location, data.mark, present=present, masks=masks)
        close(codes["temporal"] * real, recording.expect("enc/temporal_encoding") * real)
        assert {f"enc/attn_{branch}" for branch in codes} == set(recording.under("enc/attn_"))
        for branch, code in codes.items():
            attended = model.encoder.branches[branch].attend(code, masks)
            close(attended * real, recording.expect(f"enc/attn_{branch}") * real)
        condition = model.encode(data.time, data.location, data.mark, data.lengths)
    expected = recording.expect("enc/cond")
    rows = torch.arange(expected.shape[1]) < lengths[:, None]
    assert int(rows.sum()) == int(lengths.sum())
    close(condition[:, : expected.shape[1]][rows], expected[rows])


@pytest.mark.parametrize("name", names("flat/cond"))
def test_targets_are_flattened_in_the_original_order(name: str) -> None:
    recording = open_recording(name)
    with torch.no_grad():
        targets = build(recording).targets(batch(recording))
    close(targets.condition[:, None], recording.expect("flat/cond"))
    close(targets.value[:, None, :1], recording.expect("flat/dt"), 0.0)
    location = recording.expect("flat/loc")
    close(targets.value[:, None, 1:], location[..., -2:], 0.0)
    start = recording.expect("loss/x_start")
    close(targets.value[:, None], start[..., [0, -2, -1]], 0.0)
    if recording.marked:
        assert targets.mark is not None
        assert torch.equal(targets.mark[:, None] + 1, location[..., 0].long())
        assert torch.equal(targets.mark[:, None] + 1, start[..., 1].long())


@pytest.mark.parametrize("name", names("score/score"))
def test_score_network(name: str) -> None:
    recording = open_recording(name)
    network: ScoreNetwork = build(recording).score
    x = recording.input("score/x")
    mark = recording.input("score/mark") if recording.marked else None
    with torch.no_grad():
        prepared = network.prepare(recording.input("flat/cond")[:, 0])
        score, probability = network(x, mark, prepared)
        trunk, intensity = network.temporal(x[..., 0], prepared)
        location = network.location_score(trunk, network.spatial(x[..., 1:], prepared), prepared)
    close(intensity, recording.expect("score/intensity"))
    close(location, recording.expect("score/loc"))
    close(score, recording.expect("score/score"))
    for gate, key in ((prepared.temporal_gate, "score/alpha_t"), (prepared.spatial_gate, "score/alpha_s")):
        close(torch.cat([gate, 1.0 - gate], dim=-1), recording.expect(key))
    if recording.marked:
        close(probability, recording.expect("score/probs"))
        close(mark_distribution(intensity), recording.expect("score/probs"))


@pytest.mark.parametrize("name", names("loss/total"))
def test_loss_terms_from_recorded_conditions(name: str) -> None:
    recording = open_recording(name)
    network = build(recording).score
    start, draws = recording.input("loss/x_start")[:, 0], recording.input("loss/noise")
    mark = start[:, 1].long() - 1 if recording.marked else None
    with torch.no_grad():
        prepared = network.prepare(recording.input("flat/cond")[:, 0])
        for key, smoothing in (("loss/mark_term", None), ("loss/mark_term_smooth_0.1", 0.1)):
            loss = objective(recording, smoothing=smoothing)
            terms = score_matching(
                network, prepared, start[:, [0, -2, -1]], mark, draws, noise=levels(recording), loss=loss
            )
            close(terms.denoise, recording.expect("loss/denoise_term"))
            if recording.marked:
                assert terms.mark is not None
                close(terms.mark, recording.expect(key))
            if smoothing is None:
                close(total_loss(terms, loss), recording.expect("loss/total"))


@pytest.mark.parametrize("name", names("loss/total"))
def test_training_loss_and_gradients_through_the_whole_model(name: str) -> None:
    recording = open_recording(name)
    model, loss = build(recording), objective(recording)
    total = model(batch(recording), recording.input("loss/noise"), noise=levels(recording), loss=loss).total
    close(total.detach(), recording.expect("loss/total"))
    total.backward()
    found = converted(recording)
    gradients = {key: parameter.grad for key, parameter in model.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())
    restored = restore_state(
        found._replace(state={key: value for key, value in gradients.items() if value is not None})
    )
    norms = recording.meta["grad_norm"]
    dead = {key for key, value in norms.items() if value is None}
    assert dead == set(recording.meta["dead_parameters"])
    assert dead == set(found.dropped) - {PADDING_ROW}
    assert set(norms) - dead == set(restored)
    for key in sorted(set(norms) - dead):
        torch.testing.assert_close(restored[key].norm().item(), norms[key], rtol=1e-3, atol=1e-9, msg=key)
    for key in recording.under("grad/"):
        close(restored[key.removeprefix("grad/")], recording.expect(key), 1e-6)


def test_marks_loss_with_normalised_smoothing_is_a_cross_entropy() -> None:
    probability = torch.tensor([[[0.2, 0.5, 0.3]]], dtype=torch.float64)
    found = mark_loss(probability, torch.tensor([1]), smoothing=0.3, normalised=True)
    expected = -(torch.tensor([0.1, 0.8, 0.1], dtype=torch.float64) * probability.log()).sum()
    close(found, expected.reshape(1, 1), 1e-9)
