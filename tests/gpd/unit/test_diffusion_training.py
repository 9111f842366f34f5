"""Training of the diffusion model, what a run of it holds, and what is generated from it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusion_worlds import DENOISER, DIFFUSION, FIT, SAMPLING, denoiser, world
from torch import Tensor, nn

from gpd.diffusion.configs import DiffusionConfig, SamplingConfig, StageConfig
from gpd.diffusion.memorisation import nearest_rows
from gpd.diffusion.tokens import RowScaling, make_layout
from gpd.diffusion.trained import TrainedDiffusion
from gpd.generate import bounds_of, denoiser_of, generate, generate_table
from gpd.rows import RowTable
from gpd.train import Objective, RowBatch, RowBatches, RowSource, TrainStep, Validation, draw, make_denoiser, split_rows
from gpd.train import train_diffusion as train
from stcore.errors import UserError
from stcore.sampling import Indices
from stcore.training.checkpoint import load_checkpoint
from stcore.training.loop import FitResult, Loss, StepContext

CPU = torch.device("cpu")


def trained(folder: Path, *, diffusion: DiffusionConfig = DIFFUSION, seed: int = 1, table: RowTable | None = None,
            **options: object) -> FitResult:  # fmt: skip
    rows, prompts = world()
    return train(table or rows, prompts, DENOISER, diffusion, FIT, run=folder, seed=seed, device="cpu", quiet=True,
                 **options)  # fmt: skip  # pyright: ignore[reportArgumentType]


def source_of(diffusion: DiffusionConfig = DIFFUSION) -> tuple[RowSource, RowBatches]:
    table, prompts = world()
    layout = make_layout(table.spec, "layerwise", DENOISER.channels)
    source = RowSource(table.rows, prompts, layout, RowScaling.fit(table.rows, layout, diffusion.scaling))
    return source, RowBatches(source, np.arange(len(table)), diffusion, 1)


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_an_epoch_goes_over_all_rows_as_often_as_is_asked_for() -> None:
    _, batches = source_of(replace(DIFFUSION, repeat=3, batch=5))
    order = batches.order(0)
    # 36 places in batches of five; the last one would not be full.
    assert [len(batch) for batch in order] == [5] * 7
    assert len(set(np.concatenate(order).tolist())) == 35
    counts = np.bincount(np.concatenate(order) % 12, minlength=12)
    assert counts.min() >= 2 and counts.max() == 3
    assert not np.array_equal(np.concatenate(order), np.concatenate(batches.order(1)))
    _, wide = source_of(replace(DIFFUSION, repeat=1, batch=64))
    assert [len(batch) for batch in wide.order(0)] == [12]
    assert batches.names(np.array([0, 12, 35])) == ["a/n0", "a/n0", "b/n5"]


def test_noise_belongs_to_a_place_and_not_to_a_batch() -> None:
    source, batches = source_of()
    torch.manual_seed(0)
    table, prompts = world()
    stage = StageConfig(denoiser=DENOISER, diffusion=DIFFUSION, seed=1)
    objective = Objective(make_denoiser(stage, source.layout, prompts), DIFFUSION, source.layout.trained)
    for parameter in objective.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    step = TrainStep(DIFFUSION, 1)

    def loss(ids: Indices) -> float:
        with torch.no_grad():
            return float(step(objective, batches.load(3, ids), StepContext(7, 3, ids, CPU)).total)

    whole = loss(np.array([1, 5, 9, 20]))
    halves = [loss(np.array(part)) for part in ([1, 5], [9, 20])]
    assert whole == pytest.approx(sum(halves) / 2, rel=1e-5)
    assert halves[0] != halves[1] and len(table) == 12


def test_prompts_are_dropped_at_their_rate() -> None:
    tokens = torch.zeros(400, 1, 1)
    found = draw(range(400), tokens, replace(DIFFUSION, prompt_dropout=0.25))
    assert 0.65 < float(found.prompted.float().mean()) < 0.85
    assert set(found.t.tolist()) == set(range(20))
    assert bool(draw(range(400), tokens, replace(DIFFUSION, prompt_dropout=0.0)).prompted.all())
    assert abs(float(found.noise.mean())) < 0.2 and float(found.noise.std()) == pytest.approx(1.0, abs=0.1)


def test_rows_for_validation() -> None:
    table, _ = world()
    inside, outside = split_rows(table, replace(DIFFUSION, validation=0.25), 1)
    assert (len(inside), len(outside)) == (9, 3) and not set(inside) & set(outside)
    inside, outside = split_rows(table, replace(DIFFUSION, held_out="b"), 1)
    assert inside.tolist() == list(range(6)) and outside.tolist() == list(range(6, 12))
    inside, outside = split_rows(table, replace(DIFFUSION, validation=0.0), 1)
    assert len(inside) == 12 and not len(outside)
    assert [len(part) for part in split_rows(table.take(range(3)), DIFFUSION, 1)] == [3, 0]
    with pytest.raises(UserError, match=r"^diffusion\.held-out: 'c'; expected one of the source cities, a, b"):
        split_rows(table, replace(DIFFUSION, held_out="c"), 1)
    with pytest.raises(UserError, match="none is left to train on"):
        split_rows(table.of("b"), replace(DIFFUSION, held_out="b"), 1)


def test_validation_does_not_depend_on_batches_or_ranks() -> None:
    source, _ = source_of()
    _, prompts = world()
    stage = StageConfig(denoiser=DENOISER, diffusion=DIFFUSION, seed=1)
    objective = Objective(make_denoiser(stage, source.layout, prompts), DIFFUSION, source.layout.trained).eval()
    index = np.array([2, 7, 11])
    with torch.no_grad():
        found = [
            Validation(source, index, replace(DIFFUSION, batch=size), 1, rank=0, ranks=1, device=CPU)(objective)
            for size in (4, 7, 64)
        ]
    for other in found[1:]:
        assert other["val/loss"] == pytest.approx(found[0]["val/loss"], rel=1e-5)


class Killed(Exception):
    """The end of a process, as far as a test is concerned."""


def test_a_run_resumes_to_the_bit_from_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = trained(tmp_path / "whole")
    assert whole.step == 10
    last, best = load_checkpoint(whole.run.step_files()[-1]), load_checkpoint(whole.run.best)
    table, prompts = world()
    for stop in (1, 4, 5, 9):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(TrainStep, "__call__", killed_at(stop))
            trained(tmp_path / str(stop))
        went = train(table, prompts, DENOISER, DIFFUSION, FIT, resume=tmp_path / str(stop), seed=1, device="cpu",
                     quiet=True).run  # fmt: skip
        for expected, file in ((last, went.step_files()[-1]), (best, went.best)):
            found = load_checkpoint(file)
            assert found.tensors.keys() == expected.tensors.keys()
            assert all(torch.equal(found.tensors[name], value) for name, value in expected.tensors.items()), stop
        assert lines(went.folder) == lines(whole.run.folder)


def killed_at(stop: int) -> Callable[..., Loss]:
    """Return a training step that ends the process at a step, after the checkpoint of the one before."""
    step = TrainStep.__call__

    def one(self: TrainStep, model: nn.Module, batch: RowBatch, context: StepContext) -> Loss:
        if context.step == stop:
            raise Killed
        return step(self, model, batch, context)

    return one


def test_other_rows_are_refused_on_resume(tmp_path: Path) -> None:
    table, prompts = world()
    trained(tmp_path / "run")
    other = table.with_rows(table.rows + 1.0)
    with pytest.raises(UserError, match=r"step-10\.safetensors: was trained on other rows \([0-9a-f]{12}\); expected"):
        train(other, prompts, DENOISER, DIFFUSION, FIT, resume=tmp_path / "run", device="cpu", quiet=True)
    with pytest.raises(UserError, match=r"^prompts: none for node 'n0' of 'b' \(6 such\)"):
        train(table, prompts.of("a"), DENOISER, DIFFUSION, FIT, run=tmp_path / "new", device="cpu", quiet=True)
    assert not (tmp_path / "new").exists()


def test_the_average_is_what_is_generated_from(tmp_path: Path) -> None:
    result = trained(tmp_path / "run")
    last = load_checkpoint(result.run.step_files()[-1])
    loaded = TrainedDiffusion.load(result.run.step_files()[-1]).denoiser.state_dict()
    for name, value in loaded.items():
        assert torch.equal(value, last.tensors[f"ema/ema_model.{name}"])
    assert any(not torch.equal(value, last.tensors[f"model/{name}"]) for name, value in loaded.items())
    assert "val/loss" in lines(tmp_path / "run")[-1]
    assert result.run.best.exists()


def test_without_validation_the_last_average_is_taken(tmp_path: Path) -> None:
    result = trained(tmp_path / "run", diffusion=replace(DIFFUSION, validation=0.0))
    assert not result.run.best.exists() and result.best is None
    assert TrainedDiffusion.load(tmp_path / "run").checkpoint == result.run.step_files()[-1]


def test_a_checkpoint_of_another_stage_is_refused(tmp_path: Path) -> None:
    from stcore.training.checkpoint import save_checkpoint

    save_checkpoint(tmp_path / "x.safetensors", {}, {"package": "gpd", "stage": "pretrain"})
    with pytest.raises(UserError, match=r"x\.safetensors: a checkpoint of pretrain; expected one of the diffusion"):
        TrainedDiffusion.load(tmp_path / "x.safetensors")
    save_checkpoint(tmp_path / "y.safetensors", {}, {"package": "svq"})
    with pytest.raises(UserError, match=r"y\.safetensors: a checkpoint of 'svq'; expected one of gpd"):
        TrainedDiffusion.load(tmp_path / "y.safetensors")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("diffusion") / "run").run.folder


@pytest.mark.parametrize("method", ["ddim", "ancestral"])
def test_rows_depend_on_seed_and_node_alone(method: str, run: Path) -> None:
    table, prompts = world()
    sampling = replace(SAMPLING, method=method, eta=0.3, batch=100)
    whole = generate(run, prompts, sampling, 5, device="cpu")
    assert whole.shape == table.rows.shape and bool(torch.isfinite(whole).all())
    for size in (1, 5):
        found = generate(run, prompts, replace(sampling, batch=size), 5, device="cpu")
        torch.testing.assert_close(found, whole, rtol=0.0, atol=1e-5)
    backwards = generate(run, prompts.take(np.arange(12)[::-1].copy()), sampling, 5, device="cpu")
    torch.testing.assert_close(backwards.flip(0), whole, rtol=0.0, atol=1e-5)
    torch.testing.assert_close(generate(run, prompts.of("b"), sampling, 5, device="cpu"), whole[6:], rtol=0, atol=1e-5)
    assert float((generate(run, prompts, sampling, 6, device="cpu") - whole).abs().max()) > 1e-2


def test_draws_are_averaged(run: Path) -> None:
    _, prompts = world()
    found = [generate(run, prompts, replace(SAMPLING, draws=draws), 5, device="cpu") for draws in (1, 2, 12)]
    assert not torch.equal(found[0], found[1])
    spread = [float(rows.std(0).mean()) for rows in found]
    assert spread[2] < spread[1] < spread[0]


def test_guidance_goes_beyond_the_prompts(run: Path) -> None:
    _, prompts = world()
    model = TrainedDiffusion.load(run)
    for parameter in model.denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    spatial, temporal = torch.tensor(prompts.spatial), torch.tensor(prompts.temporal)
    x = torch.randn(12, model.layout.tokens, model.layout.channels)

    def clean(guidance: float) -> Tensor:
        sampling = SamplingConfig(guidance=guidance, clip="none")
        with torch.no_grad():
            return denoiser_of(model, spatial, temporal, sampling)(x, 9)

    free, bound = clean(0.0), clean(1.0)
    torch.testing.assert_close(clean(3.0), free + 3.0 * (bound - free), rtol=1e-4, atol=1e-4)
    always = replace(model, stage=replace(model.stage, diffusion=replace(DIFFUSION, prompt_dropout=0.0)))
    with pytest.raises(UserError, match=r"^sampling\.guidance: 2 for a model that always saw its prompts; expected 1"):
        generate(always, prompts, SamplingConfig(guidance=2.0), device="cpu")


def test_rows_stay_within_their_bounds(run: Path) -> None:
    table, prompts = world()
    model = TrainedDiffusion.load(run)
    rows = generate(model, prompts, SAMPLING, 5, device="cpu")
    scaled = model.scaling.scale(rows)
    assert bool((scaled >= model.scaling.low - 1e-4).all()) and bool((scaled <= model.scaling.high + 1e-4).all())
    assert bounds_of(model, SamplingConfig(clip="none"), CPU) == (None, None)
    low, high = bounds_of(model, SamplingConfig(clip="legacy"), CPU)
    assert (float(low), float(high)) == (-1.0, 1.0)  # pyright: ignore[reportArgumentType]
    # What is filled up is nought before and after each step.
    low, high = bounds_of(model, SAMPLING, CPU)
    assert low is not None and high is not None and len(table) == 12
    assert not low[model.layout.places < 0].any() and not high[model.layout.places < 0].any()


def test_generated_tables_know_their_networks(run: Path) -> None:
    table, prompts = world()
    found = generate_table(run, prompts.of("b"), SAMPLING, 5, device="cpu")
    assert (found.model, found.features, found.cities) == (table.model, table.features, ("b",) * 6)
    assert torch.equal(found.rows, generate(run, prompts.of("b"), SAMPLING, 5, device="cpu"))


def test_prompts_of_other_widths_are_refused(run: Path) -> None:
    _, prompts = world()
    wide = replace(prompts, temporal=np.zeros((12, 9), np.float32))
    with pytest.raises(UserError, match=r"^prompts: 9 numbers in the temporal ones; expected 4, as .*safetensors was"):
        generate(run, wide, SAMPLING, device="cpu")


def test_training_learns_rows_from_prompts(tmp_path: Path) -> None:
    """Rows that prompts determine are found again, closer than the mean row is, which knows no prompts."""
    table, prompts = world(nodes=10, spread=1.0)
    diffusion = replace(DIFFUSION, batch=20, repeat=200, validation=0.0, prompt_dropout=0.0)
    result = train(table, prompts, denoiser(width=32, feedforward=32, channels=16), diffusion,
                   replace(FIT, epochs=1, ema_decay=0.98, log_every=100, checkpoint_every=1000),
                   run=tmp_path / "run", seed=1, device="cpu", quiet=True)  # fmt: skip
    rows = generate(result.run.folder, prompts, SamplingConfig(steps=10, draws=4), 5, device="cpu")
    error = float((rows - table.rows).square().mean())
    assert error < 0.6 * float((table.rows.mean(0) - table.rows).square().mean())


def test_the_nearest_rows() -> None:
    table, _ = world()
    distance, index = nearest_rows(table.rows[[3, 8]] + 0.01, table.rows, batch=5)
    assert index.tolist() == [3, 8]
    assert distance.tolist() == pytest.approx([0.01 * table.rows.shape[1] ** 0.5] * 2, rel=1e-2)
