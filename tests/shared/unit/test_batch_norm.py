"""Batch normalisation across processes: two with parts of a batch agree with one that has the whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from batch_norm_rank import MOMENTA
from torch import nn

from stcore.training.batch_norm import BatchNorm2d, in_company

SCRIPT = Path(__file__).parents[1] / "batch_norm_rank.py"


def _start(momentum=0.1):
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4, momentum=momentum)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.uniform_(-1, 1)
        norm.running_mean.uniform_(-1, 1)
    # A channel far from zero: its variance must not drown in its mean.
    x = torch.randn(6, 4, 3, 5) + torch.tensor([0.0, 3.0, -2.0, 1000.0]).view(4, 1, 1)
    return norm, x, torch.randn(6, 4, 3, 5)


def test_alone_it_is_that_of_torch():
    theirs, x, _ = _start()
    ours = BatchNorm2d(4)
    ours.load_state_dict(theirs.state_dict())
    assert not in_company()
    for _ in range(2):
        assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours.eval()(x), theirs.eval()(x))
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    norm, x, cotangent = _start()
    torch.save({"x": x, "cotangent": cotangent, "state": norm.state_dict()}, folder / "in.pt")
    running = [subprocess.Popen([sys.executable, str(SCRIPT), str(folder), str(rank), "2"],
                                stderr=subprocess.PIPE, text=True) for rank in range(2)]  # fmt: skip
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    return folder


@pytest.mark.parametrize("case", MOMENTA)
def test_two_processes_normalise_as_one(case, processes):
    norm, x, cotangent = _start(MOMENTA[case])
    first, second = (torch.load(processes / f"{case}-{rank}.pt", weights_only=True) for rank in range(2))

    exact = norm.double()
    given = x.double().requires_grad_()
    y = exact(given)
    (y * cotangent.double()).sum().backward()
    for name, expected in (("y", y), ("x", given.grad)):
        found = torch.cat([first[name], second[name]]).double()
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-4)
    for name in ("weight", "bias"):
        expected = getattr(exact, name).grad
        torch.testing.assert_close((first[name] + second[name]).double(), expected, rtol=1e-4, atol=1e-3)
    halves = torch.cat([first["half"], second["half"]])
    assert halves.dtype == torch.bfloat16
    torch.testing.assert_close(halves[:, :3].double(), exact(x.bfloat16().double())[:, :3], rtol=0.02, atol=0.02)
    for name, value in exact.state_dict().items():
        assert torch.equal(first["state"][name], second["state"][name])
        torch.testing.assert_close(first["state"][name].to(value.dtype), value, rtol=1e-5, atol=1e-5)
    later = torch.cat([first["later"], second["later"]]).double()
    torch.testing.assert_close(later, exact.eval()(x.double()), rtol=1e-4, atol=1e-3)
