"""Names of OpenSTL's checkpoints and ours: complete both ways, wrapped or not, wrong ones refused."""

from __future__ import annotations

import pytest
import torch

from stcore.errors import UserError
from stpred.convert.openstl import KINDS, STACKED, dropped, read_sizes, to_openstl, to_ours
from stpred.models import MODELS, build
from stpred.models.configs import FrameShape, OpenSTLConvLSTMConfig, PredRNNConfig, StackConfig

FRAME = FrameShape(3, 8, 12)


def config_of(kind: str, *, layer_norm: bool = False) -> StackConfig:
    from stpred.models import configs

    classes = [c for c in vars(configs).values() if isinstance(c, type) and issubclass(c, StackConfig)]
    chosen = next(c for c in classes if getattr(c, "kind", None) == kind)
    return chosen(hidden=(4, 4, 4), kernel=3, patch=2, layer_norm=layer_norm)


def state_of(config: StackConfig) -> dict[str, torch.Tensor]:
    return build(config, FRAME).state_dict()  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("kind", STACKED)
def test_our_state_goes_there_and_back(kind: str, layer_norm: bool) -> None:
    config = config_of(kind, layer_norm=layer_norm)
    ours = state_of(config)
    theirs = to_openstl(ours, kind)
    assert len(theirs) == len(ours) + len(dropped(theirs, kind))
    assert all(not theirs[name].any() for name in dropped(theirs, kind))
    back = to_ours(theirs, kind)
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[name], value) for name, value in ours.items())
    sizes = read_sizes(theirs, type(config)(patch=2))  # pyright: ignore[reportArgumentType]
    assert sizes.config == config
    assert sizes.channels == 3
    assert sizes.area == ((8, 12) if layer_norm or kind == "mim" else None)


@pytest.mark.parametrize("prefix", ["model.", "module.", "model.module."])
def test_prefixes_of_wrappers_come_off(prefix: str) -> None:
    config = config_of("openstl-convlstm")
    theirs = to_openstl(state_of(config), "openstl-convlstm")
    wrapped = {prefix + name: value for name, value in theirs.items()}
    assert to_ours(wrapped, "openstl-convlstm").keys() == state_of(config).keys()
    assert len(dropped(wrapped, "openstl-convlstm")) == 6
    assert read_sizes(wrapped, OpenSTLConvLSTMConfig(patch=2)).config == config


def test_every_kind_is_a_model() -> None:
    assert set(KINDS) <= set(MODELS)


def test_wrong_states_are_refused_in_words() -> None:
    theirs = to_openstl(state_of(config_of("predrnn")), "predrnn")
    with pytest.raises(UserError, match=r"unknown parameter 'more' \(1 in all\); expected predrnn"):
        to_ours({**theirs, "more": torch.zeros(1)}, "predrnn")
    del theirs["cell_list.1.conv_m.0.weight"]
    with pytest.raises(UserError, match=r"'cell_list.1.conv_m.0.weight' is missing \(1 in all\)"):
        to_ours(theirs, "predrnn")
    with pytest.raises(UserError, match=r"model.kind: 'lstm'; expected one of openstl-convlstm"):
        to_ours(theirs, "lstm")
    with pytest.raises(UserError, match=r"is missing \(2 in all\)"):
        to_openstl({"head.weight": torch.zeros(1), "layers.0.merge.weight": torch.zeros(1)}, "openstl-convlstm")


def test_a_patch_that_does_not_fit_the_channels_is_refused() -> None:
    theirs = to_openstl(state_of(config_of("predrnn")), "predrnn")
    with pytest.raises(UserError, match=r"patch: 5 on 12 channels"):
        read_sizes(theirs, PredRNNConfig(patch=5))
