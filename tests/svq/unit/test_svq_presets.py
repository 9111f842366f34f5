"""Every preset has the published settings, survives a file, builds at full size, and trains two steps when reduced."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from svq_worlds import reduced, small_parts

from stcore.cli import pick_preset
from stcore.configuration import from_plain, to_plain
from stcore.errors import UserError
from svq.config import TrainConfig
from svq.models import FrameShape, build
from svq.presets import ALIASES, DEMO, KNOWN, PRESETS, short_names
from svq.train import train

FULL = {name: KNOWN[short] for name, short in short_names().items()}
"""Presets that have a file of the original's or of OpenSTL's."""
OTHERS = [name for name in PRESETS if name not in FULL and name not in short_names().values() and name != "demo"]
SHAPES = {"weather/t2m": (1, 32, 64), "weather/r": (1, 32, 64), "weather/uv10": (2, 32, 64), "weather/tcc": (1, 32, 64),
          "weather/mv": (12, 32, 64), "weather/hmv": (110, 32, 64), "taxibj": (2, 32, 32), "kth": (1, 128, 128),
          "kitticaltech": (3, 128, 160), "human": (3, 256, 256), "moving-mnist": (1, 64, 64)}  # fmt: skip
PARAMETERS = {
    "weather/t2m_5_625/SimVPVQ_gSTA_learnable": 14_372_529,
    "weather/uv10_5_625/SimVPVQ_Swin_learnable": 14_032_178,
    "weather/r_5_625/SimVPVQ_Swin_learnable": 14_031_857,
    "weather/mv_4_s6_5_625/SimVPVQ_MogaNet_learnable": 11_581_860,
    "weather/hmv_4_s6_5_625/SimVPVQ_gSTA_learnable": 11_609_950,
    "taxibj/simvp/SimVPVQ_gSTA_learnable": 11_575_282,
    "taxibj/simvp/SimVPVQ_ConvNeXt_learnable": 9_457_778,
    "kth/simvp/SimVPVQ_IncepU_learnable": 13_318_705,
    "kitticaltech/simvp/SimVPVQ_gSTA_learnable": 16_800_563,
    "human/simvp/SimVPVQ_gSTA_learnable": 30_702_227,
    "weather/t2m_5_625/ablation_modeltype/SimVP_IncepU": 14_666_017,
    "weather/t2m_5_625/ablation_modeltype/SimVP_ConvMixer": 1_135_905,
    "weather/t2m_5_625/ablation_modeltype/SimVP_ConvNeXt": 10_087_585,
    "weather/t2m_5_625/ablation_modeltype/SimVP_HorNet": 12_416_097,
    "weather/t2m_5_625/ablation_modeltype/SimVP_MLPMixer": 11_100_257,
    "weather/t2m_5_625/ablation_modeltype/SimVP_MogaNet": 12_762_121,
    "weather/t2m_5_625/ablation_modeltype/SimVP_Poolformer": 9_985_313,
    "weather/t2m_5_625/ablation_modeltype/SimVP_Swin": 12_417_633,
    "weather/t2m_5_625/ablation_modeltype/SimVP_Uniformer": 12_028_705,
    "weather/t2m_5_625/ablation_modeltype/SimVP_VAN": 12_149_921,
    "weather/t2m_5_625/ablation_modeltype/SimVP_ViT": 12_414_497,
}
"""Parameters of the published sizes."""


def shape_of(name: str) -> FrameShape:
    return FrameShape(*next(shape for start, shape in SHAPES.items() if name.startswith(start)))


def parameters(config: TrainConfig, shape: FrameShape) -> int:
    # The library's residual FSQ looks at its levels when it is made, which must then be there.
    with torch.device("cpu" if config.quantizer.kind == "residual-fsq" else "meta"):
        model = build(config.model, config.quantizer, shape, config.data.history)
    return sum(parameter.numel() for parameter in model.parameters())


def test_there_is_a_preset_for_every_published_row() -> None:
    assert len(FULL) == 131
    assert set(OTHERS) == {
        f"{dataset}/{model}"
        for dataset in ("moving-mnist", "kth", "taxibj")
        for model in ("simvp-gsta", "simvp-incepu", "tau")
    }
    folders = [name.rpartition("/")[0] for name in FULL]
    counts = {folder: folders.count(folder) for folder in dict.fromkeys(folders)}
    assert counts["weather/t2m_5_625/ablation_modeltype"] == 22
    assert counts["weather/t2m_5_625/ablation_noise"] == 10
    assert counts["weather/t2m_5_625/ablation_vq"] == 8
    assert counts["weather/t2m_5_625/ablation_relu"] == 4
    assert counts["weather/t2m_5_625/ablation_appendix"] == 3
    assert counts["weather/r_5_625"] == counts["weather/uv10_5_625"] == counts["weather/tcc_5_625"] == 14
    assert counts["weather/mv_4_s6_5_625"] == 14
    assert counts["weather/hmv_4_s6_5_625"] == 3
    assert counts["taxibj/simvp"] == 16
    assert {kind.quantizer.kind for kind in FULL.values()} >= {"none", "svq", "lfq", "residual-fsq", "multi-head-vq"}


@pytest.mark.parametrize("name", PARAMETERS)
def test_full_sizes_have_the_published_parameters(name: str) -> None:
    assert parameters(PRESETS[name], shape_of(name)) == PARAMETERS[name]


@pytest.mark.parametrize("name", [name for name in (*FULL, *OTHERS) if name not in PARAMETERS])
def test_preset_builds_at_its_full_size(name: str) -> None:
    assert 8e5 < parameters(PRESETS[name], shape_of(name)) < 6e7


@pytest.mark.parametrize("name", PRESETS)
def test_preset_survives_a_file(name: str) -> None:
    assert from_plain(TrainConfig, json.loads(json.dumps(to_plain(PRESETS[name]))), where=name) == PRESETS[name]


@pytest.mark.parametrize(("name", "expected"), [
    ("t2m/svq-gsta", {"rate": 5e-3, "epochs": 50, "patience": 10, "warmup": 5, "loss": "mae", "init": "normal",
                      "codes": 10_000, "drop_path": 0.1, "schedule": "cosine"}),
    ("tcc/svq-gsta", {"rate": 1e-2, "epochs": 50, "patience": 10, "warmup": 5, "loss": "mse", "init": "kaiming",
                      "codes": 10_000, "drop_path": 0.1, "schedule": "cosine"}),
    ("kth/svq-incepu", {"rate": 5e-4, "epochs": 100, "patience": 50, "warmup": 0, "loss": "mae", "init": "kaiming",
                        "codes": 6_000, "drop_path": 0.1, "schedule": "one-cycle"}),
    ("kitticaltech/svq-gsta", {"rate": 1.25e-3, "epochs": 100, "patience": 50, "warmup": 0, "loss": "mae",
                               "init": "kaiming", "codes": 6_000, "drop_path": 0.2, "schedule": "one-cycle"}),
    ("mv/svq-moganet", {"rate": 5e-3, "epochs": 200, "patience": 10, "warmup": 5, "loss": "mae", "init": "kaiming",
                        "codes": 10_000, "drop_path": 0.1, "schedule": "cosine"}),
    ("t2m/svq-gsta-post", {"rate": 5e-3, "epochs": 50, "patience": 10, "warmup": 5, "loss": "mae", "init": "kaiming",
                           "codes": 1_024, "drop_path": 0.1, "schedule": "cosine"}),
    ("t2m/svq-moganet", {"rate": 5e-3, "epochs": 50, "patience": 10, "warmup": 0, "loss": "mae", "init": "kaiming",
                         "codes": 10_000, "drop_path": 0.2, "schedule": "cosine"}),
    ("t2m/noise-svq-0.3", {"rate": 5e-3, "epochs": 50, "patience": 5, "warmup": 0, "loss": "mae", "init": "normal",
                           "codes": 10_000, "drop_path": 0.1, "schedule": "cosine"}),
])  # fmt: skip
def test_presets_have_the_published_settings(name: str, expected: dict[str, Any]) -> None:
    config = PRESETS[name]
    assert {
        "rate": config.optimiser.learning_rate, "epochs": config.fit.epochs, "patience": config.fit.patience,
        "warmup": config.schedule.warmup_epochs, "loss": config.loss.kind, "init": config.quantizer.init,
        "codes": config.quantizer.codebook_size, "drop_path": config.model.drop_path, "schedule": config.schedule.kind,
    } == expected  # fmt: skip


def test_freezing_noise_and_place_are_those_of_the_files() -> None:
    t2m = "weather/t2m_5_625"
    assert PRESETS[f"{t2m}/SimVPVQ_gSTA_frozen"].quantizer.freeze_codebook
    both = PRESETS[f"{t2m}/ablation_appendix/freeze_both"].quantizer
    assert (both.freeze_codebook, both.freeze_projection) == (True, True)
    # The original's file says frozen and does something else.
    frozen = PRESETS["weather/mv_4_s6_5_625/SimVPVQ_MogaNet_frozen"].quantizer
    assert (frozen.freeze_codebook, frozen.post) == (False, True)
    raw = PRESETS[f"{t2m}/ablation_noise/raw-0.4"]
    assert (raw.quantizer.kind, raw.quantizer.noise_ratio, raw.loss.kind) == ("none", 0.4, "mse")
    relu = PRESETS[f"{t2m}/ablation_relu/SimVPVQ_gSTA_relu_False_True"].quantizer
    assert (relu.hidden_relu, relu.out_relu) == (False, True)
    assert PRESETS["taxibj/tau"].loss.divergence == 0.1
    assert PRESETS["mv/plain-gsta"].model.hid_temporal == 512


def test_both_spellings_of_frozen_are_understood() -> None:
    for name in ("weather/r_5_625/SimVPVQ_Swin_", "weather/tcc_5_625/SimVPVQ_gSTA_", "kitticaltech/simvp/SimVPVQ_gSTA_",
                 "taxibj/simvp/SimVPVQ_gSTA_", "t2m/svq-gsta-"):  # fmt: skip
        frozen, freeze = (pick_preset(KNOWN, name + spelling) for spelling in ("frozen", "freeze"))
        assert frozen == freeze
        assert frozen.quantizer.freeze_codebook
    assert not set(ALIASES) & set(PRESETS)
    with pytest.raises(UserError, match="did you mean 't2m/svq-gsta'"):
        pick_preset(KNOWN, "t2m/svq-gst")


@pytest.mark.parametrize("name", [*FULL, *OTHERS])
def test_preset_trains_two_steps(name: str, tmp_path: Path) -> None:
    shape, config = shape_of(name), reduced(PRESETS[name])
    # Swin needs windows of 4 cells at least behind the encoder.
    side = (32, 32) if config.model.depth_spatial == 4 else (16, 16)
    parts = small_parts(min(shape.channels, 3), side, frames=config.data.history + config.data.horizon + 4)
    result = train(config, parts=parts, run=tmp_path / "run", device="cpu", quiet=True)
    lines = [json.loads(line) for line in result.run.metrics_file.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 2]
    assert all(np.isfinite(value) for line in lines for value in line.values())
    assert lines[0]["train/gradient_norm"] > 0
    assert result.best == lines[-1]["val/loss"] > 0


def test_demo_preset_is_small() -> None:
    assert parameters(DEMO, FrameShape(1, 16, 32)) < 1e6
