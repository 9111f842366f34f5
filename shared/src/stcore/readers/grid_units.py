"""Units in the attributes of a file that its values contradict, such as kelvin beside 15: a common slip in own files.

Only quantities whose name and unit leave no doubt are looked at, by the median of a few frames.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from stcore.errors import UserError
from stcore.frame_stores import read_frames
from stcore.grids import GridSeries

_TEMPERATURE = r"(?i)(^|[_\s])(t2m|2t|sst|tas|temp|air|skt)([_\s\d]|$)|temperature|^t_\d+$"
_KELVIN, _CELSIUS = r"(?i)k|kelvin|degk|deg_k", r"(?i)°?c|deg(ree)?s?[ _]?c(elsius)?|celsius"
_PRESSURE = r"(?i)(^|[_\s])(msl|mslp|slp|prmsl|sp|ps)([_\s]|$)|sea[_ ]level[_ ]pressure|surface[_ ]pressure"
_SHARE = r"(?i)(^|[_\s])(tcc|clt|r|rh|hurs)([_\s\d]|$)|cloud[_ ]cover|humidity"


@dataclass(frozen=True)
class _Rule:
    name: str
    """Names of channels, as a pattern."""
    unit: str
    """The unit that is told."""
    low: float
    high: float
    """A median between these is one of another unit."""
    other: str


_RULES = (
    _Rule(_TEMPERATURE, _KELVIN, -90.0, 70.0, "degrees Celsius"),
    _Rule(_TEMPERATURE, _CELSIUS, 170.0, 350.0, "kelvin"),
    _Rule(_PRESSURE, r"(?i)pa|pascal", 300.0, 1_200.0, "hectopascal"),
    _Rule(_PRESSURE, r"(?i)hpa|mbar|millibars?|mb", 30_000.0, 120_000.0, "pascal"),
    _Rule(_SHARE, r"(?i)\(?0 ?- ?1\)?|fraction", 1.1, 101.0, "per cent"),
)
_NO_AMOUNT = r"(?i)anom|diff|tend|bias|std|spread|gradient|error|increment|change"
"""Names of what has the unit of a quantity without being an amount of it."""
_LOOKS = 5


def require_plausible_units(series: GridSeries, where: str) -> None:
    """Refuse a series whose values cannot be in the units that are told.

    Raises:
        UserError: they cannot; the message names channel, unit and value.
    """
    if not series.units or not series.num_frames:
        return
    rules = {
        channel: rule
        for channel, (name, unit) in enumerate(zip(series.channels, series.units, strict=True))
        for rule in _RULES
        if re.search(rule.name, name) and re.fullmatch(rule.unit, unit.strip()) and not re.search(_NO_AMOUNT, name)
    }
    if not rules:
        return
    rows = np.unique(np.linspace(0, series.num_frames - 1, _LOOKS).astype(np.int64))
    frames = read_frames(series.values, rows).astype(np.float64)
    frames[~np.isfinite(frames) | ~series.valid(rows)] = np.nan
    for channel, rule in rules.items():
        known = frames[:, channel][np.isfinite(frames[:, channel])]
        if known.size and rule.low <= (median := float(np.median(known))) <= rule.high:
            raise UserError(
                f"{where}: channel {series.channels[channel]} has unit {series.units[channel]!r:.30} and a median of "
                f"{median:g}, as of {rule.other}; expected values in the unit that is told; pass --data.units with the "
                "true one"
            )
