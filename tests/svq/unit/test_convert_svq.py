"""Checkpoints of the original in every shape they come in, and what is refused."""

from __future__ import annotations

import pickle

import pytest
import torch

from stcore.errors import UserError
from stcore.training.foreign import read_torch_file
from svq.convert import load_into, read_sizes, to_original, to_ours
from svq.models import FrameShape, QuantizerConfig, SimVPConfig, build
from svq.models.configs import COMPARISONS, TRANSLATORS

FRAME = FrameShape(2, 8, 12)
SVQ = QuantizerConfig(codebook_size=20, middle=8)
FIRST = "enc.enc.0.conv.conv.weight"
SIZES = {"codebook_size": 16, "quantizers": 3, "heads": 2, "head_dim": 4}


def _model(translator="gsta", quantizer=SVQ, seed=0, **options):
    torch.manual_seed(seed)
    sizes = {"hid_spatial": 8, "hid_temporal": 24, "depth_spatial": 4, "depth_temporal": 3, "mlp_ratio": 2.0}
    return build(SimVPConfig(translator=translator, **sizes | options), quantizer, FRAME, 2)


def _original(model):
    return to_original(model.state_dict(), model.simvp.translator)


def _same(model, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())


SHAPES = {
    "bare": lambda state: state,
    "latest": lambda state: {"epoch": 3, "optimizer": {"state": {}}, "state_dict": state, "scheduler": {"lr": 0.1}},
    "several GPUs": lambda state: {f"module.{name}": value for name, value in state.items()},
    "latest of several GPUs": lambda state: {"state_dict": {f"module.{name}": v for name, v in state.items()}},
    "Lightning": lambda state: {"pytorch-lightning_version": "2.1", "hyper_parameters": {"lr": 0.1},
                                "state_dict": {f"model.{name}": v for name, v in state.items()}},
    "Lightning of several GPUs": lambda state: {"state_dict": {f"model.module.{name}": v for name, v in state.items()}},
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_a_checkpoint(shape, tmp_path):
    model, other = _model(), _model(seed=1)
    torch.save(SHAPES[shape](_original(model)), tmp_path / "checkpoint.pth")
    assert not _same(model, other)
    assert load_into(other, read_torch_file(tmp_path / "checkpoint.pth")) == ()
    assert _same(model, other)


@pytest.mark.parametrize("translator", TRANSLATORS)
def test_every_translator_goes_back_and_forth_and_tells_its_sizes(translator):
    model = _model(translator)
    theirs = _original(model)
    assert not any(name.startswith(("encoder", "translator", "quantizer")) for name in theirs)
    ours = to_ours(theirs).state
    assert ours.keys() == model.state_dict().keys()
    assert all(torch.equal(ours[name], value) for name, value in model.state_dict().items())
    given = SimVPConfig(mlp_ratio=2.0)
    sizes = read_sizes(theirs, given)
    assert sizes[:4] == (model.simvp, SVQ, 2, 2)
    assert sizes.cells == (6 if translator == "mlp-mixer" else None)


@pytest.mark.parametrize("kind", ["none", *COMPARISONS])
def test_every_other_quantiser_goes_back_and_forth_and_tells_its_sizes(kind):
    quantizer = QuantizerConfig(kind=kind, **SIZES)
    model = _model("convmixer", quantizer)
    theirs = _original(model)
    assert to_ours(theirs).state.keys() == model.state_dict().keys()
    given = QuantizerConfig(kind="residual-vq-stochastic") if kind == "residual-vq-stochastic" else QuantizerConfig()
    found = read_sizes(theirs, quantizer=given).quantizer
    assert found.kind == kind
    # What a state does not tell is as it was given.
    telling = {"vq": ("codebook_size",), "lfq": ("codebook_size",), "residual-fsq": (), "none": (),
               "multi-head-vq": ("codebook_size", "heads", "head_dim")}  # fmt: skip
    for name in telling.get(kind, ("codebook_size", "quantizers")):
        assert getattr(found, name) == getattr(quantizer, name)


def test_one_linear_layer_and_equal_widths():
    quantizer = QuantizerConfig(codebook_size=20, nonlinear=False)
    model = _model("uniformer", quantizer, hid_temporal=16)
    theirs = _original(model)
    assert "vq.vq.proj_regression_weight.linear_proj.weight" in theirs
    assert not any("linear_proj2" in name or "reduction" in name for name in theirs)
    sizes = read_sizes(theirs)
    assert (sizes.simvp.hid_temporal, sizes.quantizer.nonlinear) == (16, False)
    assert to_ours(theirs).state.keys() == model.state_dict().keys()


def test_up_sampling_layers_lie_one_level_deeper():
    names = set(_original(_model()))
    assert {"dec.dec.0.conv.conv.0.weight", "dec.dec.1.conv.conv.weight", "dec.dec.2.conv.conv.0.weight"} <= names
    assert "enc.enc.1.conv.conv.weight" in names and "dec.dec.1.conv.conv.0.weight" not in names


def test_constants_of_old_swins_are_dropped_and_named():
    model = _model("swin")
    state = _original(model) | {"hid.enc.0.block.attn.relative_position_index": torch.zeros(16, 16),
                                "hid.enc.1.block.attn_mask": torch.zeros(4, 16, 16)}  # fmt: skip
    dropped = load_into(_model("swin", seed=1), state)
    assert dropped == ("hid.enc.0.block.attn.relative_position_index", "hid.enc.1.block.attn_mask")


def test_averages_are_dropped_or_taken_in_place_of_the_weights():
    model, other = _model(), _model(seed=1)
    parameters = {name for name, _ in model.named_parameters()}
    theirs, averages = _original(model), _original(_model(seed=2))
    learnt = to_original({name: model.state_dict()[name] for name in parameters}, "gsta")
    state = theirs | {f"ema_{name.replace('.', '_')}": averages[name] for name in learnt}
    assert len(load_into(other, state)) == len(learnt) > 50
    assert _same(model, other)
    wrapped = {f"module.{name}": value for name, value in state.items()}
    assert load_into(other, wrapped, ema=True) == ()
    wanted = _model(seed=2).state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in other.named_parameters())
    with pytest.raises(UserError, match=r"checkpoint: no averages \(ema_…\) in it"):
        to_ours(theirs, ema=True)


