"""Each package alone: what the tests of its installation share. They lie in two files, for two processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Package:
    """What isolation has to know of a package; a later one adds a row."""

    name: str
    write: Callable[[Path], None]
    """Write miniature data into a folder."""
    train: tuple[str, ...]
    """Arguments of its command line for one training step on these data."""


def _write_events(folder: Path) -> None:
    rows = [f"{sequence},{0.3 * event + 0.1 * (event % 3):.2f},{event % 5},{(event * 7) % 11},{event % 2}"
            for sequence in range(10) for event in range(8)]  # fmt: skip
    (folder / "events.csv").write_text("\n".join(["sequence,time,x,y,mark", *rows]) + "\n")


def _write_frames(folder: Path) -> None:
    frames = np.arange(120 * 16 * 16, dtype=np.float32).reshape(120, 1, 16, 16) % 97 / 97
    np.save(folder / "frames.npy", frames)


def _write_city(folder: Path) -> None:
    hour, node = np.arange(480)[:, None], np.arange(5)
    speed = 30.0 + (5.0 + node) * np.sin(2.0 * np.pi * (hour - node) / 24.0) + np.sin(1.7 * hour + node)
    np.savez(folder / "city.npz", speed=speed.astype(np.float32), adj=np.ones((5, 5), np.float32))


# Byte-compiling all of torch takes longer than everything else here, for commands that run once.
INSTALL = ("install", "-q", "--no-compile")

PACKAGES = {
    "smash": Package(
        "smash",
        _write_events,
        ("train", "--data", "events.csv", "--model.width", "4", "--model.layers", "1", "--loss.perturbations", "2",
         "--fit.max-steps", "1", "--run", "run", "--device", "cpu"),
    ),
    "stpred": Package(
        "stpred",
        _write_frames,
        ("train", "--preset", "demo", "--data", "frames.npy", "--fit.max-steps", "1", "--run", "run",
         "--device", "cpu"),
    ),
    "svq": Package(
        "svq",
        _write_frames,
        ("train", "--preset", "demo", "--data", "frames.npy", "--fit.max-steps", "1", "--run", "run",
         "--device", "cpu"),
    ),
    "gpd": Package(
        "gpd",
        _write_city,
        ("train", "--data", "city.npz", "--data.step", "1 hour", "--model.kind", "mlp", "--model.channels", "4",
         "--pretrain.epochs", "1", "--denoiser.width", "16", "--denoiser.blocks", "1", "--fit.max-steps", "1",
         "--run", "run", "--device", "cpu"),
    ),
    "vlm4st": Package(
        "vlm4st",
        _write_frames,
        ("train", "--preset", "tiny", "--data", "frames.npy", "--data.timestamps", "none", "--fit.max-steps", "1",
         "--run", "run", "--device", "cpu"),
    ),
}  # fmt: skip


def run_command(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=clean | environment, text=True,
                          capture_output=True, timeout=900, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done


def copy_clone(folder: Path) -> Path:
    """Copy what git tracks into `folder`, as a clone would have it."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, text=True, capture_output=True, check=True).stdout
    for name in listed.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def write_constraint(folder: Path) -> Path:
    """Ask for the torch that runs here, so that pip does not bring gigabytes of another build."""
    path = folder / "constraint.txt"
    path.write_text(f"torch=={version('torch').partition('+')[0]}\n")
    return path


def empty_environment(folder: Path) -> Path:
    venv.create(folder, with_pip=True)
    return folder / ("Scripts" if sys.platform == "win32" else "bin")


def check_package(package: Package, bin_folder: Path, work: Path, origin: Path) -> None:
    python = bin_folder / "python"
    code = (
        "import json, sys, importlib.metadata as m\n"
        f"import {package.name}, stcore\n"
        "print(json.dumps({'torch': 'torch' in sys.modules, "
        "'url': json.loads(m.distribution('stcore').read_text('direct_url.json'))['url'], "
        "'names': sorted(d.metadata['Name'] for d in m.distributions())}))"
    )
    found = json.loads(run_command(python, "-c", code, cwd=work).stdout)
    assert not found["torch"], "importing the package imported torch"
    assert found["url"].startswith(origin.as_uri()), "stcore came from somewhere else"
    assert not {"gpd", "vlm4st", "smash", "svq", "stpred"} - {package.name} & set(found["names"])
    command = bin_folder / package.name
    assert "train" in run_command(command, "--help", cwd=work).stdout
    package.write(work)
    run_command(command, *package.train, cwd=work, OMP_NUM_THREADS="1")
    assert (work / "run" / "checkpoints" / "step-1.safetensors").is_file()
