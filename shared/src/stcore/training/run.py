"""The run directory: configuration, metrics, timing, checkpoints, figures and predictions of one training run."""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stcore.errors import UserError
from stcore.files import remove_temporaries, sync_folder, write_all, write_atomically, write_refused

if TYPE_CHECKING:
    from stcore.training.checkpoint import Checkpoint

_STEP_FILE = re.compile(r"^step-(\d+)\.safetensors$")


@dataclass(frozen=True)
class Run:
    """A run directory. Making the object touches nothing; `create` and `reopen` do."""

    folder: Path

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def figures(self) -> Path:
        return self.folder / "figures"

    @property
    def predictions(self) -> Path:
        return self.folder / "predictions"

    @property
    def config_file(self) -> Path:
        return self.folder / "config.toml"

    @property
    def metrics_file(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def best(self) -> Path:
        return self.checkpoints / "best.safetensors"

    def step_file(self, step: int) -> Path:
        return self.checkpoints / f"step-{step}.safetensors"

    def step_files(self) -> list[Path]:
        """Return the checkpoints of this run, oldest step first."""
        if not self.checkpoints.is_dir():
            return []
        found = [entry for entry in self.checkpoints.iterdir() if _STEP_FILE.match(entry.name)]
        return sorted(found, key=_step)

    def steps(self) -> list[int]:
        """Return the steps of `step_files`."""
        return [_step(path) for path in self.step_files()]

    @classmethod
    def create(cls, folder: Path | None, *, package: str, preset: str, config: Mapping[str, Any]) -> Run:
        """Make a fresh run directory with its `config.toml`.

        Args:
            folder: where; None chooses `runs/<package>-<preset>-<UTC>[-n]`, safe against runs started at once.
            package: name of the method.
            preset: name of the preset; characters that do not belong in a file name are replaced.
            config: the resolved configuration.

        Raises:
            UserError: the folder exists and is not empty, or cannot be made.
        """
        import tomli_w

        run = cls(_claim(folder) if folder else _claim_fresh(f"{package}-{re.sub(r'[^A-Za-z0-9._-]+', '-', preset)}"))
        try:
            # Of several processes that were given one empty folder, the first to get here has it.
            run.checkpoints.mkdir()
            run.figures.mkdir()
            run.predictions.mkdir()
        except FileExistsError:
            raise _taken(run.folder) from None
        except OSError as error:
            raise _not_made(run.folder, error) from error
        write_atomically(run.config_file, [tomli_w.dumps(dict(config)).encode()])
        return run

    @classmethod
    def reopen(cls, folder: Path) -> Run:
        """Open an existing run, and remove what killed writers left behind.

        Raises:
            UserError: `folder` is no run directory.
        """
        run = cls(folder)
        if not run.config_file.is_file():
            raise UserError(f"{folder}: no config.toml inside; expected the folder of a run")
        for part in (run.folder, run.checkpoints):
            if part.is_dir() and os.access(part, os.W_OK):
                remove_temporaries(part)
        return run

    def log(self, step: int, values: Mapping[str, float | int | str]) -> None:
        """Append one line to `metrics.jsonl`: only what is a function of configuration and data."""
        self._append(self.metrics_file, {"step": step, **values})

    def log_timing(self, step: int, values: Mapping[str, float]) -> None:
        """Append one line to `timing.jsonl`: wall-clock, rates, memory."""
        self._append(self.folder / "timing.jsonl", {"step": step, "time": round(time.time(), 3), **values})

    def metrics_length(self) -> int:
        """Make `metrics.jsonl` durable and return its length in bytes.

        Raises:
            UserError: the disk refuses.
        """
        if not self.metrics_file.exists():
            return 0
        try:
            descriptor = os.open(self.metrics_file, os.O_RDONLY)
            try:
                os.fsync(descriptor)
                return os.fstat(descriptor).st_size
            finally:
                os.close(descriptor)
        except OSError as error:
            raise write_refused(self.metrics_file, error) from error

    def cut_metrics(self, length: int) -> None:
        """Cut `metrics.jsonl` back to `length` bytes: what came after the checkpoint will be written again."""
        try:
            if self.metrics_file.exists() and self.metrics_file.stat().st_size > length:
                os.truncate(self.metrics_file, length)
        except OSError as error:
            raise write_refused(self.metrics_file, error) from error

    def prune(self, keep: set[Path]) -> None:
        """Remove the checkpoints of steps other than `keep`, once the newest is durable."""
        try:
            for path in self.step_files():
                if path not in keep:
                    path.unlink()
            sync_folder(self.checkpoints)
        except OSError as error:
            raise write_refused(self.checkpoints, error) from error

    def _append(self, path: Path, entry: Mapping[str, Any]) -> None:
        known = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in entry.items()
        }
        line = json.dumps(known) + "\n"
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                write_all(descriptor, line.encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            raise write_refused(path, error) from error


def find_checkpoint(target: Path) -> tuple[Run, Path]:
    """Resolve what `--resume` was given, a run or one of its checkpoints, to both.

    Raises:
        UserError: neither, or a run without any checkpoint.
    """
    if target.is_dir():
        run = Run.reopen(target)
        files = run.step_files()
        if not files:
            raise UserError(f"{target}: the run has no checkpoint yet; expected checkpoints/step-<n>.safetensors; "
                            "start it again with train --config on its config.toml")  # fmt: skip
        return run, files[-1]
    if not target.exists():
        raise UserError(f"{target}: no such run or checkpoint")
    if target.parent.name != "checkpoints" or not _STEP_FILE.match(target.name):
        raise UserError(f"{target}: not a step of a run; expected <run>/checkpoints/step-<n>.safetensors")
    return Run.reopen(target.parent.parent), target


def load_for_resume(target: Path) -> tuple[Run, Checkpoint]:
    """Open the run that `--resume` names, a run or one of its checkpoints, and load the checkpoint to go on from.

    Raises:
        UserError: there is none, or it is damaged; then the message names the last good one and how to resume it.
    """
    from stcore.training.checkpoint import load_checkpoint

    run, path = find_checkpoint(target)
    try:
        return run, load_checkpoint(path)
    except UserError as error:
        good = last_good_checkpoint(run, path)
        if good is None:
            way_on = f"no other checkpoint of the run is good; start again with train --config {run.config_file}"
        else:
            way_on = f"go on from the last good one with {good.metadata.get('package', '')} train --resume {good.path}"
        raise UserError(f"{error}; {way_on}") from error


def last_good_checkpoint(run: Run, damaged: Path) -> Checkpoint | None:
    """Return the newest checkpoint of `run` that verifies and is not `damaged`."""
    from stcore.training.checkpoint import load_checkpoint

    for path in reversed(run.step_files()):
        if path == damaged:
            continue
        try:
            return load_checkpoint(path)
        except UserError:
            continue
    return None


def _step(path: Path) -> int:
    match = _STEP_FILE.match(path.name)
    return int(match[1]) if match else -1


def _claim(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        if not folder.is_dir() or any(folder.iterdir()):
            raise _taken(folder) from None
    except OSError as error:
        raise _not_made(folder, error) from error
    return folder


def _claim_fresh(stem: str) -> Path:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    runs = Path("runs")
    number = 1
    try:
        runs.mkdir(exist_ok=True)
        while True:
            folder = runs / (f"{stem}-{stamp}" if number == 1 else f"{stem}-{stamp}-{number}")
            try:
                folder.mkdir()
            except FileExistsError:
                number += 1
            else:
                return folder
    except OSError as error:
        raise _not_made(runs, error) from error


def _taken(folder: Path) -> UserError:
    return UserError(f"{folder}: exists already; expected a new folder; go on with --resume, or name another")


def _not_made(folder: Path, error: OSError) -> UserError:
    return UserError(f"{folder}: cannot be made: {error.strerror}; expected a folder that can be written; name another "
                     "with --run")  # fmt: skip
