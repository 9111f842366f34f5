"""Writers that are killed, or that the disk refuses: the previous checkpoint always stays whole."""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from campaign import SHARES, count, record
from checkpoint_writer import SIZE, newest_step, save_again_and_again
from fault_launcher import CALLS, DISK, install_disk_faults
from faults import Fault, Inside, digests, only_line, run, warm_processes
from toy_training import CONFIG, train_toy

import stcore.files
from stcore.errors import UserError
from stcore.training.checkpoint import load_checkpoint, save_checkpoint
from stcore.training.run import Run


@SHARES
def test_kills_inside_the_writer_never_tear_a_checkpoint(share: float, tmp_path: Path) -> None:
    """SIGKILL at a random place of the file, or soon after its last byte, with TMPDIR on another filesystem."""
    run_ = Run.create(tmp_path / "run", package="toy", preset="kill", config={"seed": 0})
    context = warm_processes()
    kills, left_behind, partly, started = count(200, share), 0, 0, time.monotonic()
    moments = random.Random(4)
    with tempfile.TemporaryDirectory(dir=_another_filesystem()) as elsewhere:
        for _ in range(kills):
            writer = context.Process(target=save_again_and_again, args=(str(run_.folder), elsewhere))
            writer.start()
            # The first saves of a writer pass, so that there is something older to lose.
            kill_inside(
                writer, run_, after_step=newest_step(run_) + moments.randint(0, 1), part=moments.uniform(0, 1.2)
            )
            temporaries = list(run_.checkpoints.glob(".*.tmp-*"))
            left_behind += bool(temporaries)
            partly += any(path.stat().st_size < SIZE for path in temporaries)
            files = run_.step_files()
            assert len(files) <= 3
            for path in files:
                checkpoint = load_checkpoint(path)
                step = checkpoint.metadata["step"]
                assert path.name == f"step-{step}.safetensors"
                assert bool((checkpoint.tensors["weights"] == float(step)).all())
            Run.reopen(run_.folder)
            assert not list(run_.checkpoints.glob(".*"))
        assert not list(Path(elsewhere).iterdir())
    assert newest_step(run_) >= 2
    # The kills must have met the writer at work, or this shows nothing.
    assert partly >= kills // 2
    record("kills inside the checkpoint's writer", tried=kills, good=kills, seconds=time.monotonic() - started,
           notes=f"{left_behind} left a temporary file, {partly} of them cut short; gone later")  # fmt: skip


def kill_inside(writer: Any, run_: Run, *, after_step: int, part: float) -> None:
    """Kill `writer` once the file of the next step has `part` of its size; above 1, that much later in tens of ms."""
    deadline = time.monotonic() + 60.0
    target = run_.checkpoints / f".step-{after_step + 1}.safetensors.tmp-{writer.pid}"
    while time.monotonic() < deadline:
        try:
            written = target.stat().st_size
        except FileNotFoundError:
            written = -1
        if written >= min(part, 1.0) * SIZE or newest_step(run_) > after_step:
            break
    time.sleep(max(0.0, part - 1.0) / 2)
    writer.kill()
    writer.join()
    assert writer.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_every_call_of_the_writer_may_fail(number: int, tmp_path: Path) -> None:
    """The n-th call to the disk fails once, for every n there is: old or new file, whole; no temporary; one error."""
    path = tmp_path / "step-1.safetensors"
    old, new = {"a": torch.zeros(3 << 20)}, {"a": torch.ones(3 << 20)}
    refused, started = 0, time.monotonic()
    for nth in range(1, 100):
        save_checkpoint(path, old, {"step": 0})
        with _disk_faults(Inside(only=str(tmp_path), fail_nth=nth, fail_errno=number)):
            try:
                save_checkpoint(path, new, {"step": 1})
            except UserError as error:
                refused += 1
                text = str(error)
            else:
                break
        assert str(path) in text and "12,583" in text and os.strerror(number) in text and "\n" not in text
        assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
        found = load_checkpoint(path)
        assert bool((found.tensors["a"] == float(found.metadata["step"])).all())
        # Only what comes after the rename, the folder's own open and fsync, may fail with the new file in place.
        assert found.metadata["step"] == 0 or refused >= 7
    # open, header, three pieces of 4 MiB, fsync, replace, open and fsync of the folder.
    assert refused == 9 and load_checkpoint(path).metadata["step"] == 1
    record(f"n-th call of the writer fails with {errno.errorcode[number]}", tried=refused, good=refused,
           seconds=time.monotonic() - started)  # fmt: skip


