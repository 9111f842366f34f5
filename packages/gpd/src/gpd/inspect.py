"""`gpd config …`: look at configurations. No torch."""

from __future__ import annotations

from gpd.presets import DEFAULT_PRESET, KNOWN, PRESETS
from stcore.cli import ConfigOptions, Outcome, config_command


def config_list(options: ConfigOptions) -> Outcome:
    """Do `gpd config list`."""
    return config_command("list", options, PRESETS, DEFAULT_PRESET)


def config_show(options: ConfigOptions) -> Outcome:
    """Do `gpd config show`."""
    return config_command("show", options, KNOWN, DEFAULT_PRESET)


def config_check(options: ConfigOptions) -> Outcome:
    """Do `gpd config check`."""
    return config_command("check", options, KNOWN, DEFAULT_PRESET)
