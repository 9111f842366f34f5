"""Tokens, scaling, attention, schedules, denoisers and samplers of the diffusion stage."""

from __future__ import annotations

import math

import pytest
import torch
from diffusion_worlds import DENOISER, denoiser, world

from gpd.diffusion.attention import WindowAttention, banded_attention, dense_attention
from gpd.diffusion.configs import (
    ALIASES,
    STRATEGIES,
    DenoiserConfig,
    DiffusionConfig,
    SamplingConfig,
    Strategy,
    Target,
    betas,
    original_denoiser,
    strategy_named,
)
from gpd.diffusion.denoiser import Denoiser, TokenTable
from gpd.diffusion.objective import goal_of, losses_of
from gpd.diffusion.samplers import ddim_times, sample, steps_back
from gpd.diffusion.schedule import Schedule, clean_from, noise_from, noised
from gpd.diffusion.tokens import RowScaling, TokenLayout, make_layout
from gpd.models.configs import NodeKind, NodeModelConfig, RowLayout
from gpd.models.spec import build_node_model, row_size
from stcore.errors import UserError


def layout_of(kind: NodeKind, row: RowLayout, channels: int, *, legacy: bool = False) -> TokenLayout:
    spec = build_node_model(NodeModelConfig(kind=kind, norm="batch", row=row), 2).spec
    return make_layout(spec, "legacy" if legacy else "layerwise", channels)


@pytest.mark.parametrize(("kind", "row", "channels", "tokens", "on_graph"), [
    ("stgcn", "native", 64, 265, 4), ("gwn", "native", 256, 308, 140), ("gwn", "legacy", 256, 360, 160),
    ("mlp", "native", 64, 83, 83),
])  # fmt: skip
def test_layerwise_tokens_hold_one_kind_of_layer(
    kind: NodeKind, row: RowLayout, channels: int, tokens: int, on_graph: int
) -> None:
    layout = layout_of(kind, row, channels)
    assert (layout.tokens, int(layout.on_graph.sum())) == (tokens, on_graph)
    for places, label in zip(layout.places, layout.kind, strict=True):
        assert set(layout.kind_of_number[places[places >= 0]].tolist()) == {int(label)}
    rows = torch.randn(2, layout.numbers)
    cut = layout.to_tokens(rows)
    assert torch.equal(layout.to_rows(cut), rows)
    assert not cut[:, layout.places < 0].any()
    # Every number that reaches a forecast is trained on, once.
    spec = build_node_model(NodeModelConfig(kind=kind, norm="batch", row=row), 2).spec
    assert int(layout.trained.sum()) == sum(entry.size for entry in spec if entry.used)


@pytest.mark.parametrize(("kind", "channels", "span"), [("stgcn", 64, (0, 4)), ("gwn", 256, (194, 354))])
def test_the_original_s_spans_follow_from_the_table(kind: NodeKind, channels: int, span: tuple[int, int]) -> None:
    found = layout_of(kind, "legacy", channels, legacy=True).on_graph.nonzero()[:, 0].tolist()
    assert found == list(range(*span))


def test_strided_rows_must_fill_their_tokens() -> None:
    with pytest.raises(UserError, match=r"^denoiser\.channels: 100 for rows of 16,960 numbers; expected a divisor"):
        layout_of("stgcn", "legacy", 100, legacy=True)


@pytest.mark.parametrize("how", ["entry", "group", "raw"])
def test_scaling_is_undone_and_bounds_hold_the_rows(how: str) -> None:
    table, _ = world()
    layout = make_layout(table.spec, "layerwise", 8)
    scaling = RowScaling.fit(table.rows, layout, how)  # pyright: ignore[reportArgumentType]
    scaled = scaling.scale(table.rows)
    torch.testing.assert_close(scaling.restore(scaled), table.rows, rtol=1e-5, atol=1e-5)
    assert bool((scaled > scaling.low).all()) and bool((scaled < scaling.high).all())
    for kind in range(len(layout.kinds)):
        part = scaled[:, layout.kind_of_number == kind]
        if how == "raw":
            assert torch.equal(part, table.rows[:, layout.kind_of_number == kind])
            continue
        assert float(part.square().mean().sqrt()) == pytest.approx(1.0, rel=1e-4)
        mean = part.mean(0).abs().max() if how == "entry" else part.mean().abs()
        assert float(mean) < 1e-4
    again = RowScaling.from_constants(scaling.constants())
    assert torch.equal(again.low, scaling.low)
    with pytest.raises(UserError, match="no scaling of rows \\(mean, deviation, low, high\\)"):
        RowScaling.from_constants({})


