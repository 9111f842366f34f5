"""Names of OpenSTL's E3D-LSTM, PhyDNet and MAU parameters beside ours.

One table per model holds beginnings of names, OpenSTL's and ours; `{}` is the number of a layer. Values are the same
tensors in the same shapes. What OpenSTL stores beyond that is dropped: parameters that no computation uses, tensors
that stand there twice, and constants.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor

from stcore.errors import UserError
from stpred.models.configs import E3DLSTMConfig, MAUConfig, PhyDNetConfig

MOST_HALVINGS = 12
"""Stages of MAU's encoder that the table has; a frame of 4096 pixels is one pixel after them."""

OtherConfig = E3DLSTMConfig | PhyDNetConfig | MAUConfig


class Sizes(NamedTuple):
    """What the shapes of a state tell of its model."""

    config: OtherConfig
    channels: int
    """Channels of the frames."""
    area: tuple[int, int] | None
    """Height and width of the frames where the weights depend on them."""


E3DLSTM = {
    "cell_list.{}.conv_x.0.conv3d.": "cells.{}.from_input.",
    "cell_list.{}.conv_h.0.conv3d.": "cells.{}.from_hidden.",
    "cell_list.{}.conv_gm.0.conv3d.": "cells.{}.from_memory.",
    "cell_list.{}.conv_new_cell.0.conv3d.": "cells.{}.output_cell.",
    "cell_list.{}.conv_new_gm.0.conv3d.": "cells.{}.output_memory.",
    "cell_list.{}.conv_last.conv3d.": "cells.{}.merge.",
    "cell_list.{}._norm_c_t.": "cells.{}.norm.",
    "conv_last.": "head.",
}


def _blocks(theirs: str, ours: str, numbers: Iterable[int]) -> dict[str, str]:
    """Blocks of a convolution (0) and a normalisation (1), counted from 1 there and from 0 here."""
    return {f"{theirs}{number}.main.{part}.": f"{ours}{number - 1}.{part}." for number in numbers for part in (0, 1)}


PHYDNET = {
    "phycell.cell_list.0.F.conv1.": "physical.derivatives.",
    "phycell.cell_list.0.F.bn1.": "physical.norm.",
    "phycell.cell_list.0.F.conv2.": "physical.combine.",
    "phycell.cell_list.0.convgate.": "physical.gain.",
    "convcell.cell_list.{}.conv.": "residual.{}.gates.",
    **_blocks("encoder.encoder_E.c", "encoder.shared.", (1, 2, 3)),
    **_blocks("encoder.encoder_Ep.c", "encoder.physical.", (1, 2)),
    **_blocks("encoder.encoder_Er.c", "encoder.residual.", (1, 2)),
    **_blocks("encoder.decoder_Dp.upc", "head.physical.", (1, 2)),
    **_blocks("encoder.decoder_Dr.upc", "head.residual.", (1, 2)),
    **_blocks("encoder.decoder_D.upc", "head.shared.", (1, 2)),
    "encoder.decoder_D.upc3.": "head.shared.2.",
}

MAU = {
    "cell_list.{}.conv_t.": "units.{}.temporal.",
    "cell_list.{}.conv_t_next.": "units.{}.keep.",
    "cell_list.{}.conv_s.": "units.{}.spatial.",
    "cell_list.{}.conv_s_next.": "units.{}.query.",
    "encoders.0.encoder_t_conv-1.": "embed.",
    **{f"encoders.{stage + 1}.encoder_t{stage}.": f"encoder.{stage}." for stage in range(MOST_HALVINGS)},
    **{f"decoders.{stage}.c_decoder{stage}.": f"decoder.{stage}." for stage in range(MOST_HALVINGS)},
    "srcnn.0.": "head.",
}

TABLES = {"e3dlstm": E3DLSTM, "phydnet": PHYDNET, "mau": MAU}

DROPPED = {
    "e3dlstm": (),
    # The two cells are submodules of the encoder as well; `k2m` and `constraints` are constants.
    "phydnet": (r"encoder\.(phycell|convcell)\..*", r"k2m\..*", r"constraints"),
    "mau": (r"merge\.(weight|bias)", r"conv_last_sr\.(weight|bias)"),
}
"""Names that no parameter of ours belongs to."""


