"""The score network against calculus: tangents, closed-form densities, and the merged network."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from smash.frozen import FrozenScore
from smash.gap import GapLaw
from smash.score import ScoreNetwork, mark_distribution, time_score

WIDTH, UNITS = 6, 24
marks = st.sampled_from([1, 2, 5])
seeds = st.integers(0, 10_000)


def network(num_marks: int, seed: int) -> tuple[ScoreNetwork, Tensor]:
    """A random network with visible variation, and conditions of four events; float64."""
    torch.manual_seed(seed)
    found = ScoreNetwork(WIDTH, UNITS, num_marks).double()
    with torch.no_grad():
        for name, value in found.named_parameters():
            if name.endswith("weight"):
                value.mul_(1.8)
    return found, torch.randn(4, WIDTH * (4 if num_marks > 1 else 3), dtype=torch.float64)


@settings(max_examples=15, deadline=None)
@given(num_marks=marks, seed=seeds)
def test_tangent_is_the_derivative_autograd_finds(num_marks: int, seed: int) -> None:
    score, condition = network(num_marks, seed)
    gap = (2 * torch.rand(4, 9, dtype=torch.float64) - 1).requires_grad_()
    mark = torch.randint(num_marks, (4, 9))
    prepared = score.prepare(condition)
    _, intensity, slope = score.temporal_with_slope(gap, prepared)
    _, plain = score.temporal(gap, prepared)
    torch.testing.assert_close(intensity, plain, rtol=0.0, atol=1e-12)
    for k in range(num_marks):
        (expected,) = torch.autograd.grad(plain[..., k].sum(), gap, retain_graph=True)
        torch.testing.assert_close(slope[..., k], expected, rtol=0.0, atol=1e-10)
    own = plain.gather(-1, mark[..., None])[..., 0]
    (log_slope,) = torch.autograd.grad(torch.log(own + 1e-10).sum(), gap)
    torch.testing.assert_close(time_score(intensity, slope, mark), log_slope - plain.sum(-1), rtol=0.0, atol=1e-10)


@settings(max_examples=15, deadline=None)
@given(num_marks=marks, seed=seeds)
def test_merged_network_is_the_network(num_marks: int, seed: int) -> None:
    score, condition = network(num_marks, seed)
    x = 2 * torch.rand(4, 9, 3, dtype=torch.float64) - 1
    mark = torch.randint(num_marks, (4, 9)) if num_marks > 1 else None
    trained = score(x, mark, score.prepare(condition))
    with torch.no_grad():
        frozen = FrozenScore(score, condition)
        merged = frozen(x, mark)
        intensity = frozen.intensity(frozen.trunk(x[..., 0])).mT
    torch.testing.assert_close(merged.score, trained.score, rtol=0.0, atol=1e-10)
    torch.testing.assert_close(merged.probability, trained.probability, rtol=0.0, atol=1e-10)
    torch.testing.assert_close(mark_distribution(intensity), trained.probability, rtol=0.0, atol=1e-10)


@settings(max_examples=15, deadline=None)
@given(num_marks=marks, seed=seeds)
def test_gap_score_is_the_slope_of_the_closed_form_density(num_marks: int, seed: int) -> None:
    score, condition = network(num_marks, seed)
    grid = torch.linspace(-1.0, 1.0, 4001, dtype=torch.float64)
    with torch.no_grad():
        frozen = FrozenScore(score, condition)
        law = GapLaw.on_grid(grid, frozen.intensity(frozen.trunk(grid.repeat(4, 1))))
        middle = 0.5 * (grid[1:] + grid[:-1])
        points = middle.repeat(4, 1)
        for k in range(num_marks):
            slope = law.log_joint[:, k].diff(dim=-1) / (grid[1] - grid[0])
            mark = torch.full(points.shape, k)
            found, _, _ = frozen.gap_score(points, mark)
            # The trunk is piecewise linear: a grid cell with a kink in it agrees only on average.
            assert ((slope - found).abs() < 1e-4).double().mean() > 0.97
            torch.testing.assert_close(slope.mean(1), found.mean(1), rtol=0.0, atol=1e-3)


@settings(max_examples=25, deadline=None)
@given(num_marks=marks, seed=seeds, size=st.integers(16, 200), scale=st.floats(1e-6, 50.0))
def test_gap_law_is_a_distribution_and_its_quantiles_invert_it(
    num_marks: int, seed: int, size: int, scale: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    grid = torch.linspace(0.0, 1.0, size, dtype=torch.float64)
    law = GapLaw.on_grid(grid, scale * torch.rand(3, num_marks, size, generator=generator, dtype=torch.float64))
    level = torch.rand(3, 40, generator=generator, dtype=torch.float64)
    gap = law.quantile(level)
    assert (gap >= 0.0).all() and (gap <= 1.0).all()
    torch.testing.assert_close(law.cdf_at(gap), level, rtol=0.0, atol=1e-7)
    torch.testing.assert_close(law.cdf_at(grid.repeat(3, 1)), law.cdf, rtol=0.0, atol=1e-9)
    fine = torch.linspace(0.0, 1.0, 40 * (size - 1) + 1, dtype=torch.float64).repeat(3, 1)
    density = law.log_density_at(fine).exp()
    torch.testing.assert_close(torch.trapezoid(density, fine), torch.ones(3).double(), rtol=0.0, atol=2e-2)
    joint = torch.stack([law.log_joint_at(fine, torch.full(fine.shape, k)) for k in range(num_marks)])
    torch.testing.assert_close(joint.exp().sum(0), density, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(law.log_density_at(grid.repeat(3, 1)), law.log_density, rtol=1e-6, atol=1e-6)
    outside = torch.tensor([[-0.01, 1.01]], dtype=torch.float64).repeat(3, 1)
    assert (law.log_density_at(outside) == -torch.inf).all()
    assert law.cdf_at(outside).tolist() == [[0.0, 1.0]] * 3
