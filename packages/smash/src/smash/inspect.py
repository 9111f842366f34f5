"""`smash data …` and `smash config …`: look at data and configurations. No torch."""

from __future__ import annotations

from smash.config import PRESETS
from smash.options import DEFAULT_PRESET, DataOptions
from stcore.cli import ConfigOptions, NameOptions, Outcome, config_command


def config_list(options: ConfigOptions) -> Outcome:
    """Do `smash config list`."""
    return config_command("list", options, PRESETS, DEFAULT_PRESET)


def config_show(options: ConfigOptions) -> Outcome:
    """Do `smash config show`."""
    return config_command("show", options, PRESETS, DEFAULT_PRESET)


def config_check(options: ConfigOptions) -> Outcome:
    """Do `smash config check`."""
    return config_command("check", options, PRESETS, DEFAULT_PRESET)


def check(options: DataOptions) -> Outcome:
    """Do `smash data check`."""
    from stcore.readers import read_events_or_parts

    found = {name: part.check() for name, part in read_events_or_parts(options.data).items()}
    lines = [f"{name}: {remark}" for name, remarks in found.items() for remark in (remarks or ["nothing odd"])]
    return Outcome("\n".join(lines), found)


def describe(options: DataOptions) -> Outcome:
    """Do `smash data describe`."""
    from stcore.readers import read_events_or_parts

    found = {name: part.describe() for name, part in read_events_or_parts(options.data).items()}
    lines = [f"{name}: {key} {value}" for name, facts in found.items() for key, value in facts.items()]
    return Outcome("\n".join(lines), found)


def catalogue(options: NameOptions) -> Outcome:
    """Do `smash data list`."""
    from stcore.catalog import CARDS, is_here

    rows = {name: {"what": card.title, "here": is_here(card)} for name, card in CARDS.items()}
    lines = [f"{name}: {row['what']} ({'here' if row['here'] else 'not here'})" for name, row in rows.items()]
    return Outcome("\n".join(lines), rows)


def fetch(options: NameOptions) -> Outcome:
    """Do `smash data fetch`."""
    from stcore.catalog import fetch as bring
    from stcore.catalog import find

    path = bring(find(options.name))
    return Outcome(f"{options.name} is in {path}", {"name": options.name, "folder": str(path)})