@SHARES
def test_every_call_of_a_training_may_fail(share: float, tmp_path: Path) -> None:
    """The n-th call to the disk of a whole run fails: a user error, and what is there resumes to the same end."""
    config = _two_steps()
    train_toy(tmp_path / "whole", config)
    expected = digests(tmp_path / "whole/checkpoints")
    tried, started, nth, stride = 0, time.monotonic(), 0, 1 if share == 1.0 else 4
    while True:
        nth += stride
        folder = tmp_path / f"failed-{nth}"
        try:
            with _disk_faults(Inside(only=folder.name, fail_nth=nth, fail_errno=errno.ENOSPC)):
                train_toy(folder, config)
        except UserError as error:
            text = str(error)
        else:
            break
        tried += 1
        assert str(folder) in text and os.strerror(errno.ENOSPC) in text and "\n" not in text
        assert not list(folder.rglob(".*"))
        files = Run(folder).step_files()
        assert all(load_checkpoint(path).metadata["package"] == "toy" for path in files)
        if files:
            train_toy(folder, config, resume=folder)
            kept = digests(folder / "checkpoints")
            assert kept["step-2.safetensors"] == expected["step-2.safetensors"]
            assert kept["best.safetensors"] == expected["best.safetensors"]
            assert (folder / "metrics.jsonl").read_bytes() == (tmp_path / "whole/metrics.jsonl").read_bytes()
    assert tried >= 20 // stride
    record("n-th call to the disk of a training fails with ENOSPC", tried=tried, good=tried,
           seconds=time.monotonic() - started, notes="then resumed to the same bytes")  # fmt: skip


def test_a_limit_on_file_size_keeps_the_old_checkpoint(tmp_path: Path) -> None:
    """RLIMIT_FSIZE of 1 MB, as a quota does it: EFBIG from the kernel itself."""
    (tmp_path / "limited.py").write_text(
        "import sys\nfrom pathlib import Path\nimport torch\n"
        "from stcore.errors import UserError\nfrom stcore.training.checkpoint import save_checkpoint\n"
        "path = Path('step-1.safetensors')\n"
        "save_checkpoint(path, {'a': torch.zeros(1000)}, {'step': 0})\n"
        "try:\n    save_checkpoint(path, {'a': torch.ones(1_000_000)}, {'step': 1})\n"
        "except UserError as error:\n    sys.exit(str(error))\n"
    )
    result = run(["limited"], folder=tmp_path, fault=Fault(inside=Inside(file_limit_bytes=1 << 20)))
    assert result.code == 1
    line = only_line(result)
    assert (
        "step-1.safetensors" in line and os.strerror(errno.EFBIG) in line and "4,000," in line and "free some" in line
    )
    assert sorted(result.files) == ["limited.py", "step-1.safetensors"]
    assert load_checkpoint(tmp_path / "step-1.safetensors").metadata["step"] == 0


