"""The plain implementation that smash is timed against reproduces every recording of the original."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.smash.plain import (
    Draws,
    PlainBatch,
    PlainChain,
    PlainSizes,
    PlainSmash,
    PlainTargets,
    denoising_terms,
    flatten_targets,
    mark_terms,
    training_loss,
)
from safetensors.torch import load_file
from torch import Tensor

FOLDER = Path(os.environ.get("STCORE_REFERENCE", "unset")) / "smash"
FACTS = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


def with_tensor(key: str) -> pytest.MarkDecorator:
    """Run a test on every recording whose metadata lists a tensor."""
    names = [name for name, facts in FACTS.items() if key in facts["tensors"]]
    absent = pytest.param("", marks=pytest.mark.skip(reason=f"STCORE_REFERENCE holds no recording of {key}"))
    return pytest.mark.parametrize("name", names or [absent])


@dataclass(frozen=True)
class Recording:
    facts: dict[str, Any]
    tensor: dict[str, Tensor]

    @property
    def marked(self) -> bool:
        return self.facts["num_types"] > 1

    @property
    def sigma(self) -> Tensor:
        return torch.tensor([self.facts["sigma_time"], self.facts["sigma_loc"], self.facts["sigma_loc"]])

    def model(self, *, share_trunk: bool = False) -> PlainSmash:
        sizes = PlainSizes(
            marks=self.facts["num_types"],
            width=self.facts["cond_dim"],
            layers=self.facts["n_layers"],
            heads=self.facts["n_head"],
            key_width=self.facts["d_k"],
            value_width=self.facts["d_v"],
            feed_forward_width=self.facts["d_inner"],
            recurrent_width=self.facts["d_rnn"],
            units=self.facts["num_units"],
        )
        model = PlainSmash(sizes, share_trunk=share_trunk)
        model.load_original({k.removeprefix("param/"): v for k, v in self.tensor.items() if k.startswith("param/")})
        return model.eval()

    def batch(self) -> PlainBatch:
        tensor = self.tensor
        return PlainBatch(
            time=tensor["batch/time"],
            gap=tensor["batch/dt"],
            mark=tensor["batch/mark"].long() if self.marked else None,
            location=torch.stack([tensor["batch/lng"], tensor["batch/lat"]], dim=-1),
            valid=tensor["enc/mask"][..., 0] > 0,
        )


def load(name: str) -> Recording:
    return Recording(FACTS[name], load_file(FOLDER / f"{name}.safetensors"))


def assert_near(found: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0.0)


@with_tensor("enc/cond")
def test_conditions_agree_at_real_events(name: str) -> None:
    recording = load(name)
    batch = recording.batch()
    # The old masks hide events whose longitude is zero; in a sound recording none of the real ones is.
    visible = batch.location[..., 0] != 0
    with torch.no_grad():
        condition = recording.model().transformer(batch, visible)
    expected = recording.tensor["enc/cond"]
    real = torch.arange(condition.shape[1]) < batch.valid.sum(1, keepdim=True)
    assert condition.shape == expected.shape
    assert_near(condition[real], expected[real], 1e-5)


@with_tensor("flat/cond")
def test_targets_agree(name: str) -> None:
    recording = load(name)
    targets = flatten_targets(recording.batch(), recording.tensor["enc/cond"])
    expected_location = recording.tensor["flat/loc"][..., -2:]
    assert_near(targets.condition, recording.tensor["flat/cond"], 0.0)
    assert_near(targets.x, 2 * torch.cat([recording.tensor["flat/dt"], expected_location], dim=-1) - 1, 1e-6)
    if targets.mark is not None:
        assert torch.equal(targets.mark + 1, recording.tensor["flat/loc"][:, 0, 0].long())


@with_tensor("score/x")
@pytest.mark.parametrize("share_trunk", [False, True])
def test_scores_and_intensities_agree(name: str, share_trunk: bool) -> None:
    recording = load(name)
    tensor, model = recording.tensor, recording.model(share_trunk=share_trunk)
    with torch.no_grad():
        score, intensity = model.score(tensor["score/x"], tensor.get("score/mark"), tensor["flat/cond"])
        gates = model.score.gates(tensor["flat/cond"])
    assert_near(score, tensor["score/score"], 1e-5)
    assert_near(intensity, tensor["score/intensity"], 1e-5)
    assert_near(gates[0], tensor["score/alpha_t"], 1e-5)
    assert_near(gates[1], tensor["score/alpha_s"], 1e-5)


@with_tensor("loss/total")
@pytest.mark.parametrize("share_trunk", [False, True])
def test_loss_and_gradients_agree(name: str, share_trunk: bool) -> None:
    recording = load(name)
    facts, tensor, model = recording.facts, recording.tensor, recording.model(share_trunk=share_trunk)
    loss = training_loss(
        model,
        recording.batch(),
        tensor["loss/noise"],
        sigma=recording.sigma,
        mark_weight=facts["loss_lambda"],
        location_weight=facts["loss_lambda2"],
        smoothing=facts["smooth"],
    )
    loss.backward()
    assert_near(loss.detach(), tensor["loss/total"], 1e-5)
    for parameter, value in model.named_parameters():
        expected = facts["grad_norm"][parameter]
        assert value.grad is not None
        assert value.grad.norm().item() == pytest.approx(expected, rel=1e-3, abs=1e-9), parameter


@with_tensor("loss/denoise_term")
def test_loss_terms_agree(name: str) -> None:
    recording = load(name)
    tensor, sigma = recording.tensor, recording.sigma
    targets: PlainTargets = flatten_targets(recording.batch(), tensor["enc/cond"])
    noise = tensor["loss/noise"]
    given = None if targets.mark is None else targets.mark[:, None].expand(noise.shape[:2])
    with torch.no_grad():
        score, intensity = recording.model().score(targets.x + sigma * noise, given, targets.condition)
    assert_near(denoising_terms(score, noise, sigma), tensor["loss/denoise_term"], 1e-5)
    if targets.mark is not None:
        smooth = recording.facts["smooth"]
        assert_near(mark_terms(intensity, targets.mark, smoothing=smooth), tensor["loss/mark_term"], 1e-5)
        assert_near(mark_terms(intensity, targets.mark, smoothing=0.1), tensor["loss/mark_term_smooth_0.1"], 1e-5)


@with_tensor("langevin/stage2/out")
def test_chain_follows_the_recorded_draws(name: str) -> None:
    recording = load(name)
    tensor = {k.removeprefix("langevin/"): v for k, v in recording.tensor.items() if k.startswith("langevin/")}
    last = sum(key.endswith("/z") for key in tensor)
    steps = [tensor[f"stage{stage}/z"] for stage in range(1, last + 1)]
    marks = [mark for stage in range(1, last + 1) for mark in tensor.get(f"stage{stage}/mark", [])]
    refine = tensor.get(f"stage{last}/refine_z", torch.empty(0, 1, 1, 3))[..., 1:]
    normal, mark = iter([tensor["init_noise"], *torch.cat(steps), *refine]), iter(marks)
    chain = PlainChain(
        sigma=recording.sigma,
        step=recording.facts["langevin_step"],
        stages=tuple(len(step) for step in steps),
        refine_steps=len(refine),
    )
    draws = Draws(normal=lambda _shape: next(normal), mark=lambda _weight: next(mark))
    samples = tensor["init_noise"].shape[1]
    stages = list(chain.run_stages(recording.model().score, tensor["cond"], samples, draws))
    assert next(normal, None) is None
    assert next(mark, None) is None
    assert len(stages) == last
    for stage, (out, probability) in enumerate(stages, start=1):
        assert_near(out, tensor[f"stage{stage}/out"], 1e-4)
        if probability is not None:
            assert_near(probability, tensor[f"stage{stage}/probs"], 1e-4)
