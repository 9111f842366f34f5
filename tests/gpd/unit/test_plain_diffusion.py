"""The plain denoiser that gpd is timed against reproduces the recordings; both sides of a case compute the same."""

from __future__ import annotations

import pytest
import torch
from benchmarks.gpd import speed_diffusion
from benchmarks.gpd.plain_diffusion import PlainDenoiser
from gpd_recordings import named, open_recording

from gpd.diffusion.configs import SamplingConfig
from gpd.generate import generate

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", named("denoiser_trans1"))
def test_the_plain_denoiser_is_that_of_the_original(name: str) -> None:
    recording = open_recording(name)
    meta = recording.meta
    inputs = [recording.input(f"input.{part}") for part in ("x_t", "t", "kg_emb", "time_emb")]
    for span, key in ((None, "output.eps_or_v"), (tuple(meta["spatialloc"]), "output.with_kg_span")):
        plain = PlainDenoiser(
            meta["d_input"], meta["d_model"], spatial=meta["d_kg"], temporal=meta["d_time"], blocks=meta["N"],
            key=meta["q"], value=meta["v"], heads=meta["h"], window=meta["attention_size"], span=span,
        )  # fmt: skip
        # What the original never uses is not there.
        plain.load_state_dict({key: value for key, value in recording.weights().items() if key in plain.state_dict()})
        with torch.no_grad():
            recording.check(key, plain(*inputs), atol=1e-5)


def test_both_attentions_of_the_benchmark_compute_the_same() -> None:
    plain, ours = speed_diffusion.attention_pair(CPU)
    x = torch.randn(1, 40, speed_diffusion.WIDTH)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), plain(x), rtol=1e-4, atol=1e-5)


def test_the_model_of_the_benchmark_generates_rows() -> None:
    trained = speed_diffusion.untrained(width=16, device=CPU)
    rows = generate(trained, speed_diffusion.prompts_of(2), SamplingConfig(steps=2), device="cpu")
    assert rows.shape == (2, 78_528) and 0.1 < float(rows.std()) < 3.0
    assert list(speed_diffusion.CASES) == ["ddim", "banded", "memory"]
