"""The loop: exact resume from anywhere, interruption, divergence, early stopping, accumulation."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from toy_training import CONFIG, ToyBatches, fingerprint, toy_evaluate, toy_step, train_toy

from stcore.errors import Diverged, Interrupted, UserError
from stcore.training.checkpoint import load_checkpoint
from stcore.training.loop import FitResult, Loss, StepContext
from stcore.training.run import Run


class _StopAfter:
    """The toy's step that sends a signal to this process during step `at`."""

    def __init__(self, at: int, number: int = signal.SIGTERM) -> None:
        self.at, self.number = at, number

    def __call__(self, model: nn.Module, batch: Any, context: StepContext) -> Loss:
        if context.step == self.at:
            os.kill(os.getpid(), self.number)
        return toy_step(model, batch, context)


def test_training_writes_what_a_run_promises(tmp_path: Path) -> None:
    result = train_toy(tmp_path / "run")
    run = Run(tmp_path / "run")
    lines = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    steps = len(ToyBatches().order(0)) + len(ToyBatches().order(1))
    assert result.step == steps
    assert [path.name for path in run.step_files()] == [f"step-{steps - 1}.safetensors", f"step-{steps}.safetensors"]
    assert [line["step"] for line in lines if "val/loss" in line] == [len(ToyBatches().order(0)), steps]
    assert result.best == min(line["val/loss"] for line in lines if "val/loss" in line)
    best = load_checkpoint(run.best)
    assert best.metadata["metrics"]["val/loss"] == result.best
    assert float(best.part("constants")["scale"]) == 2.0


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_from_every_step_is_bit_equal(tmp_path: Path, workers: int) -> None:
    config = replace(CONFIG, workers=workers)
    steps = train_toy(tmp_path / "whole", CONFIG).step
    expected = fingerprint(tmp_path / "whole")
    # With workers each resume starts two processes, so fewer places are tried.
    for step in range(1, steps) if workers == 0 else (3, steps - 2):
        folder = tmp_path / f"stopped-{step}"
        with pytest.raises(Interrupted) as stopped:
            train_toy(folder, config, step=_StopAfter(step - 1))
        assert stopped.value.exit_code == 143
        assert load_checkpoint(Run(folder).step_files()[-1]).metadata["step"] == step
        train_toy(folder, config, resume=folder)
        assert fingerprint(folder) == expected
        shutil.rmtree(folder)


def test_interrupt_during_evaluation_saves_and_evaluates_again(tmp_path: Path) -> None:
    train_toy(tmp_path / "whole")
    calls: list[int] = []

    def evaluate(model: nn.Module) -> dict[str, float]:
        calls.append(1)
        if len(calls) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return toy_evaluate(model)

    with pytest.raises(Interrupted) as stopped:
        train_toy(tmp_path / "stopped", evaluate=evaluate)
    assert stopped.value.exit_code == 130
    train_toy(tmp_path / "stopped", resume=tmp_path / "stopped")
    assert fingerprint(tmp_path / "stopped") == fingerprint(tmp_path / "whole")


def test_resume_of_an_older_checkpoint_replaces_the_later_ones(tmp_path: Path) -> None:
    train_toy(tmp_path / "run")
    expected = fingerprint(tmp_path / "run")
    older = Run(tmp_path / "run").step_files()[0]
    train_toy(tmp_path / "run", resume=older)
    assert fingerprint(tmp_path / "run") == expected


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_non_finite_stops_at_that_step_with_its_samples(tmp_path: Path, where: str) -> None:
    def step(model: nn.Module, batch: Any, context: StepContext) -> Loss:
        loss = toy_step(model, batch, context)
        if context.step != 5:
            return loss
        bad = loss.total * float("nan") if where == "loss" else loss.total + (model(batch[0]) * 0.0).sqrt().sum()
        return Loss(bad, loss.weight)

    with pytest.raises(Diverged) as stopped:
        train_toy(tmp_path / "run", replace(CONFIG, ema_decay=0.0), step=step)
    message = str(stopped.value)
    assert "step 5:" in message and "learning rate 0.01" in message and "sample-" in message
    assert "step-5.safetensors" in message
    weights = load_checkpoint(Run(tmp_path / "run").step_files()[-1]).part("model")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in weights.values())


def test_patience_counts_evaluations_without_improvement(tmp_path: Path) -> None:
    values = iter([3.0, 2.0, 2.5, 2.1, 2.2, 1.0])
    result = train_toy(
        tmp_path / "run", replace(CONFIG, epochs=6, patience=3), evaluate=lambda model: {"val/loss": next(values)}
    )
    assert (result.stopped_early, result.epoch, result.best) == (True, 5, 2.0)
    assert load_checkpoint(Run(tmp_path / "run").best).metadata["metrics"] == {"val/loss": 2.0}


def test_accumulated_batches_weigh_by_their_samples(tmp_path: Path) -> None:
    seen: list[float] = []

    def step(model: nn.Module, batch: Any, context: StepContext) -> Loss:
        loss = toy_step(model, batch, context)
        if context.step == 0:
            seen.append(float(loss.total.detach()) * loss.weight)
            seen.append(loss.weight)
        return loss

    config = replace(CONFIG, accumulate=3, log_every=1, max_steps=1)
    train_toy(tmp_path / "run", config, step=step, dropout=0.0)
    first = json.loads(Run(tmp_path / "run").metrics_file.read_text().splitlines()[0])
    assert first["train/loss"] == pytest.approx(sum(seen[0::2]) / sum(seen[1::2]), rel=1e-6)


def test_finished_runs_are_left_alone(tmp_path: Path) -> None:
    steps = train_toy(tmp_path / "run").step
    before = fingerprint(tmp_path / "run")
    assert train_toy(tmp_path / "run", resume=tmp_path / "run").step == steps
    assert fingerprint(tmp_path / "run") == before


def test_existing_run_folders_are_refused(tmp_path: Path) -> None:
    train_toy(tmp_path / "run", replace(CONFIG, max_steps=1))
    with pytest.raises(UserError, match="exists already"):
        train_toy(tmp_path / "run")


def test_too_little_space_is_said_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match="10 bytes free"):
        train_toy(tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_two_trainings_in_one_process_equal_each_other(tmp_path: Path) -> None:
    train_toy(tmp_path / "one")
    torch.manual_seed(99)
    train_toy(tmp_path / "two")
    assert fingerprint(tmp_path / "one") == fingerprint(tmp_path / "two")


def test_how_it_ended_in_words_and_values(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", package="toy", preset="toy", config={})
    early, unjudged = FitResult(run, 120, 3, 0.25, True), FitResult(run, 8, 1, None, False)
    assert early.words("val/loss", "protocol paper") == (
        f"stopped early after 3 epochs (120 steps), best val/loss 0.25, protocol paper, run: {run.folder}"
    )
    assert unjudged.words("val/loss") == f"done after 1 epochs (8 steps), run: {run.folder}"
    assert early.data() == {
        "run": str(run.folder), "step": 120, "epochs": 3, "best": 0.25, "stopped_early": True
    }  # fmt: skip
