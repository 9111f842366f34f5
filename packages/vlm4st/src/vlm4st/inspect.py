"""`vlm4st config …` and `vlm4st data …`: look at configurations and at data sets. No torch at import."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from stcore.cli import ConfigOptions, Outcome, config_command
from stcore.errors import UserError
from vlm4st.data_options import dataset_name
from vlm4st.options import DataOptions, read_config
from vlm4st.presets import DEFAULT_PRESET, DEMO, PRESETS


def config_list(options: ConfigOptions) -> Outcome:
    """Do `vlm4st config list`."""
    return config_command("list", options, PRESETS, DEFAULT_PRESET)


def config_show(options: ConfigOptions) -> Outcome:
    """Do `vlm4st config show`; of the original's YAML it shows what that means here."""
    return _configured("show", options)


def config_check(options: ConfigOptions) -> Outcome:
    """Do `vlm4st config check`."""
    return _configured("check", options)


def _configured(action: str, options: ConfigOptions) -> Outcome:
    if options.file is None:
        return config_command(action, options, PRESETS, DEFAULT_PRESET)
    presets = {str(options.file): read_config(options.file, preset=options.preset)}
    return config_command(action, replace(options, file=None, preset=""), presets, str(options.file))


def data_check(options: DataOptions) -> Outcome:
    """Do `vlm4st data check`: what is odd about each data set."""
    found = {name: _oddities(part) for name, part in _parts(options)}
    lines = [f"{name}: {remark}" for name, remarks in found.items() for remark in (remarks or ["nothing odd"])]
    return Outcome("\n".join(lines), found)


def data_describe(options: DataOptions) -> Outcome:
    """Do `vlm4st data describe`: what is in each data set."""
    found = {name: _facts(part) for name, part in _parts(options)}
    lines = [f"{name}: {key} {value}" for name, facts in found.items() for key, value in facts.items()]
    return Outcome("\n".join(lines), found)


def _parts(options: DataOptions) -> Iterator[tuple[str, Any]]:
    """Yield every part of every data set, behind the name of its data set where there are several; a series whole."""
    from stcore.readers.grids import read_grids_or_parts
    from stcore.readers.unist import is_unist, read_unist

    sources = options.data.source
    if not sources:
        raise UserError("data.source: no data set; expected at least one file or name; pass --data")
    for source in sources:
        if source in DEMO.data.source:
            parts = _generated(source)
        elif is_unist(Path(source)):
            parts = read_unist(source, cache=options.data.cache, max_bytes=options.data.max_bytes).parts.named()
        else:
            parts = read_grids_or_parts(replace(options.data, source=(source,)))
        for part, content in parts.items():
            yield (part if len(sources) == 1 else f"{dataset_name(source)} {part}"), content


def _generated(source: str) -> dict[str, Any]:
    """Return the parts of a world of the package's own, which brings torch."""
    from vlm4st.data import read_datasets

    content: Any = read_datasets(replace(DEMO.data, source=(source,)))[0].content
    return content.named()


def _facts(part: Any) -> dict[str, Any]:
    """Return what is in a series, or in the windows of one part of a file of UniST."""
    if hasattr(part, "describe"):
        return part.describe()
    windows, frames, rows, columns = part.values.shape
    return {"windows": windows, "frames": frames, "rows": rows, "columns": columns,
            "lowest": float(part.values.min()), "highest": float(part.values.max()),
            "timestamps": part.stamps.shape[1]}  # fmt: skip


def _oddities(part: Any) -> list[str]:
    """Return what is odd about a series, or about the windows of one part of a file of UniST."""
    if hasattr(part, "check"):
        return part.check()
    low, high = float(part.values.min()), float(part.values.max())
    found = [f"all values are {low:g}"] if low == high else []
    return found + ([f"values below 0, down to {low:g}"] if low < 0.0 else [])