def test_quantisers_of_the_older_library_marked_their_start_in_a_row_of_one():
    quantizer = QuantizerConfig(kind="vq", codebook_size=16)
    model = _model("convmixer", quantizer)
    state = _original(model)
    state["vq.vq._codebook.initted"] = state["vq.vq._codebook.initted"].reshape(1)
    assert load_into(_model("convmixer", quantizer, seed=1), state) == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {k: v for k, v in s.items() if k != "dec.readout.bias"},
         "checkpoint: missing: decoder.readout.bias (1), left over: none (0); expected the weights of this model"),
        (lambda s: s | {"extra.weight": torch.zeros(1)},
         "checkpoint: unknown parameter 'extra.weight' (1 in all); expected those of a SimVP"),
        (lambda s: {k: v for k, v in s.items() if not k.startswith("vq.")},
         "checkpoint: missing: quantizer.codebook, quantizer.codes.bias, quantizer.codes.weight (5), left over: none"),
        (lambda s: s | {"vq.vq.codebook": torch.zeros(21, 8)},
         "checkpoint: quantizer.codebook of shape (21, 8); expected (20, 8)"),
        (lambda s: s | {"enc.enc.7.conv.norm.weight": torch.zeros(8)},
         "checkpoint: missing: none (0), left over: encoder.layers.7.norm.weight (1)"),
        (lambda s: s | {"hid.enc.0.block.attn.extra": torch.zeros(1)},
         "checkpoint: unknown parameter 'hid.enc.0.block.attn.extra'"),
        (lambda s: {"epoch": 3}, "checkpoint: holds epoch; expected tensors by name"),
        (lambda s: {"hid.enc.0.block.lstm.weight": torch.zeros(1)},
         "checkpoint: parameters hid.enc.0.block.lstm.weight; expected those of a SimVP with one of the translators"),
    ],
)  # fmt: skip
def test_nothing_is_dropped_silently(change, message):
    model = _model(seed=1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UserError) as caught:
        load_into(model, change(_original(_model())))
    assert str(caught.value).startswith(message)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (FIRST, None, "checkpoint: parameter 'enc.enc.0.conv.conv.weight' is missing"),
        (FIRST, torch.zeros(8), "checkpoint: enc.enc.0.conv.conv.weight of shape (8,); expected 4 axes"),
        (FIRST, torch.zeros(3, 2, 3, 3), "checkpoint: a translator of 16 channels on latent frames of 3; expected a "
                                         "multiple"),
        ("hid.enc.0.block.norm1.weight", None, "checkpoint: no normalisation in the translator's first block"),
        ("dec.dec.1.conv.conv.weight", None, "checkpoint: parameter 'dec.dec.1.conv.conv.weight' is missing"),
    ],
)  # fmt: skip
def test_sizes_of_what_is_no_simvp(name, value, message):
    state = {key: tensor for key, tensor in _original(_model()).items() if key != name}
    with pytest.raises(UserError) as caught:
        read_sizes(state if value is None else state | {name: value})
    assert str(caught.value).startswith(message)


class _Hostile:
    def __reduce__(self):
        return (print, ("run",))


def test_nothing_that_a_checkpoint_names_is_run(tmp_path, capsys):
    (tmp_path / "bad.pth").write_bytes(pickle.dumps({"state_dict": _Hostile()}))
    with pytest.raises(UserError, match=r"bad\.pth"):
        read_torch_file(tmp_path / "bad.pth")
    assert capsys.readouterr().out == ""


def test_parameters_that_the_original_lacks():
    with pytest.raises(UserError, match=r"model: the original has no parameter for 'lora.weight' \(1 in all\)"):
        to_original({"lora.weight": torch.zeros(1)}, "gsta")
