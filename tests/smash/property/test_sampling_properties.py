"""The samplers: seeds decide alone, and the closed form has the law of the original's long chain."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from smash.config import LossConfig, ModelConfig, NoiseConfig, SamplerConfig
from smash.draws import SeededDraws
from smash.loss import total_loss
from smash.model import Smash, Targets
from smash.sampling import Samples, gap_law, sample

NOISE = NoiseConfig(sigma_time=0.2, sigma_location=0.25)


def model(num_marks: int, *, scale: float = 1.5) -> Smash:
    torch.manual_seed(4)
    found = Smash(ModelConfig(width=8, layers=1, units=32), num_marks=num_marks).eval()
    with torch.no_grad():
        for parameter in found.score.parameters():
            parameter.mul_(scale)
    return found


def conditions(network: Smash, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(count, 8 * (4 if network.marked else 3), generator=generator)


def same(found: Samples, expected: Samples) -> bool:
    return all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@pytest.mark.parametrize("num_marks", [1, 3, 7])
@pytest.mark.parametrize("mode", ["exact", "batched", "reference"])
def test_samples_depend_on_seed_and_history_alone(mode: str, num_marks: int) -> None:
    network = model(num_marks)
    condition, seeds = conditions(network, 11), torch.arange(11) * 2**33 + 7
    sampler = SamplerConfig(
        mode=mode, samples=21, location_steps=3, langevin_steps=4, stage_steps=3, refine_steps=2, grid_size=50
    )  # fmt: skip
    whole = sample(network, condition, sampler=sampler, noise=NOISE, seeds=seeds)
    for size in (1, 2, 4):
        chunked = replace(sampler, chunk_events=size)
        assert same(sample(network, condition, sampler=chunked, noise=NOISE, seeds=seeds), whole)
    order = torch.tensor([3, 10, 0, 7])
    some = sample(network, condition[order], sampler=sampler, noise=NOISE, seeds=seeds[order])
    assert same(some, Samples(*(part[order] for part in whole)))
    other = sample(network, condition, sampler=sampler, noise=NOISE, seeds=seeds + 2**33)
    assert (other.gap[0] != whole.gap[0]).any()


@cache
def trained(num_marks: int) -> Smash:
    """A network that has learned two clouds of events, one for each of the first two conditions."""
    network, generator = model(num_marks, scale=1.0), torch.Generator().manual_seed(6)
    condition = conditions(network, 2).repeat(128, 1)
    centre = torch.tensor([[0.4, 0.3, 0.6], [0.6, 0.7, 0.4]]).repeat(128, 1)
    optimiser = torch.optim.Adam(network.score.parameters(), lr=3e-3)
    loss = LossConfig(perturbations=4)
    for _ in range(250):
        value = centre + 0.08 * torch.randn(256, 3, generator=generator)
        mark = ((value[:, 0] > 0.5).long() + (value[:, 1] > 0.5)) % num_marks if num_marks > 1 else None
        draws = torch.randn(256, 4, 3, generator=generator)
        optimiser.zero_grad()
        total_loss(network.loss_terms(Targets(condition, value, mark), draws, noise=NOISE, loss=loss), loss).backward()
        optimiser.step()
    return network


@pytest.mark.parametrize("num_marks", [1, 3])
def test_closed_form_has_the_law_of_the_long_chain(num_marks: int) -> None:
    network = trained(num_marks)
    condition, seeds = conditions(network, 2), torch.tensor([1, 2])
    common = SamplerConfig(samples=2000, denoise_location=num_marks == 1)
    chain = replace(common, mode="batched", langevin_step=0.01, langevin_steps=500, refine_steps=200)
    exact = sample(network, condition, sampler=common, noise=NOISE, seeds=seeds)
    long = sample(network, condition, sampler=chain, noise=NOISE, seeds=seeds + 2)
    for event in range(2):
        assert distance(exact.gap[event], long.gap[event]) < 0.1
        assert max(distance(exact.location[event, :, i], long.location[event, :, i]) for i in range(2)) < 0.1
        torch.testing.assert_close(exact.probability[event].mean(0), long.probability[event].mean(0), rtol=0, atol=0.03)
    assert distance(exact.gap[0], exact.gap[1]) > 0.5


@pytest.mark.parametrize("num_marks", [1, 3])
def test_samples_recover_the_clouds_the_network_learned(num_marks: int) -> None:
    network = trained(num_marks)
    sampler = SamplerConfig(samples=2000, denoise_location=True)
    found = sample(network, conditions(network, 2), sampler=sampler, noise=NOISE, seeds=torch.tensor([1, 2]))
    centre = torch.tensor([[0.4, 0.3, 0.6], [0.6, 0.7, 0.4]])
    torch.testing.assert_close(found.gap.mean(1), centre[:, 0], rtol=0.0, atol=0.05)
    torch.testing.assert_close(found.location.mean(1), centre[:, 1:], rtol=0.0, atol=0.05)


def distance(first: Tensor, second: Tensor) -> float:
    """Two-sample Kolmogorov-Smirnov distance; values clamped to a border count as equal."""
    points = torch.cat([first, second])
    shares = (torch.searchsorted(part.sort().values, points, right=True) / len(part) for part in (first, second))
    return float(torch.sub(*shares).abs().max())


def test_gap_before_denoising_follows_the_gap_law() -> None:
    network = model(3)
    condition = conditions(network, 3)
    law = gap_law(network, condition, sampler=SamplerConfig(grid_size=256), noise=NOISE)
    fine = gap_law(network, condition, sampler=SamplerConfig(grid_size=4096), noise=NOISE)
    level = torch.linspace(0.01, 0.99, 33, dtype=torch.float64).repeat(3, 1)
    torch.testing.assert_close(law.quantile(level), fine.quantile(level), rtol=0.0, atol=1e-4)
    torch.testing.assert_close(law.log_joint.exp().sum(1), law.log_density.exp(), rtol=1e-6, atol=1e-6)
    assert law.grid[[0, -1]].tolist() == [0.0, 1.0]
    wide = gap_law(network, condition, sampler=SamplerConfig(confine=False), noise=NOISE)
    torch.testing.assert_close(wide.grid[[0, -1]], torch.tensor([-0.4, 1.4], dtype=torch.float64))


def test_confinement_keeps_samples_in_the_box_and_is_optional() -> None:
    network = model(2)
    condition, seeds = conditions(network, 2), torch.tensor([5, 6])
    box = sample(network, condition, sampler=SamplerConfig(samples=400), noise=NOISE, seeds=seeds)
    free = sample(network, condition, sampler=SamplerConfig(samples=400, confine=False), noise=NOISE, seeds=seeds)
    for part in (box.gap, box.location):
        assert part.min() >= 0.0 and part.max() <= 1.0
    assert free.location.min() < 0.0 or free.location.max() > 1.0
    torch.testing.assert_close(box.probability.sum(-1), torch.ones(2, 400))


def test_no_events_give_no_samples() -> None:
    network = model(2)
    sampler = SamplerConfig(samples=5)
    none = torch.empty(0, dtype=torch.int64)
    found = sample(network, conditions(network, 0), sampler=sampler, noise=NOISE, seeds=none)
    assert [tuple(part.shape) for part in found] == [(0, 5), (0, 5, 2), (0, 5), (0, 5, 2)]
    assert gap_law(network, conditions(network, 0), sampler=sampler, noise=NOISE).cdf.shape == (0, 512)


def test_marks_follow_their_probabilities() -> None:
    probability = torch.tensor([0.2, 0.0, 0.7, 0.1]).expand(1, 20_000, 4)
    mark = SeededDraws(torch.tensor([3]), probability).marks(probability)
    shares = torch.bincount(mark[0], minlength=4) / 20_000
    torch.testing.assert_close(shares, torch.tensor([0.2, 0.0, 0.7, 0.1]), rtol=0.0, atol=0.015)
    assert shares[1] == 0.0
