"""`stpred config …`: look at configurations. No torch."""

from __future__ import annotations

from stcore.cli import ConfigOptions, Outcome, config_command
from stpred.config import PRESETS
from stpred.options import DEFAULT_PRESET


def config_list(options: ConfigOptions) -> Outcome:
    """Do `stpred config list`."""
    return config_command("list", options, PRESETS, DEFAULT_PRESET)


def config_show(options: ConfigOptions) -> Outcome:
    """Do `stpred config show`."""
    return config_command("show", options, PRESETS, DEFAULT_PRESET)


def config_check(options: ConfigOptions) -> Outcome:
    """Do `stpred config check`."""
    return config_command("check", options, PRESETS, DEFAULT_PRESET)
