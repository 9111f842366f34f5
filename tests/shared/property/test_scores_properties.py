"""What holds for every sample: shifts, scales, order of samples and events, lowest at the right forecast."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stcore.metrics import scores

seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, size=st.integers(2, 40), shift=st.floats(-1e3, 1e3), scale=st.floats(1e-3, 1e3))
def test_scores_move_with_the_unit(seed, size, shift, scale):
    rng = np.random.default_rng(seed)
    samples, truth = torch.from_numpy(rng.gamma(2.0, size=(3, size, 2))), torch.from_numpy(rng.normal(size=(3, 2)))
    moved = scores.crps(samples[..., 0] * scale + shift, truth[:, 0] * scale + shift)
    np.testing.assert_allclose(moved, scale * scores.crps(samples[..., 0], truth[:, 0]), rtol=1e-6, atol=1e-9)
    moved = scores.energy_score(samples * scale + shift, truth * scale + shift)
    np.testing.assert_allclose(moved, scale * scores.energy_score(samples, truth), rtol=1e-6, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, size=st.integers(2, 40))
def test_order_of_samples_and_chunks_do_not_matter(seed, size):
    rng = np.random.default_rng(seed)
    samples, truth = torch.from_numpy(rng.normal(size=(5, size, 2))), torch.from_numpy(rng.normal(size=(5, 2)))
    order = torch.from_numpy(rng.permutation(size))
    for score in (scores.energy_score, lambda s, t: scores.crps(s[..., 0], t[:, 0])):
        whole = score(samples, truth)
        np.testing.assert_allclose(score(samples[:, order], truth), whole, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(torch.cat([score(samples[:2], truth[:2]), score(samples[2:], truth[2:])]), whole)
        assert bool((whole >= -1e-12).all())


@settings(max_examples=60, deadline=None)
@given(seed=seeds, size=st.integers(3, 30))
def test_geometric_median_beats_mean_and_every_sample(seed, size):
    rng = np.random.default_rng(seed)
    samples = torch.from_numpy(rng.standard_t(2.0, size=(4, size, 2)))
    best = torch.linalg.vector_norm(samples - scores.geometric_median(samples)[:, None], dim=-1).mean(1)
    rivals = torch.cat([samples, samples.mean(1, keepdim=True)], dim=1)
    others = torch.cdist(rivals, samples).mean(2).amin(1)
    assert bool((best <= others * (1 + 1e-4)).all())


def test_geometric_median_leaves_a_sample_that_is_not_the_best_point():
    corners = torch.tensor([[[0.0, 0.0], [1.0, 1.0], [2.0, 0.1], [1.0, -5.0], [1.0, 7.0]]])  # starts on (1, 0.1)
    stuck = torch.tensor([[[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.1, 3.0], [-0.1, 4.0]]])  # starts on (0, 0)
    for samples in (corners, stuck):
        x, y = (torch.linspace(-2.0, 3.0, 501, dtype=torch.float64) for _ in range(2))
        grid = torch.cartesian_prod(x, y)
        reached = torch.cdist(scores.geometric_median(samples), samples[0].double()).mean()
        assert float(reached) <= float(torch.cdist(grid, samples[0].double()).mean(1).amin()) + 1e-6
