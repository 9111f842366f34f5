"""Options of the application: what is refused with which words, and how --target and --days reach the configuration."""

from __future__ import annotations

from dataclasses import replace

import pytest
from gpd_worlds import FLAGS, SMALL

from gpd.cli import PROGRAM
from gpd.config import DataConfig, EvaluateConfig, RunConfig
from gpd.models.configs import NodeTrainingConfig
from stcore.cli import parse
from stcore.configuration import differences
from stcore.errors import UserError


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (DataConfig, {"days": 0}, "data.days: 0; expected at least 1"),
        (DataConfig, {"nodes": -1}, "data.nodes: -1; expected 0 (all) or more"),
        (
            NodeTrainingConfig,
            {"rates": (1e-3, 0.0), "select_on": "tail"},
            "training.rates: (0.001, 0.0); expected more",
        ),
        (NodeTrainingConfig, {"rates": (1e-3,)}, "training.rates: (0.001,); expected none unless select_on is tail"),
        (EvaluateConfig, {"stride": 0}, "evaluate.stride: 0; expected at least 1"),
        (EvaluateConfig, {"scratch_rates": (1e-3, 0.0)}, "evaluate.scratch-rates: (0.001, 0.0); expected numbers in"),
    ],
)
def test_what_does_not_fit(kind, options, message):
    with pytest.raises(UserError) as caught:
        kind(**options)
    assert str(caught.value).startswith(message)


def test_target_and_days_are_short_for_fields_of_the_data():
    words = ("--data", "a.npz", "b.npz", "--target", "c.npz", "--days", "5", "--preset", "metr-la/gwn/pre")
    options = parse(PROGRAM.commands["run"], words, prog="gpd run")
    assert options.settings.data.source == ("a.npz", "b.npz")
    assert (options.settings.data.target, options.settings.data.days) == ("c.npz", 5)
    options = parse(PROGRAM.commands["run"], ("--preset", "metr-la/gwn/pre"), prog="gpd run")
    assert (options.settings.data.target, options.settings.data.days) == ("metr-la", 7)


def test_the_small_configuration_is_the_same_as_flags():
    parsed = parse(PROGRAM.commands["run"], FLAGS, prog="gpd run").settings
    assert differences(replace(SMALL, data=parsed.data), parsed) == []


def test_a_later_stage_takes_the_configuration_of_the_run(tmp_path):
    import tomli_w

    from stcore.configuration import to_plain

    config = replace(SMALL, data=replace(SMALL.data, source=("a.npz",), target="c.npz", days=2))
    (tmp_path / "config.toml").write_text(tomli_w.dumps({"preset": "custom", **to_plain(config)}))
    options = parse(PROGRAM.commands["generate"], (str(tmp_path), "--sampling.steps", "7"), prog="gpd generate")
    assert options.sampling == replace(SMALL.sampling, steps=7)
    assert (options.data, options.seed) == (config.data, 3)
    options = parse(PROGRAM.commands["generate"], (str(tmp_path), "--target", "d.npz"), prog="gpd generate")
    assert (options.data.target, options.data.days) == ("d.npz", 2)
    # The latest stage knows best.
    (tmp_path / "generate").mkdir()
    later = replace(config, data=replace(config.data, days=4))
    (tmp_path / "generate" / "config.toml").write_text(tomli_w.dumps(to_plain(later)))
    (tmp_path / "generate" / "made.json").write_text("{}")
    assert parse(PROGRAM.commands["finetune"], (str(tmp_path),), prog="gpd finetune").data.days == 4


def test_defaults_hold_together():
    config = RunConfig()
    assert config.finetune.select_on == "tail"
    assert config.pretrain.select_on == "val"
    assert config.data.days == 3