def test_constant_numbers_are_not_blown_up() -> None:
    table, _ = world()
    layout = make_layout(table.spec, "layerwise", 8)
    scaling = RowScaling.fit(torch.ones_like(table.rows), layout, "group")
    assert torch.equal(scaling.deviation, torch.ones_like(scaling.deviation))
    assert not scaling.scale(torch.ones_like(table.rows)).any()


@pytest.mark.parametrize("tokens", [3, 16, 17, 45])
@pytest.mark.parametrize("window", [1, 5, 20])
def test_banded_attention_is_the_dense_one(tokens: int, window: int) -> None:
    draw = torch.Generator().manual_seed(1)
    parts = [torch.randn(2, 3, tokens, width, generator=draw, requires_grad=True) for width in (4, 4, 5)]
    found = banded_attention(*parts, window=window, divisor=1.7)
    expected = dense_attention(*parts, window=window, divisor=1.7)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    weight = torch.randn(found.shape, generator=draw)
    for ours, theirs in zip(torch.autograd.grad((found * weight).sum(), parts),
                            torch.autograd.grad((expected * weight).sum(), parts), strict=True):  # fmt: skip
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_window_of_nought_sees_everything() -> None:
    attention = WindowAttention(8, heads=2, key_dim=3, value_dim=3, window=0, scale="head")
    wide = WindowAttention(8, heads=2, key_dim=3, value_dim=3, window=10, scale="head")
    wide.load_state_dict(attention.state_dict())
    x = torch.randn(2, 11, 8)
    torch.testing.assert_close(attention(x), wide(x), rtol=1e-5, atol=1e-6)
    far = x.clone()
    far[:, -1] += 1.0
    assert bool((attention(far)[:, 0] != attention(x)[:, 0]).any())


