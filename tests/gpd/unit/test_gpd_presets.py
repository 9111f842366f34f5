"""Every preset has the values of the original's README, survives a file, and trains two steps when reduced."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from gpd_worlds import city

from gpd.config import RunConfig
from gpd.diffusion.configs import STRATEGIES
from gpd.models.spec import build_node_model, row_size
from gpd.pipeline import Pipeline
from gpd.presets import ALIASES, CITIES, DEMO, FAMILIES, KNOWN, PRESETS
from stcore.cli import pick_preset
from stcore.configuration import from_plain, to_plain
from stcore.errors import UserError
from stcore.graphs import GraphSeries

NAMED = [name for name in PRESETS if "/" in name]
OF_ONE_CITY = [name for name in NAMED if name.startswith("metr-la/")]


def test_there_is_a_run_for_each_city_model_and_strategy():
    assert len(CITIES) == 7
    assert len(NAMED) == 7 * 2 * 5 * 2
    assert {name.split("/")[0] for name in NAMED} == set(CITIES)
    assert {name.split("/")[2] for name in NAMED} == {*STRATEGIES, *(f"Trans{number}" for number in range(1, 6))}


@pytest.mark.parametrize("name", NAMED)
def test_values_of_the_readme(name: str):
    config = PRESETS[name]
    target, model, strategy = name.split("/")
    assert config.data.target == target
    assert set(config.data.source) == set(FAMILIES[CITIES[target]]) - {target}
    assert (config.data.days, config.finetune.epochs, config.pretrain.epochs) == (7, 600, 30)
    assert (config.denoiser.width, config.fit.max_steps, config.diffusion.steps) == (512, 80_000, 500)
    assert (config.diffusion.batch, config.diffusion.learning_rate, config.fit.ema_decay) == (64, 8e-5, 0.995)
    assert (config.pretrain.learning_rate, config.pretrain.weight_decay, config.pretrain.batch) == (1e-4, 1e-2, 64)
    assert config.model.kind == {"v_STGCN5": "stgcn", "v_GWN": "gwn"}.get(model, model)
    number = int(strategy[-1]) - 1 if strategy.startswith("Trans") else STRATEGIES.index(strategy)
    assert config.denoiser.strategy == STRATEGIES[number]
    assert (config.denoiser.blocks, config.denoiser.dropout) == ((3, 0.2) if number == 0 else (4, 0.1))


@pytest.mark.parametrize("name", NAMED)
def test_only_the_originals_names_repeat_its_flaws(name: str):
    config, original = PRESETS[name], "/v_" in name
    assert (config.denoiser.layout == "legacy") == original
    assert (config.model.row == "legacy") == original
    assert (config.pretrain.select_on, config.finetune.select_on) == (("test",) * 2 if original else ("val", "tail"))
    assert (config.pretrain.statistics == "full") == original
    assert config.denoiser.legacy_batch_attention == (original and config.denoiser.strategy in ("pre", "pre-adaptive"))
    assert (config.sampling.method, config.sampling.clip) == (
        ("ancestral", "legacy") if original else ("ddim", "range")
    )
    if original:
        numbers = {"stgcn": 16_960, "gwn": 91_904}[config.model.kind]
        assert row_size(build_node_model(config.model, 2).spec) == numbers
        assert numbers % config.denoiser.channels_for(numbers) == 0


def test_the_misspelt_city_is_understood():
    assert len(ALIASES) == 20
    assert pick_preset(KNOWN, "pemes-bay/gwn/pre") == PRESETS["pems-bay/gwn/pre"]
    assert pick_preset(KNOWN, "pemes-bay/v_GWN/Trans1") == PRESETS["pems-bay/v_GWN/Trans1"]
    with pytest.raises(UserError, match="did you mean 'pems-bay/gwn/pre'"):
        pick_preset(KNOWN, "pemsbay/gwn/pre")


@pytest.mark.parametrize("name", [*OF_ONE_CITY, "default", "few-days", "few-days-hourly", "demo"])
def test_a_preset_survives_a_file(name: str):
    config = PRESETS[name]
    assert from_plain(RunConfig, to_plain(config), where="file") == config


def reduced(config: RunConfig) -> RunConfig:
    """Return a run of two steps of everything, with the forms of `config`."""
    mixed = config.denoiser.strategy in ("pre", "pre-adaptive")
    return replace(
        config,
        data=replace(config.data, source=("ash",), target="cedar", days=2, nodes=2),
        pretrain=replace(config.pretrain, epochs=1, evaluate_every=1),
        spatial=replace(config.spatial, dim=8), temporal=replace(config.temporal, dim=8),
        denoiser=replace(config.denoiser, width=16, blocks=1, heads=4 if mixed else 2, feedforward=16),
        diffusion=replace(config.diffusion, batch=4, repeat=4),
        fit=replace(config.fit, epochs=2, max_steps=2),
        sampling=replace(config.sampling, steps=3),
        finetune=replace(config.finetune, epochs=1, evaluate_every=1),
    )  # fmt: skip


def small_cities() -> tuple[GraphSeries, GraphSeries]:
    return tuple(city(name, nodes=3, days=12, seed=seed, channels=2) for seed, name in enumerate(("ash", "cedar")))


@pytest.mark.parametrize("name", OF_ONE_CITY)
def test_every_form_trains_two_steps(name: str, tmp_path: Path):
    source, target = small_cities()
    config = reduced(PRESETS[name])
    pipeline = Pipeline.start(config, run=tmp_path / "run", device="cpu", quiet=True, sources=[source], target=target)
    assert pipeline.train().step == 2
    table = pipeline.pretrain()
    assert table.rows.shape == (2, row_size(build_node_model(config.model, 2).spec))
    assert bool(torch.isfinite(table.rows).all())
    # Five hundred steps of noise take their time, and are the same for all.
    if config.sampling.method == "ddim":
        rows = pipeline.finetune().rows
        assert rows.shape == (3, table.rows.shape[1])
        assert bool(torch.isfinite(rows).all())


def test_the_demo_is_small():
    assert DEMO.data.source == (DEMO.data.target,) == ("simulated",)
    assert DEMO.data.days == 3
