"""The original's Langevin trajectories, step by step, with its recorded draws put in place of ours."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from recordings import Recording, names, open_recording
from torch import Tensor

from smash.chain import Evaluator, FrozenEvaluator, PlainEvaluator, State, denoise, finish, refine, restart, start, walk
from smash.config import NoiseConfig, SamplerConfig
from smash.convert import convert_state
from smash.loss import noise_levels
from smash.model import Smash
from smash.sampling import sample_with

TOLERANCE = 1e-4
EVALUATORS = pytest.mark.parametrize("evaluator", [PlainEvaluator, FrozenEvaluator])


class Replay:
    """Recorded draws, in the order in which they were made."""

    def __init__(self, normals: Sequence[Tensor], marks: Sequence[Tensor] = ()) -> None:
        self.normals, self.chosen = list(normals), list(marks)

    def normal(self, samples: int, width: int) -> Tensor:
        draws = self.normals.pop(0)
        assert draws.shape[1] == samples
        return draws[..., -width:]

    def uniform(self, samples: int) -> Tensor:
        raise AssertionError("the original's chain takes no uniform draws")

    def marks(self, probability: Tensor) -> Tensor:
        mark = self.chosen.pop(0)
        assert mark.shape == probability.shape[:2]
        return mark

    @property
    def used_up(self) -> bool:
        return not self.normals and not self.chosen


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0.0, atol=TOLERANCE)


def network(recording: Recording) -> Smash:
    found = convert_state(recording.parameters, heads=recording.meta["n_head"])
    model = Smash(found.config, num_marks=found.num_marks)
    model.load_state_dict(found.state)
    return model.eval()


def replay(recording: Recording) -> Replay:
    """All draws of the recording: initial, stage 1, stage 2, location steps."""
    normals = [recording.input("langevin/init_noise"), *recording.input("langevin/stage1/z")]
    normals += list(recording.input("langevin/stage2/z"))
    if not recording.marked:
        return Replay(normals)
    normals += list(recording.input("langevin/stage2/refine_z"))
    return Replay(normals, [*recording.input("langevin/stage1/mark"), *recording.input("langevin/stage2/mark")])


def settings(recording: Recording) -> tuple[SamplerConfig, NoiseConfig]:
    first, second = (len(recording.input(f"langevin/stage{i}/z")) for i in (1, 2))
    refine_steps = len(recording.input("langevin/stage2/refine_z")) if recording.marked else 0
    sampler = SamplerConfig(
        mode="reference",
        samples=recording.input("langevin/init_noise").shape[1],
        langevin_step=recording.meta["langevin_step"],
        langevin_steps=first + second,
        stage_steps=first,
        refine_steps=refine_steps,
    )
    levels = NoiseConfig(sigma_time=recording.meta["sigma_time"], sigma_location=recording.meta["sigma_loc"])
    return sampler, levels


def follow(recording: Recording, evaluate: Evaluator, state: State, stage: str, draws: Replay) -> State:
    """Walk one stage and compare the state before each step and the mark after it."""
    expected = recording.expect(f"langevin/{stage}/x")
    count, step = len(expected), recording.meta["langevin_step"]
    close(state.x, expected[0])
    for number, after in enumerate(walk(evaluate, state, step=step, count=count, draws=draws), start=1):
        state = after
        if number < count:
            close(state.x, expected[number])
        if state.mark is not None:
            assert torch.equal(state.mark, recording.expect(f"langevin/{stage}/mark")[number])
    return state


@EVALUATORS
@pytest.mark.parametrize("name", names("langevin/cond"))
def test_every_state_of_both_stages(name: str, evaluator: type[PlainEvaluator] | type[FrozenEvaluator]) -> None:
    recording = open_recording(name)
    model, draws = network(recording), replay(recording)
    sampler, levels = settings(recording)
    condition = recording.input("langevin/cond")[:, 0]
    with torch.no_grad():
        evaluate = evaluator(model.score, condition)
        state = start(draws, samples=sampler.samples, num_marks=model.num_marks, like=condition)
        state = follow(recording, evaluate, state, "stage1", draws)
        close(0.5 * state.x + 0.5, recording.expect("langevin/stage1/out"))
        if recording.marked:
            close(state.probability, recording.expect("langevin/stage1/probs"))
        state = follow(recording, evaluate, restart(state, draws=draws), "stage2", draws)
        close(state.x, recording.expect("langevin/before_tweedie"))
        sigma = noise_levels(levels, condition)
        if recording.marked:
            x = denoise(evaluate, state, sigma=sigma)
            close(x, recording.expect("langevin/after_tweedie"))
            _, score = evaluate.at_gap(x[..., 0])
            again = Replay(list(recording.input("langevin/stage2/refine_z"))[:-1])
            steps = refine(x, score, step=sampler.langevin_step, count=sampler.refine_steps - 1, draws=again)
            close(list(steps)[-1], recording.expect("langevin/before_last_refine"))
        state = finish(
            evaluate, state, sigma=sigma, step=sampler.langevin_step, refine_steps=sampler.refine_steps, draws=draws
        )
    assert draws.used_up
    close(0.5 * state.x + 0.5, recording.expect("langevin/stage2/out"))
    if recording.marked:
        close(state.probability, recording.expect("langevin/stage2/probs"))


@pytest.mark.parametrize("name", names("langevin/cond"))
def test_reference_mode_is_the_recorded_chain(name: str) -> None:
    recording = open_recording(name)
    model, draws = network(recording), replay(recording)
    sampler, levels = settings(recording)
    with torch.no_grad():
        condition = recording.input("langevin/cond")[:, 0]
        samples = sample_with(model.score, condition, draws, sampler=sampler, noise=levels)
    out = recording.expect("langevin/stage2/out")
    close(torch.cat([samples.gap[..., None], samples.location], dim=-1), out)
    if recording.marked:
        assert torch.equal(samples.mark, recording.expect("langevin/stage2/mark")[-1])
        close(samples.probability, recording.expect("langevin/stage2/probs"))
