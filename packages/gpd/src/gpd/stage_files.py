"""The files of a run's stages: who writes them, when, and what is read back of them."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Generator
from pathlib import Path

import tomli_w
import torch.distributed

from gpd.config import RunConfig
from gpd.prompts.table import Prompts
from gpd.rows import RowTable
from stcore.configuration import read_toml, to_plain
from stcore.files import write_atomically, write_refused
from stcore.graphs import GraphSeries
from stcore.training.run import Run

ROWS, PROMPTS, CITIES = "rows.safetensors", "prompts.safetensors", "cities"


@contextlib.contextmanager
def told(path: Path) -> Generator[None]:
    """Turn what a disk refuses into one line."""
    try:
        yield
    except OSError as error:
        raise write_refused(path, error) from error


def started(folder: Path) -> Path | None:
    """Return the folder of a training that has a checkpoint to go on from; one that has none yet is cleared away."""
    if any((folder / "checkpoints").glob("step-*.safetensors")):
        return folder
    wait()
    if is_first():
        shutil.rmtree(folder, ignore_errors=True)
    wait()
    return None


def write(result: RowTable | Prompts, path: Path) -> None:
    """Write a result, on the first process."""
    if is_first():
        result.write(path)


def write_config(config: RunConfig, folder: Path, *, preset: str = "") -> None:
    """Write the configuration that a stage, or a run of the preset `preset`, is done with."""
    facts = {"preset": preset, **to_plain(config)} if preset else to_plain(config)
    write_atomically(folder / "config.toml", [tomli_w.dumps(facts).encode()])


def is_first() -> bool:
    """Return whether this is the first of several processes, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def wait() -> None:
    """Wait until every process has come here."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


def run_preset(folder: Path) -> str:
    """Return the preset that a run was begun with."""
    return str(read_toml(folder / "config.toml").get("preset") or "custom")


def kept_cities(run: Run) -> dict[str, GraphSeries]:
    """Return the cities that were handed over in memory, by name; the run keeps them."""
    return {path.stem: GraphSeries.read(path) for path in sorted((run.folder / CITIES).glob("*.npz"))}
