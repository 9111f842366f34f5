"""`vlm4st convert`: weights of ALBEF, checkpoints and data of the original, and runs of ours for other programs.

ALBEF.pth                        --out albef.safetensors    weights of the backbone, with a table of what was kept
checkpoint.pth --config F.yaml   --out RUN                  a run like any other
BikeNYC_short.json               --out BikeNYC.npz          windows and stamps as arrays
RUN                              --out backbone.safetensors the backbone of a run, to freeze it in another one
RUN                              --out FOLDER               its adapters in the layout of peft
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from stcore.cli import Outcome
from stcore.configuration import to_plain
from stcore.errors import UserError
from stcore.files import write_atomically
from stcore.readers.unist import is_unist, read_unist
from stcore.training.checkpoint import save_checkpoint
from stcore.training.foreign import read_torch_file
from stcore.training.run import Run
from vlm4st.backbone import keep_in_run, reference_to
from vlm4st.config import TrainConfig
from vlm4st.convert import (
    backbone_tensors,
    import_albef,
    load_reference,
    peft_config,
    table_text,
    to_peft,
    write_backbone,
)
from vlm4st.data import Source
from vlm4st.models.vlm4st import VLM4ST
from vlm4st.objective import Objective
from vlm4st.options import ConvertOptions, read_config
from vlm4st.predict import Forecaster
from vlm4st.train import constants_of, facts_of, make_model, read

PICKLES = (".pth", ".pt", ".ckpt", ".bin")


def command(options: ConvertOptions) -> Outcome:
    """Do `vlm4st convert`."""
    if not options.out.resolve().parent.is_dir():
        raise UserError(f"--out: folder {options.out.parent} does not exist; expected an existing one")
    if is_unist(options.file):
        return _windows(options)
    if options.file.is_dir():
        return _of_run(options)
    if not options.file.exists():
        raise UserError(f"{options.file}: no such file; expected a checkpoint, a file of UniST, or a run")
    if options.file.suffix not in PICKLES:
        raise UserError(
            f"{options.file}: ending {options.file.suffix!r}; expected {', '.join(PICKLES)}, .json, or a run"
        )
    if options.out.suffix == ".safetensors":
        return _albef(options)
    if options.out.suffix:
        raise UserError(f"--out: {options.out}: expected a name that ends in .safetensors for weights of ALBEF, and "
                        "one without an ending for the run that a checkpoint becomes")  # fmt: skip
    return _checkpoint(options)


def _albef(options: ConvertOptions) -> Outcome:
    tensors, rows = import_albef(options.file, text_layers=options.text_layers)
    if options.image_res:
        from vlm4st.convert.backbone import POSITIONS, resized_positions

        patch = tensors["visual.patch_embed.proj.weight"].shape[-1]
        if options.image_res % patch:
            raise UserError(f"--image-res: {options.image_res}; expected a multiple of {patch}")
        tensors[POSITIONS] = resized_positions(tensors[POSITIONS], options.image_res // patch)
    write_backbone(tensors, options.out, about={"source": options.file.name})
    kept = [row for row in rows if row.kept_as is not None]
    data = {"file": str(options.out), "kept": len(kept), "dropped": len(rows) - len(kept),
            "bytes": options.out.stat().st_size}  # fmt: skip
    return Outcome(f"{table_text(rows)}\n\n{options.out}: {len(kept)} tensors, {data['bytes']:,} bytes", data)


def _checkpoint(options: ConvertOptions) -> Outcome:
    if options.config is None:
        raise UserError("--config: none; expected the configuration that the checkpoint was trained with, the "
                        "original's YAML or TOML")  # fmt: skip
    config, sources = read(read_config(options.config, single=options.single_dataset))
    model, left_out = reference_model(options.file, config)
    run = write_run(options.out, model, config, sources)
    total = sum(value.numel() for value in model.parameters())
    lines = [f"{options.file}: {total:,} parameters", f"left out, since nothing reads them: {len(left_out)} tensors",
             f"run: {run.folder}"]  # fmt: skip
    return Outcome("\n".join(lines), {"run": str(run.folder), "parameters": total, "left_out": list(left_out)})


def reference_model(path: Path, config: TrainConfig) -> tuple[VLM4ST, tuple[str, ...]]:
    """Return the model of a checkpoint of the original, and the names of what was left out.

    Raises:
        UserError: no checkpoint, or one of other sizes.
    """
    model = make_model(config, load_backbone=False)
    try:
        return model, load_reference(model, read_torch_file(path))
    except UserError as error:
        raise UserError(f"{path}: {str(error).removeprefix('checkpoint: ')}") from error


def write_run(folder: Path, model: VLM4ST, config: TrainConfig, sources: Sequence[Source]) -> Run:
    """Write weights as the best checkpoint of a new run, and its frozen ones beside it."""
    run = Run.create(folder, package="vlm4st", preset="original", config={"preset": "original", **to_plain(config)})
    reference = reference_to(model, None)
    keep_in_run(model, reference, run)
    tensors = {f"model/{name}": value for name, value in Objective(model).state_dict().items()}
    tensors |= {f"constants/{name}": value for name, value in constants_of(sources).items()}
    facts: dict[str, Any] = {**facts_of(config, sources, reference, preset="original"), "step": 0, "metrics": {}}
    save_checkpoint(run.best, tensors, facts)
    return run


def _of_run(options: ConvertOptions) -> Outcome:
    forecaster = Forecaster.load(options.file, device="cpu")
    model = forecaster.model.module
    assert isinstance(model, VLM4ST)
    if options.out.suffix == ".safetensors":
        tensors = backbone_of_run(forecaster, options.out)
        return Outcome(f"{options.out}: the backbone of {options.file}, {tensors} tensors",
                       {"file": str(options.out), "tensors": tensors})  # fmt: skip
    if options.out.suffix:
        raise UserError(f"--out: {options.out}: expected a name that ends in .safetensors for the backbone of a run, "
                        "and a folder for its adapters")  # fmt: skip
    return _peft(options, forecaster, model)


def backbone_of_run(forecaster: Forecaster, out: Path) -> int:
    """Write the backbone of a trained model, for `model.vlm.pretrained_path` of another; return how many tensors."""
    model = forecaster.model.module
    assert isinstance(model, VLM4ST)
    tensors = backbone_tensors(model)
    write_backbone(tensors, out, about={"source": str(forecaster.facts.get("path", "")), "vlm4st": version("vlm4st")})
    return len(tensors)


def _peft(options: ConvertOptions, forecaster: Forecaster, model: VLM4ST) -> Outcome:
    import json

    from safetensors.torch import save

    vlm = forecaster.config.model.vlm
    if not vlm.use_lora:
        raise UserError(f"{options.file}: trained without adapters; expected a run with model.vlm.use-lora")
    tensors = {name: value.cpu().contiguous() for name, value in to_peft(model.vlm_module).items()}
    if options.out.exists():
        raise UserError(f"{options.out}: exists already; expected a new folder")
    options.out.mkdir()
    write_atomically(options.out / "adapter_model.safetensors", [save(tensors)])
    config = {"peft_type": "LORA", **peft_config(vlm)}
    write_atomically(options.out / "adapter_config.json", [json.dumps(config, indent=2).encode()])
    data = {"folder": str(options.out), "tensors": len(tensors)}
    return Outcome(f"{options.out}: {len(tensors)} tensors in the layout of peft", data)


def _windows(options: ConvertOptions) -> Outcome:
    """Write the windows of a file of UniST as arrays."""
    if options.out.suffix != ".npz":
        raise UserError(f"--out: {options.out}: ending {options.out.suffix!r}; expected .npz for windows of UniST")
    found = read_unist(options.file)
    arrays: dict[str, Any] = {}
    for part, content in found.parts.named().items():
        arrays |= {f"X_{part}": np.asarray(content.values), f"timestamps_{part}": np.asarray(content.stamps)}
    import io

    box = io.BytesIO()
    np.savez(box, allow_pickle=False, **arrays)
    write_atomically(options.out, [box.getvalue()])
    counts = {part: len(content.values) for part, content in found.parts.named().items()}
    words = ", ".join(f"{count:,} of {part}" for part, count in counts.items())
    return Outcome(
        f"{options.out}: windows: {words}", {"file": str(options.out), "windows": counts, "form": found.form}
    )


def forecaster_of_original(path: Path, config: TrainConfig, *, device: str) -> tuple[Forecaster, list[Source]]:
    """Return a forecaster of a checkpoint of the original without writing anything, and its data sets."""
    from stcore.training.ranks import pick_device
    from vlm4st.predict import Known

    resolved, sources = read(config)
    model, _ = reference_model(path, resolved)
    known = {source.name: Known(name=source.name, space=source.space, channels=source.channels, units=source.units,
                                timed=source.timed) for source in sources}  # fmt: skip
    objective = Objective(model).to(pick_device(device))
    return Forecaster(objective, resolved, known, {"path": str(path), "version": version("vlm4st")}), sources
