"""`svq config …`: look at configurations. No torch."""

from __future__ import annotations

from stcore.cli import ConfigOptions, Outcome, config_command
from svq.presets import DEFAULT_PRESET, KNOWN, PRESETS, short_names


def config_list(options: ConfigOptions) -> Outcome:
    """Do `svq config list`: each run on a line, with its short name where it has one."""
    short = short_names()
    taken = set(short.values())
    lines = [f"{short.get(name, ''):<32}{name}".rstrip() for name in PRESETS if name not in taken]
    return Outcome("\n".join(lines), {"presets": list(PRESETS), "short": short})


def config_show(options: ConfigOptions) -> Outcome:
    """Do `svq config show`."""
    return config_command("show", options, KNOWN, DEFAULT_PRESET)


def config_check(options: ConfigOptions) -> Outcome:
    """Do `svq config check`."""
    return config_command("check", options, KNOWN, DEFAULT_PRESET)
