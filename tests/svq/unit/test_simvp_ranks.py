"""Two processes with half a batch each do the step of one with the whole, whatever stands in the middle."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from simvp_rank import step

SCRIPT = Path(__file__).parents[1] / "simvp_rank.py"
KINDS = ("svq", "vq", "residual-vq", "grouped-residual-vq", "multi-head-vq", "lfq", "residual-lfq", "residual-fsq")


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    running = [subprocess.Popen([sys.executable, str(SCRIPT), str(folder), str(rank), "2", *KINDS],
                                stderr=subprocess.PIPE, text=True) for rank in range(2)]  # fmt: skip
    for process in running:
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_do_the_step_of_one(kind, steps):
    alone = step(kind, 0, 1)
    first, second = (torch.load(steps / f"{kind}-{rank}.pt", weights_only=True) for rank in range(2))
    assert alone.keys() == first.keys()
    for name, expected in alone.items():
        assert torch.equal(first[name], second[name]), name
        bound = 1e-5 * float(expected.abs().max()) + 1e-7
        error = float((first[name] - expected).abs().max())
        assert error <= bound, f"{name}: differs by {error:.3g}, allowed are {bound:.3g}"
