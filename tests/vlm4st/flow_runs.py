"""Miniature trainings of vlm4st for tests: flags, a data set and a run of a few steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from flow_worlds import flows

from vlm4st.cli import main

SIZES = (
    *("--model.d-model", "8", "--model.dix-attention.num-heads", "2", "--model.dix-attention.num-layers", "1"),
    *("--model.prompt-forge.d-prompt", "4", "--model.format-transformer.spatial-pool-size", "2"),
    *("--model.format-transformer.num-latents", "3", "--model.format-transformer.vlm-hidden-dim", "16"),
    *("--model.vlm.image-res", "32", "--model.vlm.vision-width", "16", "--model.vlm.vit.depth", "1"),
    *("--model.vlm.vit.num-heads", "2", "--model.vlm.bert-config.hidden-size", "16"),
    *("--model.vlm.bert-config.num-hidden-layers", "2", "--model.vlm.bert-config.num-attention-heads", "2"),
    *("--model.vlm.bert-config.intermediate-size", "16", "--model.vlm.bert-config.fusion-layer", "1"),
    *("--model.vlm.bert-config.encoder-width", "16", "--model.prediction-head.hidden-dim", "8"),
)
SMALL = (
    *("--preset", "tiny", "--device", "cpu", "--quiet", "--seed", "3", *SIZES, "--model.T", "3", "--model.T-out", "2"),
    *("--data.batch", "8", "--data.stride", "2", "--fit.epochs", "2", "--fit.max-steps", "4", "--fit.log-every", "1"),
    *("--fit.checkpoint-every", "2"),
)
"""Flags of a miniature training; no data, no run."""
LORA = ("--model.vlm.use-lora", "--model.vlm.allow-random-backbone", "--model.vlm.lora-rank", "2")


def run(*words: object) -> int:
    """Run a command and return its exit code."""
    return main([str(word) for word in words])


def answer(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    """Run a command with --json and return what it says."""
    capsys.readouterr()
    assert run(*words, "--json", "--quiet") == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Run a command that must fail with exit code 2 and one line, and return the line."""
    capsys.readouterr()
    assert run(*words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    return said.err


def flow_file(folder: Path, name: str = "flows.npz", *, height: int = 4, width: int = 6, seed: int = 0) -> Path:
    """Write two days of flows, half an hour a frame."""
    path = folder / name
    flows(96, height=height, width=width, seed=seed).write(path)
    return path