def test_a_full_filesystem_keeps_the_old_checkpoint(tmp_path: Path) -> None:
    """A tmpfs of 8 MB in a mount namespace of its own; where that is not permitted the limit above has to do."""
    unshare = shutil.which("unshare")
    inside = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(tmp_path)]
    if unshare is None or subprocess.run([unshare, "-m", *inside], capture_output=True).returncode:
        pytest.skip("mounting a small filesystem is not permitted here; the limit on file size stands for it")
    script = tmp_path.with_name(f"{tmp_path.name}-full.py")
    script.write_text(
        "import os\nfrom pathlib import Path\nimport torch\n"
        "from stcore.errors import UserError\nfrom stcore.training.checkpoint import load_checkpoint, save_checkpoint\n"
        "path = Path('step-1.safetensors')\n"
        "save_checkpoint(path, {'a': torch.zeros(1_000_000)}, {'step': 0})\n"
        "try:\n    save_checkpoint(path, {'a': torch.ones(1_500_000)}, {'step': 1})\n"
        "except UserError as error:\n    print(error)\n"
        "print(load_checkpoint(path).metadata['step'], os.listdir())\n"
    )
    command = f'{" ".join(inside)} && cd "{tmp_path}" && exec "{sys.executable}" "{script}"'
    found = subprocess.run([unshare, "-m", "sh", "-c", command], capture_output=True, text=True, timeout=60)
    refusal, kept = found.stdout.splitlines()
    assert "step-1.safetensors" in refusal and os.strerror(errno.ENOSPC) in refusal and "6,000," in refusal
    assert kept == "0 ['step-1.safetensors']"


def test_a_full_device_refuses_a_log_in_one_line(tmp_path: Path) -> None:
    """/dev/full in the place of metrics.jsonl: the kernel's own ENOSPC."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    run_ = Run.create(tmp_path / "run", package="toy", preset="full", config={"seed": 0})
    run_.metrics_file.symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"metrics\.jsonl: cannot be written: No space left on device; free some space"):
        run_.log(1, {"loss": 0.5})


def test_interrupts_inside_the_writer_leave_no_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "step-1.safetensors"
    save_checkpoint(path, {"a": torch.zeros(8)}, {"step": 0})

    def interrupted(descriptor: int, chunk: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("stcore.training.checkpoint.write_all", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, {"a": torch.ones(8)}, {"step": 1})
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert load_checkpoint(path).metadata["step"] == 0


def test_temporaries_of_living_writers_stay(tmp_path: Path) -> None:
    """Who looks at a run while it trains must not take the file from under its writer."""
    living = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        theirs = tmp_path / f".step-1.safetensors.tmp-{living.pid}"
        ours = tmp_path / f".step-1.safetensors.tmp-{os.getpid()}"
        other = tmp_path / ".step-1.safetensors.tmp-x"
        for path in (theirs, ours, other):
            path.write_bytes(b"part")
        stcore.files.remove_temporaries(tmp_path)
        assert sorted(tmp_path.iterdir()) == sorted([theirs, other])
        living.send_signal(signal.SIGKILL)
        living.wait()
        stcore.files.remove_temporaries(tmp_path)
        assert list(tmp_path.iterdir()) == [other]
    finally:
        living.kill()
        living.wait()


def test_the_writer_holds_one_copy_at_most(tmp_path: Path) -> None:
    weights = {"a": torch.ones(16 << 20)}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    save_checkpoint(tmp_path / "step-1.safetensors", weights, {"step": 1})
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 64 << 20


def _two_steps() -> Any:
    return replace(CONFIG, max_steps=2, log_every=1)


class _disk_faults:
    """Lay faults into this process for the length of a block."""

    def __init__(self, inside: Inside) -> None:
        self._faults = {name: getattr(inside, name) for name in DISK}

    def __enter__(self) -> None:
        self._real = {name: getattr(os, name) for name in CALLS}
        install_disk_faults(**self._faults)

    def __exit__(self, *_: object) -> None:
        for name, function in self._real.items():
            setattr(os, name, function)


def _another_filesystem() -> Path | None:
    """Return shared memory, another filesystem than that of the tests, where there is such a thing."""
    shared = Path("/dev/shm")
    return shared if shared.is_dir() and os.access(shared, os.W_OK) else None