def to_ours(state: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Turn OpenSTL's state into ours.

    Args:
        state: parameters under OpenSTL's names.
        kind: `e3dlstm`, `phydnet` or `mau`.

    Raises:
        UserError: a parameter is missing or unknown.
    """
    named = {name: _key(name, kind) for name in state}
    ours = {key: state[name] for name, key in named.items() if key is not None}
    missing = [start for start in _beginnings(ours, kind) if not any(name.startswith(start) for name in state)]
    if missing:
        raise UserError(
            f"checkpoint: no parameter {missing[0] + '*'!r} ({len(missing)} such in all); expected those of OpenSTL's "
            f"{kind}"
        )
    return ours


def to_openstl(state: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Turn our state into OpenSTL's, the inverse of `to_ours`; parameters that it never uses are zero.

    Raises:
        UserError: a parameter is unknown.
    """
    inverse = {ours: theirs for theirs, ours in TABLES[kind].items()}
    named = {name: _translate(name, inverse) for name in state}
    unknown = [name for name, found in named.items() if found is None]
    if unknown:
        raise UserError(f"state: unknown parameter {unknown[0]!r}; expected the names of our model {kind}")
    theirs = {found: state[name] for name, found in named.items() if found is not None}
    return theirs | _extras(theirs, kind)


def dropped(state: Mapping[str, Tensor], kind: str) -> tuple[str, ...]:
    """Name the parameters in OpenSTL's state that `to_ours` leaves out: unused, stored twice, or constant."""
    return tuple(name for name in state if _is_dropped(name, kind))


def read_sizes(state: Mapping[str, Tensor], given: OtherConfig) -> Sizes:
    """Read off the shapes of OpenSTL's state what they tell.

    Args:
        state: parameters under OpenSTL's names.
        given: names the model, and says what shapes do not tell: patch, stride and memory of E3D-LSTM, downsample of
            PhyDNet, patch, window, cell and mode of MAU.

    Raises:
        UserError: a parameter is missing or unknown, or the patch does not fit the channels.
    """
    ours = to_ours(state, given.kind)
    if isinstance(given, E3DLSTMConfig):
        return _e3dlstm_sizes(ours, given)
    return _phydnet_sizes(ours, given) if isinstance(given, PhyDNetConfig) else _mau_sizes(ours, given)


def _e3dlstm_sizes(ours: Mapping[str, Tensor], given: E3DLSTMConfig) -> Sizes:
    width, window, rows, columns = ours["cells.0.norm.weight"].shape
    kernel = ours["cells.0.from_hidden.weight"].shape[-1]
    hidden = (width,) * _layers(ours, "cells")
    config = replace(given, hidden=hidden, kernel=kernel, window=window)
    channels = _unpatched(ours["head.weight"].shape[0], given.patch)
    return Sizes(config, channels, (rows * given.patch, columns * given.patch))


def _phydnet_sizes(ours: Mapping[str, Tensor], given: PhyDNetConfig) -> Sizes:
    outer, channels = ours["encoder.shared.0.0.weight"].shape[:2]
    _, width, kernel, _ = ours["physical.derivatives.weight"].shape
    hidden = tuple(ours[f"residual.{i}.gates.bias"].shape[0] // 4 for i in range(_layers(ours, "residual")))
    return Sizes(replace(given, encoder_width=outer, width=width, hidden=hidden, kernel=kernel), channels, None)


def _mau_sizes(ours: Mapping[str, Tensor], given: MAUConfig) -> Sizes:
    width, rows, columns = ours["units.0.query.1.weight"].shape
    downsample = 2 ** _layers(ours, "encoder")
    hidden, kernel = (width,) * _layers(ours, "units"), ours["units.0.query.0.weight"].shape[-1]
    channels = _unpatched(ours["head.weight"].shape[0], given.patch)
    enlarged = downsample * given.patch
    config = replace(given, hidden=hidden, kernel=kernel, downsample=downsample)
    return Sizes(config, channels, (rows * enlarged, columns * enlarged))


def _unpatched(channels: int, patch: int) -> int:
    if channels % patch**2:
        raise UserError(f"patch: {patch} on {channels} channels; expected a side whose square divides the channels")
    return channels // patch**2


def _extras(theirs: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """What OpenSTL stores beyond our parameters, so that it loads the result strictly."""
    if kind == "phydnet":
        shared = ("phycell.", "convcell.")
        return {f"encoder.{name}": value for name, value in theirs.items() if name.startswith(shared)}
    if kind == "e3dlstm":
        return {}
    head = theirs["srcnn.0.weight"]
    channels, width = head.shape[:2]
    sizes = {"merge": (width, 2 * width), "conv_last_sr": (channels, 2 * channels)}
    weights = {f"{name}.weight": head.new_zeros(*size, 1, 1) for name, size in sizes.items()}
    return weights | {f"{name}.bias": head.new_zeros(size[0]) for name, size in sizes.items()}


def _layers(ours: Mapping[str, Tensor], stem: str) -> int:
    """Count the numbered parts that begin so, 0 if there are none."""
    found = (re.match(rf"{stem}\.(\d+)\.", name) for name in ours)
    return max((int(match[1]) + 1 for match in found if match), default=0)


def _beginnings(ours: Mapping[str, Tensor], kind: str) -> Iterator[str]:
    """Beginnings of all names that OpenSTL's state has with as many layers and stages."""
    layers = max(_layers(ours, stem) for stem in ("cells", "units", "residual"))
    stages = max(_layers(ours, stem) for stem in ("encoder", "decoder"))
    for start in TABLES[kind]:
        stage = re.match(r"(?:encoders\.\d+\.encoder_t|decoders\.\d+\.c_decoder)(\d+)", start)
        if stage and int(stage[1]) >= stages:
            continue
        yield from (start.format(layer) for layer in range(max(1, layers))) if "{}" in start else (start,)


def _key(name: str, kind: str) -> str | None:
    found = _translate(name, TABLES[kind])
    if found is None and not _is_dropped(name, kind):
        raise UserError(f"checkpoint: unknown parameter {name!r}; expected those of OpenSTL's {kind}")
    return found


def _is_dropped(name: str, kind: str) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in DROPPED[kind])


def _translate(name: str, table: Mapping[str, str]) -> str | None:
    for start, target in table.items():
        pattern = re.escape(start).replace(r"\{\}", r"(\d+)") + "(.+)"
        if match := re.fullmatch(pattern, name):
            *numbers, rest = match.groups()
            return target.format(*numbers) + rest
    return None
