"""The README of svq: its five lines run, its presets exist, its commands are understood."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from svq_worlds import reduced, weather

import svq.train
from stcore.cli import parse
from stcore.readers.netcdf_writing import write_netcdf
from svq.cli import PROGRAM
from svq.presets import KNOWN, short_names

README = (Path(__file__).parents[3] / "packages/svq/README.md").read_text()
FENCED = re.findall(r"^```(\w*)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
COMMANDS = [line for language, text in FENCED if not language for line in text.replace("\\\n", " ").splitlines()]
OURS = [line for line in COMMANDS if re.search(r"(^|-- )svq(\.cli)? ", line)]
CALLS = [line.split("svq.cli ")[-1].removeprefix("svq ") for line in OURS]


def test_the_five_lines_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = [text for language, text in FENCED if language == "python"]
    monkeypatch.chdir(tmp_path)
    write_netcdf(weather(260), tmp_path / "t2m.nc")
    write_netcdf(weather(12, seed=1), tmp_path / "new.nc")
    whole = svq.train.train
    monkeypatch.setattr(svq.train, "train", lambda config: whole(reduced(config), device="cpu", quiet=True))
    found: dict[str, Any] = {}
    exec(code, found)
    assert found["forecast"].shape == (24, 1, 8, 16)
    assert found["forecast"].mean() == pytest.approx(280.0, abs=30.0)
    assert [folder.parent.name for folder in tmp_path.glob("runs/svq-*")] == ["runs"]


@pytest.mark.parametrize("call", CALLS)
def test_commands_are_understood(call: str) -> None:
    words = shlex.split(call)
    name = " ".join(words[:2]) if " ".join(words[:2]) in PROGRAM.commands else words[0]
    command = PROGRAM.commands[name]
    if "--resume" in words or (command.defaults is not None and name != "train"):
        # Their defaults come from a run, which is not here; the words themselves must still be known.
        command = type(command)(command.summary, command.options, command.target)
    assert parse(command, words[len(name.split()) :], prog=call) is not None


def test_every_preset_that_is_named_exists() -> None:
    named = re.findall(r"--preset ([\w./-]+)", README)
    assert len(named) > 20
    assert [name for name in named if name not in KNOWN and name != "NAME"] == []


def test_the_table_turns_every_original_file_into_a_preset() -> None:
    files = re.findall(r"configs/([\w./-]+?)\.py", README)
    assert len(files) >= 14
    assert [file for file in files if file not in KNOWN and file != "NAME"] == []
    assert KNOWN["t2m/svq-gsta"] == KNOWN["weather/t2m_5_625/SimVPVQ_gSTA_learnable"]
    assert set(short_names().values()) <= set(KNOWN)
