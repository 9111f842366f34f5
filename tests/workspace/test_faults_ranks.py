"""Several processes: the same losses as one, and the death of one ends all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from campaign import record
from faults import PACKAGES, PackageUnderTest, read_json_lines, run

from stcore.training.run import load_for_resume

_LAUNCH = ("torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node")


def distributed(package: PackageUnderTest, folder: Path, ranks: int, *flags: str) -> list[str]:
    """Return the command that trains on `ranks` processes into `run-<ranks>`, without dropout."""
    # Without the two dashes the launcher takes our --run for an abbreviation of its own --run-path.
    module, *rest = package.train(folder, *package.same_on_ranks, *flags, run=f"run-{ranks}")
    return [*_LAUNCH, str(ranks), "-m", "--", module, *rest]


@pytest.mark.parametrize("counts", [(2,), pytest.param((2, 3, 4), marks=pytest.mark.campaign)], ids=str)
@pytest.mark.parametrize("package", PACKAGES)
def test_losses_do_not_depend_on_the_number_of_processes(package: str, counts: tuple[int, ...], tmp_path: Path) -> None:
    tested, started = PACKAGES[package], time.monotonic()
    flags = ("--fit.log-every", "1", "--fit.epochs", "3", "--fit.max-steps", "20")
    alone = run(tested.train(tmp_path, *tested.same_on_ranks, *flags, run="run-1"), folder=tmp_path, warm=True)
    assert alone.code == 0, alone.stderr
    expected = read_json_lines(tmp_path / "run-1/metrics.jsonl")
    assert [line["step"] for line in expected if "train/loss" in line] == list(range(1, 21))
    worst = 0.0
    for ranks in counts:
        done = run(distributed(tested, tmp_path, ranks, *flags), folder=tmp_path, timeout_s=240)
        assert done.code == 0, done.stderr
        found = read_json_lines(tmp_path / f"run-{ranks}/metrics.jsonl")
        assert [line.keys() for line in found] == [line.keys() for line in expected]
        for line, wanted in zip(found, expected, strict=True):
            for name in wanted:
                if name.endswith("loss"):
                    worst = max(worst, abs(line[name] - wanted[name]))
    assert worst < 1e-5
    record(f"{package}: processes {counts} against one", tried=20 * len(counts), good=20 * len(counts),
           seconds=time.monotonic() - started, notes=f"losses differ by {worst:.1e} at most")  # fmt: skip


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to find the processes of a launcher")
@pytest.mark.parametrize("package", PACKAGES)
def test_the_death_of_one_process_ends_all(package: str, tmp_path: Path) -> None:
    """SIGKILL for one of two; what was saved is good."""
    tested = PACKAGES[package]
    command = distributed(tested, tmp_path, 2, "--fit.epochs", "500")
    launcher = subprocess.Popen([sys.executable, "-m", *command], cwd=tmp_path, stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not list((tmp_path / "run-2/checkpoints").glob("step-*.safetensors")):
            assert launcher.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        workers = children(launcher.pid)
        assert len(workers) == 2
        os.kill(workers[1], signal.SIGKILL)
        begun = time.monotonic()
        code = launcher.wait(timeout=30)
        assert code != 0 and time.monotonic() - begun < 30
        assert not any(alive(worker) for worker in workers)
    finally:
        for worker in children(launcher.pid):
            os.kill(worker, signal.SIGKILL)
        launcher.kill()
        launcher.wait()
    saved = load_for_resume(tmp_path / "run-2")[1].metadata
    assert saved["package"] == package and saved["step"] >= 1


def children(process: int) -> list[int]:
    """Return the processes that `process` started and that live."""
    listed = Path(f"/proc/{process}/task/{process}/children")
    return [int(number) for number in listed.read_text().split()] if listed.exists() else []


def alive(process: int) -> bool:
    """Tell whether `process` runs; one that is only waited for does not."""
    status = Path(f"/proc/{process}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"
