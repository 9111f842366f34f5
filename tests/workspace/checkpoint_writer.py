"""The process that is killed in `test_faults_checkpoint_writer`; a module of its own, so that its start is short."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from fault_launcher import install_disk_faults

from stcore.training.checkpoint import save_checkpoint
from stcore.training.run import Run

SIZE = 32 << 20
"""Bytes of its tensors."""


def save_again_and_again(folder: str, elsewhere: str) -> None:
    """Save a checkpoint, drop the one before the last, and so on; `elsewhere` is where TMPDIR points."""
    os.environ["TMPDIR"] = elsewhere
    install_disk_faults(only=".tmp-", slow_write_s=0.001, piece_bytes=1 << 18)
    run = Run(Path(folder))
    step = newest_step(run)
    while True:
        step += 1
        save_checkpoint(run.step_file(step), {"weights": torch.full((SIZE // 4,), float(step))}, {"step": step})
        run.prune({run.step_file(step), run.step_file(step - 1)})


def newest_step(run: Run) -> int:
    """Return the step of the newest checkpoint; 0 where there is none."""
    files = run.step_files()
    return int(files[-1].stem.removeprefix("step-")) if files else 0
