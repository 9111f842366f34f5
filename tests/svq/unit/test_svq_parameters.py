"""Exact numbers of parameters of the published models."""

from __future__ import annotations

import pytest
import torch

from svq.models import FrameShape, QuantizerConfig, SimVPConfig, build

T2M = FrameShape(1, 32, 64)
PLAIN = {
    "incepu": 14_666_017,
    "gsta": 12_758_305,
    "convmixer": 1_135_905,
    "convnext": 10_087_585,
    "hornet": 12_416_097,
    "mlp-mixer": 11_100_257,
    "moganet": 12_762_121,
    "poolformer": 9_985_313,
    "swin": 12_417_633,
    "uniformer": 12_028_705,
    "van": 12_149_921,
    "vit": 12_414_497,
    "tau": 12_219_553,
}
WITH_SVQ = {
    "t2m": ("gsta", (32, 256, 2, 8), 10_000, T2M, 12, 14_372_529),
    "uv10": ("swin", (32, 256, 2, 8), 10_000, FrameShape(2, 32, 64), 12, 14_032_178),
    "r": ("swin", (32, 256, 2, 8), 10_000, T2M, 12, 14_031_857),
    "mv": ("moganet", (32, 256, 2, 8), 10_000, FrameShape(12, 32, 64), 4, 11_581_860),
    "hmv": ("gsta", (32, 256, 2, 8), 10_000, FrameShape(110, 32, 64), 4, 11_609_950),
    "taxibj": ("gsta", (32, 256, 2, 8), 10_000, FrameShape(2, 32, 32), 4, 11_575_282),
    "taxibj-convnext": ("convnext", (32, 256, 2, 8), 10_000, FrameShape(2, 32, 32), 4, 9_457_778),
    "kth": ("incepu", (64, 256, 2, 6), 6_000, FrameShape(1, 128, 128), 10, 13_318_705),
    "kitticaltech": ("gsta", (64, 256, 2, 6), 6_000, FrameShape(3, 128, 160), 10, 16_800_563),
    "human": ("gsta", (64, 512, 4, 6), 10_000, FrameShape(3, 256, 256), 4, 30_702_227),
}


def _count(translator, sizes, quantizer, frame, history, *, trainable=False):
    spatial, temporal, depth_spatial, depth_temporal = sizes
    config = SimVPConfig(translator=translator, hid_spatial=spatial, hid_temporal=temporal,
                         depth_spatial=depth_spatial, depth_temporal=depth_temporal)  # fmt: skip
    with torch.device("meta"):
        model = build(config, quantizer, frame, history)
    return sum(value.numel() for value in model.parameters() if value.requires_grad or not trainable)


@pytest.mark.parametrize(("translator", "expected"), PLAIN.items())
def test_plain_simvp_for_temperature(translator, expected):
    assert _count(translator, (32, 256, 2, 8), QuantizerConfig(kind="none"), T2M, 12) == expected


@pytest.mark.parametrize("name", WITH_SVQ)
def test_published_models_with_svq(name):
    translator, sizes, codes, frame, history, expected = WITH_SVQ[name]
    assert _count(translator, sizes, QuantizerConfig(codebook_size=codes), frame, history) == expected


@pytest.mark.parametrize(
    ("frozen", "added"),
    [
        ({}, 1_614_224),
        ({"freeze_codebook": True}, 1_294_224),
        ({"freeze_projection": True}, 320_000),
        ({"freeze_codebook": True, "freeze_projection": True}, 0),
    ],
)
def test_what_svq_adds_that_is_trained(frozen, added):
    with_svq = _count("convmixer", (32, 256, 2, 8), QuantizerConfig(**frozen), T2M, 12, trainable=True)
    assert with_svq - PLAIN["convmixer"] == added
