"""Two processes that share the nodes of a city train the same networks as one, dropping of values included."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from node_rank import CASES
from node_worlds import city

from gpd.pretrain import pretrain
from stcore.training.run import Run

SCRIPT = Path(__file__).parents[1] / "node_rank.py"


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("ranks")
    port = 20_000 + os.getpid() % 20_000
    running = []
    for rank in range(2):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
                 "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}  # fmt: skip
        running.append(subprocess.Popen([sys.executable, str(SCRIPT), str(folder)], env={**os.environ, **place},
                                        stderr=subprocess.PIPE, text=True))  # fmt: skip
    for process in running:
        _, errors = process.communicate(timeout=400)
        assert process.returncode == 0, errors
    return folder, [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_as_one(case: str, both: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    folder, found = both
    first, second = (rank[case] for rank in found)
    model, training = CASES[case]
    alone = pretrain(city(), model, training, run=tmp_path / "run", device="cpu", quiet=True)
    expected = {"rows": alone.rows, "best": torch.tensor(alone.metadata["best_epoch"]), **alone.states}
    for name, value in expected.items():
        assert torch.equal(first[name], second[name]), name
        assert float((first[name] - value).abs().max()) <= 1e-5, name
    assert Run(folder / case).steps() == Run(tmp_path / "run").steps()
