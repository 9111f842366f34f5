"""`stpred data …` and `stpred config …`: look at data and configurations. No torch."""

from __future__ import annotations

from dataclasses import replace

from stcore.cli import ConfigOptions, NameOptions, Outcome, config_command, pick_preset
from stcore.configuration import to_plain
from stpred.config import PRESETS
from stpred.options import DEFAULT_PRESET, DataOptions, from_file


def config_list(options: ConfigOptions) -> Outcome:
    """Do `stpred config list`."""
    return config_command("list", options, PRESETS, DEFAULT_PRESET)


def config_show(options: ConfigOptions) -> Outcome:
    """Do `stpred config show`."""
    import tomli_w

    config = pick_preset(PRESETS, options.preset or DEFAULT_PRESET)
    config = config if options.file is None else from_file(config, options.file)
    config = config if options.seed is None else replace(config, seed=options.seed)
    return Outcome(tomli_w.dumps(to_plain(config)).rstrip(), to_plain(config))


def config_check(options: ConfigOptions) -> Outcome:
    """Do `stpred config check`."""
    config_show(options)
    return Outcome(f"{options.file or options.preset or DEFAULT_PRESET}: fine", {"valid": True})


def check(options: DataOptions) -> Outcome:
    """Do `stpred data check`."""
    from stcore.readers.grids import read_grids_or_parts

    found = {name: part.check() for name, part in read_grids_or_parts(options.data).items()}
    lines = [f"{name}: {remark}" for name, remarks in found.items() for remark in (remarks or ["nothing odd"])]
    return Outcome("\n".join(lines), found)


def describe(options: DataOptions) -> Outcome:
    """Do `stpred data describe`."""
    from stcore.readers.grids import read_grids_or_parts

    found = {name: part.describe() for name, part in read_grids_or_parts(options.data).items()}
    lines = [f"{name}: {key} {value}" for name, facts in found.items() for key, value in facts.items()]
    return Outcome("\n".join(lines), found)


def catalogue(options: NameOptions) -> Outcome:
    """Do `stpred data list`."""
    from stcore.catalog import cards, is_here

    rows = {name: {"what": card.title, "here": is_here(card)} for name, card in cards("grids", "digits").items()}
    lines = [f"{name}: {row['what']} ({'here' if row['here'] else 'not here'})" for name, row in rows.items()]
    return Outcome("\n".join(lines), rows)


def fetch(options: NameOptions) -> Outcome:
    """Do `stpred data fetch`."""
    from stcore.catalog import fetch as bring
    from stcore.catalog import find

    path = bring(find(options.name, "grids", "digits"))
    return Outcome(f"{options.name} is in {path}", {"name": options.name, "folder": str(path)})
