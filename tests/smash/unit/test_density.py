"""The law of the next event by densities: where it starts, that it is one, that samples and gradients belong to it."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from smash.config import PRESETS, DataConfig, DensityConfig, LossConfig, ModelConfig, NoiseConfig, SamplerConfig
from smash.data import Features, TrainingBatches
from smash.density import DensityNetwork
from smash.density_start import start_density
from smash.draws import SeededDraws
from smash.gap import GapLaw
from smash.history import Recent
from smash.marginal import fit_mixture, gap_grid, log_hazard
from smash.model import Smash
from smash.sampling import gap_law, sample
from smash.train import train
from stcore.errors import UserError
from stcore.events import EventSequences
from stcore.generate.events import clustered_city
from stcore.splits import Parts
from stcore.training.config import LoopConfig

SIZES = DensityConfig(units=16, knots=8, mark_knots=3, recent=6, background=5, free=3, dropout=0.0)
NOISE = NoiseConfig()


def events(sequences: int = 8, seed: int = 0, *, marked: bool = True) -> EventSequences:
    found = clustered_city().simulate(sequences, duration=12.0, seed=seed)
    return found if marked else replace(found, mark=None, mark_names=())


@cache
def started(sizes: DensityConfig = SIZES, *, marked: bool = True, moved: bool = False) -> tuple[Smash, Tensor, Tensor]:
    """A model at its start, or moved away from it at random; conditions of the first sequences, and their targets."""
    known = events(marked=marked)
    features = Features.fit(known, log_gap=True)
    encoded = features.encode(known)
    torch.manual_seed(3)
    model = Smash(ModelConfig(width=4, layers=1, law="density", density=sizes), num_marks=features.num_marks).eval()
    start_density(model.density, encoded, features, seed=1)
    if moved:
        with torch.no_grad():
            for parameter in model.density.parameters():
                parameter.add_(0.15 * torch.randn_like(parameter))
    with torch.no_grad():
        targets = model.targets(encoded.batch(np.arange(4)))
    return model, targets.condition, targets.value


def test_the_hazard_of_the_training_part_is_that_of_its_gaps() -> None:
    gap = torch.from_numpy(np.random.Generator(np.random.Philox(key=1)).beta(4.0, 2.0, 4000))
    grid = gap_grid(384)
    hazard, below = log_hazard(gap, grid, bandwidth=0.01)
    law = GapLaw.on_grid(grid, hazard.exp()[None, None])
    ordered = gap.sort().values
    observed = torch.arange(1, 4001) / 4000.0
    assert float((law.cdf_at(ordered[None])[0] - observed).abs().max()) < 0.01
    torch.testing.assert_close(law.cdf[0], below, rtol=0.0, atol=0.005)


def test_gaps_that_repeat_keep_their_mass() -> None:
    gap = torch.cat([torch.zeros(300), torch.linspace(0.4, 0.9, 700)])
    grid = gap_grid(384)
    law = GapLaw.on_grid(grid, log_hazard(gap, grid, bandwidth=0.01)[0].exp()[None, None])
    assert float(law.cdf_at(torch.tensor([[0.2]]))) == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("marked", [True, False])
def test_without_corrections_every_history_has_the_training_law(marked: bool) -> None:
    model, condition, value = started(replace(SIZES, recent=0, free=0), marked=marked)
    density = model.density
    law = density.gap_law(condition[:5])
    expected = density.log_hazard.exp() * density.history.shares[:, None]
    torch.testing.assert_close(law.intensity, expected.expand(5, -1, -1), rtol=1e-6, atol=0.0)
    with torch.no_grad():
        _, _, place = density(condition, value, torch.zeros(len(value), dtype=torch.int64) if marked else None)
    background = density.place.background.log_terms(value[:, 1:]).logsumexp(-1)
    torch.testing.assert_close(place, background, rtol=1e-5, atol=1e-5)


def test_kernels_around_recent_events_start_with_little_weight() -> None:
    model, condition, value = started()
    summary, recent = model.density.unpack(condition)
    with torch.no_grad():
        mixture = model.density.places(summary, recent, value[:, :1], torch.zeros(len(value), 1, dtype=torch.int64))
    share = mixture.logit.softmax(-1)[..., : SIZES.background].sum(-1)
    assert 0.8 < float(share.min()) < 0.9


@pytest.mark.parametrize("marked", [True, False])
def test_densities_integrate_to_one(marked: bool) -> None:
    model, condition, value = started(marked=marked, moved=True)
    density, one = model.density, condition[7:8]
    gap = torch.linspace(-0.1, 1.1, 6001)
    rows, kind = one.expand(len(gap), -1), torch.zeros(len(gap), dtype=torch.int64)
    with torch.no_grad():
        points = torch.cat([gap[:, None], value[7:8, 1:].expand(len(gap), -1)], dim=1)
        of_gap, _, _ = density(rows, points, kind if marked else None)
        assert float(torch.trapezoid(of_gap.double().exp(), gap.double())) == pytest.approx(1.0, abs=2e-3)
        marks = density.log_marks(density.unpack(one)[0], gap[None]).exp().sum(-1)
        torch.testing.assert_close(marks, torch.ones_like(marks), rtol=0.0, atol=1e-5)
        log_density, side = _place_density(model, one)
    assert float(log_density.double().exp().sum() * side**2) == pytest.approx(1.0, abs=2e-3)


def _place_density(model: Smash, one: Tensor, points: int = 500) -> tuple[Tensor, float]:
    """Log density of the location on a grid from -2 to 3, at a gap of 0.6 and mark 0."""
    axis = torch.linspace(-2.0, 3.0, points)
    place = torch.cartesian_prod(axis, axis)[None]
    summary, recent = model.density.unpack(one)
    mark = torch.zeros(1, 1, dtype=torch.int64)
    mixture = model.density.places(summary, recent, torch.full((1, 1), 0.6), mark)
    return model.density.place.log_density(mixture, place)[0].view(points, points), float(axis[1] - axis[0])


def test_the_likelihood_is_that_of_the_gap_law() -> None:
    model, condition, value = started(moved=True)
    mark = torch.arange(len(value)) % 3
    with torch.no_grad():
        of_gap, of_mark, _ = model.density(condition, value, mark)
    law = gap_law(model, condition, sampler=SamplerConfig(), noise=NOISE)
    torch.testing.assert_close(of_gap.double(), law.log_density_at(value[:, :1])[:, 0], rtol=0.0, atol=1e-4)
    joint = law.log_joint_at(value[:, :1], mark[:, None])[:, 0]
    torch.testing.assert_close((of_gap + of_mark).double(), joint, rtol=0.0, atol=0.02)


def test_the_gradient_is_that_of_the_loss() -> None:
    model, condition, value = started(moved=True)
    density = _double(model.density)
    condition, value, mark = condition.double(), value.double(), torch.arange(len(value)) % 3
    parameters = list(density.parameters())

    def loss() -> Tensor:
        return density.mean_loss(condition, value, mark, LossConfig(mark_weight=0.7, location_weight=1.3)).total

    slopes = torch.autograd.grad(loss(), parameters)
    generator = torch.Generator().manual_seed(1)
    direction = [torch.randn(part.shape, generator=generator, dtype=torch.float64) for part in parameters]
    found = sum(float((slope * step).sum()) for slope, step in zip(slopes, direction, strict=True))
    ends: list[float] = []
    for sign in (1.0, -1.0):
        with torch.no_grad():
            for part, step in zip(parameters, direction, strict=True):
                part.add_(step, alpha=sign * 1e-6)
            ends.append(float(loss()))
            for part, step in zip(parameters, direction, strict=True):
                part.add_(step, alpha=-sign * 1e-6)
    assert found == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5)
    assert all(float(slope.abs().max()) > 0.0 for slope in slopes)


def _double(density: DensityNetwork) -> DensityNetwork:
    copy = DensityNetwork(ModelConfig(width=4, layers=1, law="density", density=SIZES), num_marks=3).eval()
    copy.load_state_dict(density.state_dict())
    return copy.double()


def test_samples_follow_the_densities() -> None:
    model, condition, _ = started(moved=True)
    one, samples = condition[9:10], 4000
    with torch.no_grad():
        drawn = model.density.draw(one, SeededDraws(torch.tensor([7]), one), samples)
        log_density, side = _place_density(model, one)
        draws = SeededDraws(torch.tensor([6]), one)
        summary, recent = model.density.unpack(one)
        fixed = torch.full((1, samples), 0.6), torch.zeros(1, samples, dtype=torch.int64)
        mixture = model.density.places(summary, recent, *fixed)
        place = model.density.place.draw(mixture, draws.uniform(samples), draws.normal(samples, 2))
    law = gap_law(model, one, sampler=SamplerConfig(), noise=NOISE)
    assert _distance(law.cdf_at(drawn.gap)[0]) < 0.025
    expected = torch.trapezoid(law.intensity[0] * torch.exp(-law.hazard), law.grid, dim=1)
    shares = torch.bincount(drawn.mark[0], minlength=3) / samples
    torch.testing.assert_close(shares.double(), expected, rtol=0.0, atol=0.03)
    for axis in range(2):
        along = log_density.double().exp().sum(1 - axis) * side
        below = (along.cumsum(0) - 0.5 * along) * side
        cells = torch.linspace(-2.0, 3.0, len(below), dtype=torch.float64)
        level = np.interp(place[0, :, axis].numpy(), cells.numpy(), below.numpy())
        assert _distance(torch.from_numpy(level)) < 0.025


def _distance(level: Tensor) -> float:
    """Kolmogorov-Smirnov distance of probabilities from evenly spread ones."""
    ordered, count = level.double().sort().values, len(level)
    return float((ordered - (torch.arange(count) + 0.5) / count).abs().max())


def test_samples_depend_on_seed_and_history_alone() -> None:
    model, condition, _ = started(moved=True)
    condition, seeds = condition[:7], torch.arange(7) * 2**33 + 7
    sampler = SamplerConfig(samples=21)
    whole = sample(model, condition, sampler=sampler, noise=NOISE, seeds=seeds)
    order = torch.tensor([3, 6, 0])
    some = sample(model, condition[order], sampler=replace(sampler, chunk_events=2), noise=NOISE, seeds=seeds[order])
    assert all(torch.equal(part, other[order]) for part, other in zip(some, whole, strict=True))
    laws = [gap_law(model, condition[part], sampler=sampler, noise=NOISE) for part in (slice(0, 7), slice(4, 5))]
    assert torch.equal(laws[0].intensity[4:5], laws[1].intensity)


def test_a_chain_is_refused() -> None:
    model, condition, _ = started()
    with pytest.raises(UserError, match=r"sampler\.mode: .reference. for a run of model\.law density; expected exact"):
        sample(model, condition[:1], sampler=SamplerConfig(mode="reference"), noise=NOISE, seeds=torch.tensor([1]))


def test_features_count_what_happened() -> None:
    model, _, _ = started()
    history = model.density.history
    time = torch.tensor([[0.0, 1.0, 1.5, 4.0]], dtype=torch.float64)
    place = torch.tensor([[[0.5, 0.5], [1.0, 0.0], [0.0, 1.0], [0.25, 0.25]]], dtype=torch.float64)
    mark = torch.tensor([[0, 2, 2, 1]])
    raw = history.raw(time, place, mark)[0]
    mean_gap, shares = float(history.scale[3]), history.shares
    speeds = SIZES.speeds + 1
    fading = [math.exp(-(1.5 - when) / mean_gap) for when in (0.0, 1.0, 1.5)]
    usual = 1.0 - math.exp(-1.5 / mean_gap)
    assert float(raw[2, 0]) == pytest.approx(math.log((sum(fading) + 1.0) / (usual + 2.0)))
    centre = raw[3, speeds : 3 * speeds].view(speeds, 2)[-1]
    torch.testing.assert_close(centre, 2.0 * place[0].mean(0) - 1.0)
    seen = raw[3, 4 * speeds : 7 * speeds].view(speeds, 3)[-1]
    torch.testing.assert_close(seen, torch.log((torch.tensor([1.0, 1.0, 2.0]) + 2.0 * shares) / 6.0))


def test_a_profile_tells_how_often_events_came_at_the_phases_ahead() -> None:
    sizes = replace(SIZES, encoded=False, profiles=(24.0,))
    model, _, _ = started(sizes)
    history, speeds = model.density.history, SIZES.speeds + 1
    days = torch.arange(10, dtype=torch.float64)[:, None] * 24.0
    time = (days + torch.tensor([6.2, 6.7, 9.5], dtype=torch.float64)).flatten()[None]
    profile = history.raw(time, torch.full((1, 30, 2), 0.5), torch.zeros(1, 30, dtype=torch.int64))[0, -3:, -6:]
    assert history.width == profile.shape[1] + 7 * speeds + 3 + 2 * 5 + 3
    usual = 28 / float(time[0, 27] - time[0, 0] + 1.0)
    at_six = torch.log(torch.tensor([19 + 2.0, 2.0]) / (torch.tensor([9.0, 9.0], dtype=torch.float64) * usual + 2.0))
    torch.testing.assert_close(profile[0, :2], at_six.double(), rtol=0.0, atol=0.02)
    assert float(profile[0, 3]) > 0.0 > float(profile[0, 4])


def test_without_an_encoder_features_alone_are_the_condition() -> None:
    model, condition, _ = started(replace(SIZES, encoded=False))
    assert model.encoder is None
    assert condition.shape[1] == model.density.history.width + model.density.history.packed_width


def test_features_see_no_later_event_and_no_padding() -> None:
    model, _, _ = started()
    history, generator = model.density.history, torch.Generator().manual_seed(2)
    time = torch.rand(2, 9, generator=generator).cumsum(1)
    place, mark = torch.rand(2, 9, 2, generator=generator), torch.randint(0, 3, (2, 9), generator=generator)
    whole = [history(time, place, mark), history.recent(time, place, mark)]
    short = [
        history(time[:1, :5], place[:1, :5], mark[:1, :5]),
        history.recent(time[:1, :5], place[:1, :5], mark[:1, :5]),
    ]
    for part, cut in zip(whole, short, strict=True):
        assert torch.equal(part[:1, :5], cut)


def test_recent_events_are_the_latest_ones() -> None:
    model, _, _ = started()
    time = torch.tensor([[0.5, 1.0, 3.0]])
    place = torch.tensor([[[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]])
    packed = model.density.history.recent(time, place, torch.tensor([[2, 0, 1]]))[0]
    recent = Recent.unpack(packed)
    torch.testing.assert_close(recent.location[2, :3], place[0].flip(0))
    mean_gap = float(model.density.history.scale[3])
    torch.testing.assert_close(recent.ago[2, :3], torch.tensor([0.0, 2.0, 2.5]) / mean_gap)
    assert recent.mark[2, :3].tolist() == [1, 0, 2]
    assert recent.present.sum(1).tolist() == [1.0, 2.0, 3.0]


def test_the_mixture_finds_clouds() -> None:
    generator = torch.Generator().manual_seed(4)
    centre = torch.tensor([[0.2, 0.3], [0.8, 0.6]])
    width = torch.tensor([[0.05, 0.01], [0.02, 0.1]])
    which = (torch.rand(3000, generator=generator) < 0.25).long()
    place = centre[which] + width[which] * torch.randn(3000, 2, generator=generator)
    found = fit_mixture(place, 2, smallest_width=1e-3, seed=0)
    order = found.mean[:, 0].argsort()
    torch.testing.assert_close(found.mean[order].float(), centre, rtol=0.0, atol=0.01)
    share = which.float().mean()
    torch.testing.assert_close(found.weight[order].float(), torch.stack([1.0 - share, share]), rtol=0.0, atol=1e-3)
    spread = torch.diagonal(found.covariance, dim1=1, dim2=2).sqrt()[order].float()
    torch.testing.assert_close(spread, width, rtol=0.1, atol=0.0)


def test_one_place_is_a_cloud_of_the_smallest_width() -> None:
    found = fit_mixture(torch.full((50, 2), 0.4), 3, smallest_width=0.01, seed=0)
    point = torch.tensor([[0.4, 0.4]], dtype=torch.float64)
    assert float(found.log_terms(point).logsumexp(-1)) == pytest.approx(-math.log(2.0 * math.pi * 0.01**2), abs=0.2)


def test_an_epoch_may_see_a_share_of_the_sequences() -> None:
    known = events(20)
    encoded = Features.fit(known, log_gap=True).encode(known)
    config = replace(PRESETS["earthquake"], data=DataConfig(batch_sequences=3, epoch_share=0.25))
    batches = TrainingBatches(encoded, known.sequence_id, config)
    epochs = [np.concatenate(batches.order(epoch)) for epoch in range(40)]
    assert {len(np.unique(epoch)) for epoch in epochs} == {5}
    assert set(np.concatenate(epochs).tolist()) == set(np.flatnonzero(known.lengths >= 2).tolist())


def test_training_learns_what_the_history_tells(tmp_path: Path) -> None:
    preset = PRESETS["earthquake-plus"]
    config = replace(
        preset, data=DataConfig(batch_sequences=8), model=replace(preset.model, width=4, density=SIZES),
        fit=LoopConfig(epochs=5, clip_norm=1.0), optimiser=replace(preset.optimiser, learning_rate=5e-3),
    )  # fmt: skip
    parts = Parts(events(24), events(8, seed=1), events(2, seed=2))
    features = Features.fit(parts.train, log_gap=True)
    model = Smash(config.model, num_marks=features.num_marks).eval()
    start_density(model.density, features.encode(parts.train), features, seed=config.seed)
    val = features.encode(parts.val)
    with torch.no_grad():
        batch = val.batch(np.flatnonzero(val.lengths > 1))
        first = model(batch, torch.empty(0, 0, 3), noise=NOISE, loss=config.loss).total
    result = train(config, parts=parts, run=tmp_path / "run", device="cpu", quiet=True)
    assert result.best is not None and result.best < float(first) - 0.3


@pytest.mark.parametrize("name", ["earthquake", "crime", "football"])
def test_published_presets_have_every_option_off(name: str) -> None:
    config = PRESETS[name]
    model = Smash(config.model, num_marks=3)
    assert (config.model.law, config.data.epoch_share, config.loss.mark_weight) == ("score", 1.0, 0.5)
    assert {key.partition(".")[0] for key in model.state_dict()} == {"encoder", "score"}
    assert model.loss_parts == ("gap_score", "location_score", "mark")


@pytest.mark.parametrize(("field", "value"), [("knots", 1), ("dropout", 1.0), ("periods", (0.0,)), ("bandwidth", 0.0)])
def test_a_setting_out_of_range_is_named(field: str, value: object) -> None:
    with pytest.raises(UserError, match=rf"model\.density\.{field}: .*; expected"):
        replace(SIZES, **{field: value})  # pyright: ignore[reportArgumentType]
