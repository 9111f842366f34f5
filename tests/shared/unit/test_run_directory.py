"""The run directory: claimed once, appended to, cut back, pruned; and its refusals."""

from __future__ import annotations

import errno
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stcore.errors import UserError
from stcore.training.run import Run


def made(folder: Path) -> Run:
    return Run.create(folder, package="toy", preset="tiny", config={"seed": 1})


def test_create_makes_the_rooms_and_the_configuration(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "a/b/run", package="toy", preset="tiny", config={"seed": 1, "fit": {"epochs": 2}})
    assert run.config_file.read_text() == "seed = 1\n\n[fit]\nepochs = 2\n"
    assert {path.name for path in run.folder.iterdir()} == {"config.toml", "checkpoints", "figures", "predictions"}
    assert Run.reopen(run.folder) == run and run.step_files() == [] and run.metrics_length() == 0


def test_fresh_names_hold_package_preset_and_time_and_never_clash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda _: Run.create(None, package="toy", preset="a b/../c", config={}), range(40)))
    names = {run.folder.name for run in runs}
    assert len(names) == 40 and {path.name for path in (tmp_path / "runs").iterdir()} == names
    assert all(re.fullmatch(r"toy-a-b-\.\.-c-\d{8}T\d{6}Z(-\d+)?", name) for name in names)


def test_one_empty_folder_goes_to_one_of_many(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()

    def claim(_: int) -> bool:
        try:
            made(tmp_path / "run")
        except UserError as error:
            assert "exists already" in str(error)
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(claim, range(8))) == 1


def test_folders_that_cannot_be_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path):
        with pytest.raises(UserError, match="exists already; expected a new folder; go on with --resume"):
            made(folder)
    with pytest.raises(UserError, match=r"cannot be made: Not a directory; .*name another with --run"):
        made(tmp_path / "file/run")
    with pytest.raises(UserError, match=r"cannot be made: File name too long"):
        made(tmp_path / ("x" * 300))
    with pytest.raises(UserError, match=r"no config\.toml inside; expected the folder of a run"):
        Run.reopen(tmp_path)
    # A file where the folder of all runs should be; this must not be tried again and again.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").write_text("x")
    with pytest.raises(UserError, match="runs: cannot be made"):
        Run.create(None, package="toy", preset="tiny", config={})


def test_lines_of_the_log_are_json_and_can_be_cut_back(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    run.log(1, {"train/loss": 0.5, "name": "β"})
    length = run.metrics_length()
    run.log(2, {"train/loss": float("nan"), "train/rate": float("inf"), "count": 3})
    lines = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    assert lines == [{"step": 1, "train/loss": 0.5, "name": "β"},
                     {"step": 2, "train/loss": None, "train/rate": None, "count": 3}]  # fmt: skip
    run.cut_metrics(length)
    assert run.metrics_length() == length and len(run.metrics_file.read_text().splitlines()) == 1
    run.cut_metrics(10_000)
    assert run.metrics_length() == length
    run.log_timing(1, {"step_s": 0.25})
    timing = json.loads((run.folder / "timing.jsonl").read_text())
    assert timing["step_s"] == 0.25 and timing["time"] > 1e9


def test_steps_sort_by_number_and_others_are_no_steps(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    for name in ("step-9", "step-10", "step-100", "best", "step-x", ".step-3.safetensors.tmp-1"):
        (run.checkpoints / (name if name.startswith(".") else f"{name}.safetensors")).write_bytes(b"")
    assert run.steps() == [9, 10, 100]
    run.prune({run.step_file(10), run.step_file(100)})
    assert run.steps() == [10, 100] and run.best.exists() and (run.checkpoints / "step-x.safetensors").exists()


@pytest.mark.parametrize(("call", "act"), [
    ("fsync", lambda run: run.metrics_length()),
    ("truncate", lambda run: run.cut_metrics(0)),
    ("write", lambda run: run.log(2, {"a": 1})),
    ("open", lambda run: run.log(2, {"a": 1})),
    ("fsync", lambda run: run.prune(set())),
])  # fmt: skip
def test_what_the_disk_refuses_is_a_user_error(call: str, act, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made(tmp_path / "run")
    run.log(1, {"a": 1})

    def refuse(*args: object, **kwargs: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(UserError, match=r"run/\w+.*: cannot be written: Input/output error; .*nothing old was lost"):
        act(run)


def test_reopening_removes_what_killed_writers_left(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    # No process has this number: it is above the largest that Linux gives.
    left = [run.checkpoints / ".step-1.safetensors.tmp-4194999", run.folder / ".config.toml.tmp-4194999"]
    kept = [run.checkpoints / ".step-1.safetensors.tmp", run.checkpoints / "note.tmp-4194999"]
    for path in (*left, *kept):
        path.write_bytes(b"part")
    Run.reopen(run.folder)
    assert not any(path.exists() for path in left) and all(path.exists() for path in kept)
