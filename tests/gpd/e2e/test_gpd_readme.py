"""The README of gpd: its five lines run, its commands are understood, its table turns the original's into ours."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gpd_worlds import SMALL, city

from gpd import GPD
from gpd.cli import PROGRAM, main
from gpd.presets import CITIES, KNOWN
from stcore.cli import parse

README = (Path(__file__).parents[3] / "packages/gpd/README.md").read_text()
FENCED = re.findall(r"^```(\w*)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
COMMANDS = [line for language, text in FENCED if not language for line in text.replace("\\\n", " ").splitlines()]
TABLE = README.partition("## From the original's commands to ours")[2].partition("\n## ")[0]
INLINE = [call for call in re.findall(r"`(gpd [^`]+ [^`]+)`", README) if not call.startswith("gpd convert F")]
OURS = [line for line in COMMANDS if re.search(r"(^|-- )gpd(\.cli)? ", line)]
CALLS = [line.split("gpd.cli ")[-1].removeprefix("gpd ") for line in [*OURS, *INLINE]]


def test_the_five_lines_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = [text for language, text in FENCED if language == "python"]
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("bay", "delta", "harbour")):
        city(name, nodes=4, seed=seed).write(tmp_path / f"{name}.npz")
    city("harbour", nodes=4, seed=2).slice(0, 30).write(tmp_path / "harbour-today.npz")
    whole = GPD.fit
    small = replace(SMALL, evaluate=replace(SMALL.evaluate, rivals="naive"))
    monkeypatch.setattr(GPD, "fit", lambda sources: whole(sources, config=small, device="cpu", quiet=True))
    found: dict[str, Any] = {}
    exec(code, found)
    assert "fine-tuned" in capsys.readouterr().out
    assert found["forecast"].values.shape == (1, 2, 4)
    assert found["forecast"].values.mean() == pytest.approx(30.0, abs=15.0)
    assert [folder.parent.name for folder in tmp_path.glob("runs/gpd-custom-*")] == ["runs"]


@pytest.mark.parametrize("call", CALLS)
def test_commands_are_understood(call: str) -> None:
    words = shlex.split(call)
    name = " ".join(words[:2]) if " ".join(words[:2]) in PROGRAM.commands else words[0]
    command = PROGRAM.commands[name]
    if "--resume" in words or (command.defaults is not None and name not in ("train", "run", "pretrain")):
        # Their defaults come from a run, which is not here; the words themselves must still be known.
        command = type(command)(command.summary, command.options, command.target)
    assert parse(command, words[len(name.split()) :], prog=call) is not None


def test_every_preset_that_is_named_exists() -> None:
    named = re.findall(r"--preset ([\w./-]+)", README)
    assert len(named) >= 6
    assert [name for name in named if name not in KNOWN] == []


def test_the_table_has_every_city_model_and_strategy() -> None:
    for word in (*CITIES, "pemes-bay", "v_STGCN5", "v_GWN", "Trans1", "Trans5"):
        assert word in TABLE or (word == "pems-bay" and "pems-bay" in README), word
    for option in (
        "--taskmode task4",
        "--taskmode task7",
        "--targetDataset",
        "--modeldim",
        "--epochs",
        "--denoise",
        "--diffusionstep",
        "--basemodel",
        "--target_days",
        "--expIndex",
        "--aftername",
        "--ifspatial",
    ):
        assert option in TABLE, option


def test_each_command_of_the_original_runs_two_steps_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of the table in their order, with the original's cities as folders in miniature."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("metr-la", "pems-bay", "shenzhen", "chengdu_m")):
        city(name, nodes=3, days=12, seed=seed, channels=2).write(tmp_path / f"{name}.npz")
    small = (
        *("--device", "cpu", "--quiet", "--pretrain.epochs", "1", "--data.nodes", "2", "--model.channels", "4"),
        *("--model.dilation-channels", "4", "--model.skip-channels", "4", "--model.end-channels", "4"),
        *("--spatial.dim", "8", "--temporal.dim", "8", "--denoiser.width", "16", "--denoiser.heads", "2"),
        *("--denoiser.blocks", "1", "--denoiser.feedforward", "8", "--diffusion.batch", "4", "--diffusion.repeat", "2"),
        *("--fit.max-steps", "2", "--sampling.steps", "2", "--finetune.epochs", "1", "--evaluate.stride", "9"),
        *("--evaluate.rivals", "naive"),
    )  # fmt: skip
    sources = ("pems-bay.npz", "shenzhen.npz", "chengdu_m.npz")
    places = ("--data", *sources, "--target", "metr-la.npz")
    calls = re.findall(r"`gpd ((?:pretrain|train|generate|finetune|evaluate) [^`]*runs/la)`", TABLE)
    assert [call.split()[0] for call in calls] == ["pretrain", "train", "generate", "finetune", "evaluate"]
    for number, call in enumerate(calls):
        words = shlex.split(call)
        if number == 0:
            words[words.index("--data") + 1] = "metr-la.npz"
            words[words.index("runs/la")] = "runs/first"
        if number < 2:
            words += [*small, *(places if number else ("--target", "pems-bay.npz"))]
        else:
            words += ["--device", "cpu", "--quiet", *(["--no-figures"] if words[0] == "evaluate" else [])]
        assert main(words) == 0, words
    assert (tmp_path / "runs/la/checkpoints/step-2.safetensors").is_file()
    assert (tmp_path / "runs/la/evaluate/evaluation.json").is_file()
    assert (tmp_path / "runs/first/pretrain/rows.safetensors").is_file()
