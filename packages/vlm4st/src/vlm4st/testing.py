"""`vlm4st test`: what `evaluate` does, with the options and the names of results that the original has.

Source: VLM4ST, `test.py`; differs in: errors are those of all cells, not means of batches, on the grid of the data;
forecasts are saved in units.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stcore.cli import Outcome
from stcore.errors import UserError
from stcore.files import to_json, write_atomically
from vlm4st.data import Source, part_batches, read_datasets, sources_of
from vlm4st.data_options import WindowShape
from vlm4st.evaluate import Report, evaluate
from vlm4st.objective import carried
from vlm4st.options import TestOptions, read_config
from vlm4st.predict import Forecaster
from vlm4st.train import device_of

PICKLES = (".pth", ".pt")


def command(options: TestOptions) -> Outcome:
    """Do `vlm4st test`."""
    device = device_of(options)
    forecaster, sources = _subject(options, device)
    report = evaluate(forecaster, sources)
    try:
        options.output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output-dir: {options.output_dir}: {error.strerror}; expected a folder") from error
    stamp = time.strftime("%Y%m%d_%H%M%S")
    name = "multi_dataset" if len(sources) > 1 else sources[0].name
    found = {**report.data(), **results(report), "timing": costs(report)}
    written = [_write(options.output_dir / f"{name}_test_results_{stamp}.json", found)]
    if options.save_predictions:
        for source in sources:
            place = options.output_dir / f"{source.name}_predictions_{stamp}.npz"
            written.append(save_predictions(forecaster, source, place))
    return Outcome("\n".join([report.text(), "", *written]), {**found, "files": written})


def _subject(options: TestOptions, device: str) -> tuple[Forecaster, list[Source]]:
    """Return what is tested, and on what."""
    config = None if options.config is None else read_config(options.config, single=options.single_dataset)
    if options.checkpoint.suffix in PICKLES:
        from vlm4st.importing import forecaster_of_original

        if config is None:
            raise UserError(f"--checkpoint: {options.checkpoint}: of the original; expected its configuration beside "
                            "it; pass --config")  # fmt: skip
        return forecaster_of_original(options.checkpoint, config, device=device)
    forecaster = Forecaster.load(options.checkpoint, device=device)
    own = forecaster.config
    data = own.data if config is None else replace(own.data, source=config.data.source)
    few = own.few_shot if config is None else replace(own.few_shot, target="")
    datasets = read_datasets(data, seed=own.seed)
    sources = sources_of(datasets, data, WindowShape.of(own.model), target=few.target, few_shot=few)
    return forecaster, [forecaster.as_trained(source)[0] for source in sources if source.evaluated]


def results(report: Report) -> dict[str, Any]:
    """Return what the original's file holds: MAE, RMSE and mean gate weights by data set, and their average."""
    table: dict[str, Any] = {
        found.name: {"Real_MAE": found.value("mae"), "Real_RMSE": found.value("rmse"),
                     "gate_weights": found.seen.gate_means()}
        for found in report.datasets
    }  # fmt: skip
    return {"results": table | ({"Average": report.average} if len(table) > 1 else {})}


def costs(report: Report) -> dict[str, Any]:
    """Return what the test took: seconds by data set, and the memory of this process."""
    import resource

    import torch

    memory = {"peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)}
    if torch.cuda.is_available():
        memory["peak_gpu_mb"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return {"inference_seconds": report.timing(), **memory}


def save_predictions(forecaster: Forecaster, source: Source, path: Path) -> str:
    """Write forecasts and what came (sample, horizon, row, column), in units and cells of the data, batch by batch."""
    from stcore.files import write_refused

    batches = part_batches(source, "test", size=forecaster.batch)
    shape = (len(batches.samples), source.shape.horizon, *source.native)
    known = forecaster.dataset(source.name) if source.name in forecaster.known else None
    space = source.space if known is None else known.space
    # Into files that are mapped, so that no array of the whole test part is held.
    folder = path.with_name(f".{path.stem}.parts")
    try:
        folder.mkdir()
        arrays = {name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, shape)
                  for name in ("predictions", "targets")}  # fmt: skip
        for ids in batches.order():
            batch = batches.load(0, ids)
            made = forecaster.run(batch["x"], batch.get("timestamps")).forecast.detach().float().cpu()
            finer = carried(forecaster.model, batches.finer(ids, space))
            found = space.to_native(made, batch["channel"], batches.ahead(ids), finer=finer)
            arrays["predictions"][ids] = found.numpy()
            arrays["targets"][ids] = batches.truth(ids).numpy()
        channel = np.concatenate([batches.channel(ids).numpy() for ids in batches.order()])
        temporary = folder / "all.npz"
        np.savez(temporary, **arrays, channel=channel, units=np.array(source.units or ("",)))  # pyright: ignore[reportArgumentType]
        temporary.replace(path)
    except OSError as error:
        raise write_refused(path, error) from error
    finally:
        import shutil

        shutil.rmtree(folder, ignore_errors=True)
    return str(path)


def _write(path: Path, content: dict[str, Any]) -> str:
    write_atomically(path, [to_json(content).encode()])
    return str(path)
