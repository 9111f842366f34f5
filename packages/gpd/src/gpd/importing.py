"""`gpd convert`: files of the original become runs, tables and prompts; data of any known format one .npz.

What a file holds is told by its name, as the original gives it, or by --kind. A diffusion checkpoint becomes a run to
generate from; prompts and samples that are written into that run (`prompts/prompts.safetensors`,
`generate/rows.safetensors`) are what it then goes on from.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from gpd.config import RunConfig
from gpd.convert import import_diffusion, kind_of, read_networks, read_prompts, read_rows, read_samples
from gpd.data import read_city
from gpd.diffusion.trained import TrainedDiffusion
from gpd.models.configs import NodeModelConfig
from gpd.options import ConvertOptions
from gpd.presets import DEFAULT_PRESET, KNOWN
from gpd.prompts import Prompts
from gpd.rows import RowTable
from gpd.stage_files import write_config
from stcore.cli import Outcome, pick_preset
from stcore.errors import UserError

TABLE = ".safetensors"


def command(options: ConvertOptions) -> Outcome:
    """Do `gpd convert`."""
    preset = pick_preset(KNOWN, options.preset or DEFAULT_PRESET)
    kind = _kind(options)
    if kind == "data":
        return _data(options)
    if not options.file.exists():
        raise UserError(f"{options.file}: no such file or folder; expected one of the original's")
    if kind == "diffusion":
        return _diffusion(options, preset)
    if options.out.suffix != TABLE:
        raise UserError(f"--out: {options.out}: ending {options.out.suffix!r}; expected {TABLE}")
    model = preset.model if options.preset else None
    city = preset.data.target
    if kind == "prompts":
        return _written(read_prompts(options.file, family=options.family), options)
    if kind == "rows":
        return _written(read_rows(options.file, family=options.family, model=model), options)
    if kind == "samples":
        return _written(read_samples(options.file, city=city, model=model), options)
    return _written(read_networks(options.file, city=city, history=preset.model.history), options)


def _kind(options: ConvertOptions) -> str:
    """Return what the file holds."""
    if options.kind != "auto":
        return options.kind
    # Only data have a graph and end as an archive.
    return "data" if options.out.suffix == ".npz" else kind_of(options.file)


def _data(options: ConvertOptions) -> Outcome:
    if options.out.suffix != ".npz":
        raise UserError(f"--out: {options.out}: ending {options.out.suffix!r}; expected .npz for data")
    series = read_city(str(options.file), options.data)
    series.write(options.out)
    data = {"file": str(options.out), "nodes": series.num_nodes, "steps": series.num_steps,
            "channels": list(series.channels)}  # fmt: skip
    return Outcome(f"{series.name}: {series.num_steps:,} steps of {series.num_nodes} nodes in {options.out}", data)


def _diffusion(options: ConvertOptions, preset: RunConfig) -> Outcome:
    if options.out.suffix:
        raise UserError(f"--out: {options.out}: expected a folder for the run that the checkpoint becomes, without an "
                        "ending")  # fmt: skip
    model: NodeModelConfig | None = preset.model if options.preset else None
    name = options.preset or "converted"
    run = import_diffusion(options.file, options.out, preset=name, model=model)
    trained = TrainedDiffusion.load(run.best)
    config = replace(preset, model=trained.model, denoiser=trained.stage.denoiser, diffusion=trained.stage.diffusion,
                     fit=trained.stage.fit)  # fmt: skip
    write_config(config, run.folder, preset=name)
    data = {"run": str(run.folder), "strategy": trained.stage.denoiser.strategy, "model": trained.model.kind,
            "steps": trained.stage.diffusion.steps}  # fmt: skip
    text = f"{options.file}: {trained.stage.denoiser.strategy} for rows of {trained.model.kind}, run: {run.folder}"
    return Outcome(text, data)


def _written(found: RowTable | Prompts, options: ConvertOptions) -> Outcome:
    _require_folder(options.out)
    found.write(options.out)
    cities = {city: found.cities.count(city) for city in dict.fromkeys(found.cities)}
    data: dict[str, Any] = {"file": str(options.out), "rows": cities}
    words = ", ".join(f"{city} {count}" for city, count in cities.items())
    if isinstance(found, RowTable):
        data |= {"numbers": int(found.rows.shape[1]), "model": found.model.kind}
        what = f"rows of {found.rows.shape[1]:,} numbers, {found.model.kind}"
    else:
        what = f"prompts of {found.spatial.shape[1]} + {found.temporal.shape[1]} numbers"
    return Outcome(f"{options.file}: {what} ({words}) in {options.out}", data)


def _require_folder(path: Path) -> None:
    """Make the folder of a stage inside a run; any other has to be there.

    Raises:
        UserError: there is no such folder.
    """
    if (path.parent.parent / "config.toml").is_file():
        path.parent.mkdir(exist_ok=True)
    if not path.parent.is_dir():
        raise UserError(f"{path}: folder {path.parent} does not exist; expected an existing one")
