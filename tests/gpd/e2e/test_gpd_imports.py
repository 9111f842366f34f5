"""Files of the original through the command line, up to a fine-tuning and an evaluation from what they hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gpd_worlds import city

from gpd.cli import main
from gpd.convert import to_legacy_state_dict
from gpd.diffusion.configs import original_denoiser
from gpd.diffusion.denoiser import Denoiser, TokenTable
from gpd.diffusion.schedule import Schedule
from gpd.diffusion.tokens import make_layout
from gpd.models.configs import NodeModelConfig
from gpd.models.spec import build_node_model
from gpd.prompts import Prompts
from gpd.rows import RowTable

STGCN = NodeModelConfig(kind="stgcn", row="legacy")


def answer(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    capsys.readouterr()
    assert main([*map(str, words), "--json", "--quiet", "--device", "cpu"]) == 0
    return json.loads(capsys.readouterr().out)


def save_checkpoint_of_the_original(path: Path) -> None:
    """Write what the original saves of a narrow Trans5 for rows of v_STGCN5."""
    torch.manual_seed(0)
    config = original_denoiser("adaptive-norm", width=16)
    layout = make_layout(build_node_model(STGCN, 2).spec, "legacy", 64)
    denoiser = Denoiser(config, TokenTable.of(layout, config), 4, 4)
    state = to_legacy_state_dict(denoiser.state_dict(), "adaptive-norm")
    state |= {"kgEmb_linear.weight": torch.zeros(16, 4), "timeEmb_linear.weight": torch.zeros(16, 4)}
    schedule = Schedule.make(500, "linear", "legacy")
    buffers = {"betas": schedule.betas, "alphas_cumprod": schedule.alphas_cumprod}
    average = {**buffers, **{f"model.{name}": value for name, value in state.items()}}
    torch.save({"step": 10, "model": average, "ema": {f"ema_model.{name}": value for name, value in average.items()}},
               path)  # fmt: skip


@pytest.fixture
def original(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the users of the original have it: a city, a checkpoint, generated rows."""
    monkeypatch.chdir(tmp_path)
    series = city("DC", nodes=3, days=8, channels=2)
    (tmp_path / "DC").mkdir()
    np.save(tmp_path / "DC/dataset.npy", series.values)
    np.save(tmp_path / "DC/matrix.npy", series.adjacency.dense())
    save_checkpoint_of_the_original(tmp_path / "model-10.pt")
    samples = 0.1 * np.random.default_rng(0).normal(size=(3, 64, 265))
    np.save(tmp_path / "sampleRes_DC.npy", samples.astype(np.float32))
    return tmp_path


def test_rows_that_the_original_generated_are_tuned_and_scored(
    original: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = answer(capsys, "convert", "model-10.pt", "--preset", "DC/v_STGCN5/Trans5", "--out", "run")
    assert (found["strategy"], found["model"], found["steps"]) == ("adaptive-norm", "stgcn", 500)
    found = answer(capsys, "convert", "sampleRes_DC.npy", "--out", "run/generate/rows.safetensors")
    assert (found["rows"], found["numbers"]) == ({"DC": 3}, 16_960)
    words = ("--target", "DC", "--days", 2, "--data.step", "1 hour", "--finetune.epochs", 1)
    assert answer(capsys, "finetune", "run", *words)["rows"] == {"DC": 3}
    tuned = RowTable.read(original / "run/finetune/rows.safetensors")
    given = np.load(original / "sampleRes_DC.npy").reshape(3, -1)
    assert not np.array_equal(tuned.rows.numpy(), given)
    assert np.abs(tuned.rows.numpy() - given).max() < 0.05
    scored = answer(capsys, "evaluate", "run", "--evaluate.rivals", "naive", "--no-figures")
    assert list(scored["tables"])[:2] == ["fine-tuned", "zero-shot generated"]
    assert any("chosen on the test part" in remark for remark in scored["remarks"])


def test_a_checkpoint_of_the_original_generates_from_prompts_of_its_own(
    original: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(capsys, "convert", "model-10.pt", "--preset", "DC/v_STGCN5/Trans5", "--out", "run")
    draw = np.random.default_rng(1)
    (original / "run/prompts").mkdir()
    Prompts(spatial=draw.normal(size=(3, 4)).astype(np.float32), temporal=draw.normal(size=(3, 4)).astype(np.float32),
            cities=("DC",) * 3, nodes=("0", "1", "2")).write(original / "run/prompts/prompts.safetensors")  # fmt: skip
    words = ("--target", "DC", "--days", 2, "--data.step", "1 hour", "--sampling.method", "ddim", "--sampling.steps", 2)
    assert answer(capsys, "generate", "run", *words)["numbers"] == 16_960
    rows = RowTable.read(original / "run/generate/rows.safetensors").rows
    # The original bounds rows by -1 and 1.
    assert float(rows.abs().max()) <= 1.0
    assert len({tuple(row[:5].tolist()) for row in rows}) == 3


def test_prompts_become_one_file(original: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(original / "trafficTimeEmb.npy", np.random.default_rng(2).normal(size=(1683, 8)).astype(np.float32))
    found = answer(capsys, "convert", "trafficTimeEmb.npy", "--out", "prompts.safetensors")
    assert found["rows"] == {"metr-la": 207, "pems-bay": 325, "shenzhen": 627, "chengdu_m": 524}
    assert Prompts.read(original / "prompts.safetensors").temporal.shape == (1683, 8)


@pytest.mark.parametrize(("words", "message"), [
    (("convert", "sampleRes_DC.npy", "--out", "rows.npy"), "--out: rows.npy: ending '.npy'; expected .safetensors"),
    (("convert", "sampleRes_DC.npy", "--out", "no/rows.safetensors"), "folder no does not exist"),
    (("convert", "model-10.pt", "--out", "run.pt"), "expected a folder for the run"),
    (("convert", "DC", "--kind", "data", "--out", "dc.csv"), "expected .npz for data"),
    (("convert", "nothing.bin", "--out", "x.safetensors"), "nothing.bin: no name that the original gives its files"),
    (("convert", "model-9.pt", "--out", "run"), "model-9.pt: no such file"),
])  # fmt: skip
def test_wrong_conversions_are_refused(
    original: Path, words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(original.rglob("*"))
    assert main(list(words)) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert sorted(original.rglob("*")) == before
