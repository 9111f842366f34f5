"""Names of OpenSTL's E3D-LSTM, PhyDNet and MAU: there and back, and what is wrong with a checkpoint."""

from __future__ import annotations

import pytest
import torch

from stcore.errors import UserError
from stpred.convert.openstl_others import dropped, read_sizes, to_openstl, to_ours
from stpred.models import FrameShape, build
from stpred.models.configs import E3DLSTMConfig, MAUConfig, PhyDNetConfig

FRAME = FrameShape(2, 8, 16)
CONFIGS = [
    E3DLSTMConfig(hidden=(4, 4, 4), kernel=3, patch=2),
    PhyDNetConfig(encoder_width=16, width=32, hidden=(8, 32), kernel=3, downsample=2),
    MAUConfig(hidden=(4, 4), kernel=3, downsample=4, patch=2),
]


def _state(config):
    torch.manual_seed(0)
    return build(config, FRAME).state_dict()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)
def test_every_parameter_goes_there_and_back(config):
    ours = _state(config)
    theirs = to_openstl(ours, config.kind)
    again = to_ours(theirs, config.kind)
    assert again.keys() == ours.keys()
    assert all(torch.equal(again[key], value) for key, value in ours.items())
    assert len(theirs) == len(ours) + len(dropped(theirs, config.kind))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)
def test_shapes_tell_the_sizes(config):
    sizes = read_sizes(to_openstl(_state(config), config.kind), config)
    assert sizes == (config, 2, None if config.kind == "phydnet" else (8, 16))


def test_extras_are_named_and_dropped():
    theirs = to_openstl(_state(CONFIGS[1]), "phydnet")
    assert theirs["encoder.phycell.cell_list.0.F.bn1.weight"] is theirs["phycell.cell_list.0.F.bn1.weight"]
    assert set(dropped(theirs | {"constraints": torch.zeros(1)}, "phydnet")) >= {
        "constraints", "encoder.phycell.cell_list.0.F.bn1.weight", "encoder.convcell.cell_list.1.conv.bias",
    }  # fmt: skip
    theirs = to_openstl(_state(CONFIGS[2]), "mau")
    assert set(dropped(theirs, "mau")) == {"merge.weight", "merge.bias", "conv_last_sr.weight", "conv_last_sr.bias"}
    assert theirs["merge.weight"].shape == (4, 8, 1, 1) and not theirs["merge.weight"].any()
    assert dropped(to_openstl(_state(CONFIGS[0]), "e3dlstm"), "e3dlstm") == ()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)
def test_missing_and_unknown_parameters_are_named(config):
    theirs = to_openstl(_state(config), config.kind)
    with pytest.raises(UserError, match=r"checkpoint: unknown parameter 'conv9.weight'; expected those of OpenSTL's"):
        to_ours(theirs | {"conv9.weight": torch.zeros(1)}, config.kind)
    first = {"e3dlstm": "cell_list.1.conv_gm.", "phydnet": "encoder.decoder_D.upc3.", "mau": "encoders.2.encoder_t1."}
    start = first[config.kind]
    with pytest.raises(UserError, match=rf"checkpoint: no parameter '{start}.*\(1 such in all\)"):
        to_ours({name: value for name, value in theirs.items() if not name.startswith(start)}, config.kind)
    with pytest.raises(UserError, match=r"state: unknown parameter 'extra'"):
        to_openstl({"extra": torch.zeros(1)}, config.kind)


def test_a_patch_that_does_not_fit_is_refused():
    theirs = to_openstl(_state(CONFIGS[0]), "e3dlstm")
    with pytest.raises(UserError, match=r"patch: 3 on 8 channels; expected a side whose square divides the channels"):
        read_sizes(theirs, E3DLSTMConfig(patch=3))