@pytest.mark.parametrize("target", ["v", "noise", "x0"])
def test_clean_rows_and_noise_are_found_again(target: Target) -> None:
    schedule = Schedule.make(20)
    x0, noise, t = torch.randn(4, 3, 2), torch.randn(4, 3, 2), torch.tensor([0, 3, 6, 9])
    x = noised(schedule, x0, t, noise)
    output = goal_of(schedule, target, x0, t, noise)
    torch.testing.assert_close(clean_from(schedule, target, x, t, output), x0, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(noise_from(schedule, x, t, x0), noise, rtol=1e-3, atol=1e-4)
    assert losses_of(schedule, DiffusionConfig(objective=target), output, x0, t, noise).tolist() == [0.0] * 4


def test_numbers_that_do_not_count_have_no_loss() -> None:
    schedule, config = Schedule.make(20), DiffusionConfig()
    x0, noise, t, output = torch.randn(2, 3, 2), torch.randn(2, 3, 2), torch.tensor([3, 9]), torch.randn(2, 3, 2)
    trained = torch.tensor([[True, True], [True, False], [False, False]])
    found = losses_of(schedule, config, output, x0, t, noise, trained=trained)
    other = losses_of(schedule, config, output + 9.0 * ~trained, x0, t, noise, trained=trained)
    assert torch.equal(found, other)
    kept = (output - goal_of(schedule, "v", x0, t, noise))[:, trained].square().mean(1)
    torch.testing.assert_close(found, kept * schedule.alphas_cumprod[t])


def test_short_schedules_end_in_noise() -> None:
    for steps in (20, 100, 499):
        left = math.sqrt(math.prod(1.0 - beta for beta in betas(steps, "linear", "auto")))
        assert left < 0.05
    for steps, share in ((20, "0.90"), (100, "0.60")):
        with pytest.raises(UserError, match=rf"^diffusion\.steps: {steps} with the linear schedule leave {share}"):
            DiffusionConfig(steps=steps, beta_scale="legacy")
    assert betas(500, "linear", "auto") == betas(500, "linear", "legacy")


@pytest.mark.parametrize("method", ["ddim", "ancestral"])
def test_samplers_find_what_the_denoiser_knows(method: str) -> None:
    schedule, known = Schedule.make(30), torch.randn(3, 4, 2)
    config = SamplingConfig(method=method, steps=6, eta=0.5)  # pyright: ignore[reportArgumentType]
    draws = 0

    def draw() -> torch.Tensor:
        nonlocal draws
        draws += 1
        return torch.randn(known.shape)

    found = sample(schedule, lambda x, t: known, draw, config)
    torch.testing.assert_close(found, known, rtol=1e-4, atol=1e-4)
    # The start, and each step but the last.
    assert draws == (30 if method == "ancestral" else 6)
    visited = [step.t for step in steps_back(schedule, lambda x, t: known, draw, config)]
    assert visited == (list(range(29, -1, -1)) if method == "ancestral" else ddim_times(30, 6)[:-1])


def test_more_steps_than_there_are_visit_each_once() -> None:
    schedule, known = Schedule.make(5), torch.zeros(1, 2, 2)
    config = SamplingConfig(steps=50)
    steps = list(steps_back(schedule, lambda x, t: known, lambda: torch.ones(1, 2, 2), config))
    assert [step.t for step in steps] == [4, 3, 2, 1, 0]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_row_does_not_depend_on_the_others(strategy: Strategy) -> None:
    table, prompts = world()
    config = denoiser(strategy=strategy)
    layout = make_layout(table.spec, "layerwise", 8)
    torch.manual_seed(0)
    model = Denoiser(config, TokenTable.of(layout, config), 3, 4).eval()
    for parameter in model.parameters():  # gates that start at zero would hide everything
        torch.nn.init.normal_(parameter, std=0.3)
    x, t = layout.to_tokens(table.rows), torch.arange(len(table))
    spatial, temporal = torch.tensor(prompts.spatial), torch.tensor(prompts.temporal)
    with torch.no_grad():
        everyone = model(x, t, spatial, temporal)
        alone = model(x[2:3], t[2:3], spatial[2:3], temporal[2:3])
        torch.testing.assert_close(alone, everyone[2:3], rtol=1e-4, atol=1e-4)
        # Both prompts, the step and the other tokens matter.
        for changed in (model(x, t, spatial + 1.0, temporal), model(x, t, spatial, temporal + 1.0),
                        model(x, t + 1, spatial, temporal)):  # fmt: skip
            assert float((changed - everyone).abs().max()) > 1e-3
        near = x.clone()
        near[:, 0] += 1.0
        assert float((model(near, t, spatial, temporal)[:, 1] - everyone[:, 1]).abs().max()) > 1e-4


def test_attention_over_the_batch_is_for_old_checkpoints_only() -> None:
    with pytest.raises(UserError, match=r"^denoiser\.legacy-batch-attention: with adaptive-norm; expected one of pre"):
        denoiser(legacy_batch_attention=True)
    assert original_denoiser("Trans3").legacy_batch_attention
    assert not original_denoiser("Trans1").legacy_batch_attention


def test_blocks_with_gates_of_zero_change_nothing() -> None:
    table, prompts = world()
    layout = make_layout(table.spec, "layerwise", 8)
    model = Denoiser(DENOISER, TokenTable.of(layout, DENOISER), 3, 4)
    x, t = layout.to_tokens(table.rows), torch.zeros(len(table), dtype=torch.int64)
    found = [model(x, t, torch.tensor(prompts.spatial), torch.tensor(scale * prompts.temporal)) for scale in (1.0, 2.0)]
    assert torch.equal(found[0], found[1])


def test_names_of_strategies() -> None:
    assert [strategy_named(f"Trans{number}") for number in range(1, 6)] == list(STRATEGIES) == list(ALIASES.values())
    with pytest.raises(UserError, match=r"^denoiser\.strategy: 'Trans6'; expected one of pre-inductive, pre, "):
        strategy_named("Trans6")


@pytest.mark.parametrize(("make", "message"), [
    (lambda: DenoiserConfig(width=7), "denoiser.width: 7; expected an even number"),
    (lambda: DenoiserConfig(strategy="pre", width=36), "denoiser.width: 36; expected a multiple of the 8 heads"),
    (lambda: DenoiserConfig(dropout=1.0), "denoiser.dropout: 1.0; expected a share"),
    (lambda: DenoiserConfig(window=-1), "denoiser.window: -1; expected 0 or more"),
    (lambda: DiffusionConfig(steps=1), "diffusion.steps: 1; expected 2 to"),
    (lambda: DiffusionConfig(learning_rate=0.0), "diffusion.learning-rate: 0.0; expected a number in"),
    (lambda: DiffusionConfig(prompt_dropout=1.0), "diffusion.prompt-dropout: 1.0; expected a share"),
    (lambda: SamplingConfig(eta=2.0), "sampling.eta: 2.0; expected a number from 0 to 1"),
    (lambda: SamplingConfig(guidance=math.nan), "sampling.guidance: nan; expected a number"),
    (lambda: SamplingConfig(draws=0), "sampling.draws: 0; expected at least 1"),
])  # fmt: skip
def test_configurations_are_checked(make: object, message: str) -> None:
    with pytest.raises(UserError) as caught:
        make()  # pyright: ignore[reportCallIssue]
    assert str(caught.value).startswith(message)


def test_rows_of_the_models_have_tokens_of_the_original_s_width() -> None:
    sizes: dict[NodeKind, int] = {"stgcn": 64, "gwn": 256}
    for kind, channels in sizes.items():
        spec = build_node_model(NodeModelConfig(kind=kind, row="legacy", norm="batch"), 2).spec
        assert DenoiserConfig().channels_for(row_size(spec)) == channels
