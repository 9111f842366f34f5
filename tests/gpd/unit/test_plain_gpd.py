"""The plain node models that gpd is timed against reproduce the recordings, and train as the stack does."""

from __future__ import annotations

import pytest
import torch
from benchmarks.gpd import speed
from benchmarks.gpd.plain import PlainGWN, PlainSTGCN
from gpd_recordings import Recording, named, open_recording
from torch import nn

from gpd.models.configs import NodeKind
from stcore.errors import UserError


def plain_of(recording: Recording) -> nn.Module:
    meta = recording.meta
    if recording.kind == "v_STGCN5":
        model: nn.Module = PlainSTGCN(meta["message_dim"], meta["his_num"], meta["pred_num"])
    else:
        model = PlainGWN(**(meta["ctor"] if isinstance(meta["ctor"], dict) else {}))
    model.load_state_dict(recording.weights(), strict=recording.kind == "v_STGCN5")
    return model.eval()


@pytest.mark.parametrize("name", named("node_"))
def test_plain_forecasts(name: str) -> None:
    recording = open_recording(name)
    with torch.inference_mode():
        found = plain_of(recording)(recording.input("input.x"), recording.input("input.a_hat"))
    recording.check("output.y", found, atol=1e-6)


@pytest.mark.parametrize("kind", ["stgcn", "gwn"])
def test_both_sides_of_the_benchmark_train_alike(kind: NodeKind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "BATCH", 4)
    scene = speed.Scene.make(kind, 2, 2, torch.device("cpu"))
    assert scene.difference(2) <= speed.SAME
    last = "fully.weight" if kind == "stgcn" else "end_conv_2.weight"
    assert not torch.equal(scene.stacked(2).current()[last], scene.stacked(1).current()[last])


def test_every_case_is_known_by_its_name() -> None:
    with pytest.raises(UserError, match="cases: 'colour'; expected some of training-stgcn, training-gwn, all-nodes"):
        next(speed.run(quick=True, cases="colour"))
