"""Every kind of file of the original, and what is refused."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import legacy_networks
import numpy as np
import pytest
import torch
from diffusion_worlds import world

from gpd.convert import (
    FAMILIES,
    from_legacy_state_dict,
    import_diffusion,
    kind_of,
    read_network,
    read_networks,
    read_prompts,
    read_rows,
    read_samples,
    to_legacy_state_dict,
)
from gpd.convert.families import nodes_of
from gpd.diffusion.averaging import average_weights
from gpd.diffusion.configs import STRATEGIES, SamplingConfig, Strategy, original_denoiser
from gpd.diffusion.denoiser import Denoiser, TokenTable
from gpd.diffusion.schedule import Schedule
from gpd.diffusion.tokens import make_layout
from gpd.diffusion.trained import TrainedDiffusion
from gpd.generate import generate
from gpd.models.configs import NodeModelConfig
from gpd.models.spec import build_node_model, row_size
from gpd.prompts.table import Prompts
from stcore.errors import UserError

STGCN = NodeModelConfig(kind="stgcn", norm="batch", row="legacy")
SMALL = NodeModelConfig(kind="stgcn", norm="batch", row="legacy", channels=4, graph_channels=4, history=10, horizon=2)
NUMBERS = row_size(build_node_model(SMALL, 2).spec)


def test_tables_of_rows_know_their_cities(tmp_path: Path) -> None:
    count = sum(rows for _, rows in FAMILIES["crowd"])
    rows = np.arange(count, dtype=np.float32)[:, None] * np.ones(NUMBERS, np.float32)
    np.save(tmp_path / "ModelParams_small.npy", rows)
    table = read_rows(tmp_path / "ModelParams_small.npy", model=SMALL)
    assert (len(table), table.model) == (count, SMALL)
    assert [len(table.of(city)) for city, _ in FAMILIES["crowd"]] == [194, 267, 195]
    assert float(table.of("BM").rows[0, 0]) == 194.0 and table.of("BM").nodes[:2] == ("0", "1")
    ours = replace(SMALL, row="native", norm="layer")  # files of the original hold what the original trained
    one = read_rows(tmp_path / "ModelParams_small.npy", model=ours, city="here")
    assert set(one.cities) == {"here"} and one.model == SMALL
    with pytest.raises(UserError, match=r"ModelParams_small\.npy: 656 rows; expected 1,683 of traffic; a table of one"):
        read_rows(tmp_path / "ModelParams_small.npy", family="traffic", model=SMALL)
    with pytest.raises(UserError, match=r"rows of \d+ numbers; expected 16,960 for stgcn, 91,904 for gwn; name what"):
        read_rows(tmp_path / "ModelParams_small.npy")


def test_shenzhen_comes_before_chengdu() -> None:
    cities, nodes = nodes_of(FAMILIES["traffic"])
    assert len(cities) == 1683
    starts = {city: cities.index(city) for city in ("metr-la", "pems-bay", "shenzhen", "chengdu_m")}
    assert starts == {"metr-la": 0, "pems-bay": 207, "shenzhen": 532, "chengdu_m": 1159}
    assert nodes[532] == "0" and nodes[-1] == "523"


def test_samples_are_put_together_again(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).normal(size=(3, 64, 265)).astype(np.float32)
    np.save(tmp_path / "sampleRes_DC.npy", samples)
    table = read_samples(tmp_path / "sampleRes_DC.npy")
    assert table.model == STGCN and table.cities == ("DC",) * 3
    # Channels first: token l holds the numbers l, 265 + l, 2 * 265 + l, …
    assert float(table.rows[1, 5 * 265 + 7]) == float(samples[1, 5, 7])
    np.save(tmp_path / "sampleRes_2010.npy", samples)
    with pytest.raises(UserError, match=r"sampleRes_2010\.npy: 3 rows, which is the size of no city .* name the city"):
        read_samples(tmp_path / "sampleRes_2010.npy")
    assert read_samples(tmp_path / "sampleRes_2010.npy", city="here").cities == ("here",) * 3


def test_prompts_of_both_families(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    crowd = {name: draw.normal(size=(656, 128)).astype(np.float32) for name in ("KGEmb", "CrowdTimeEmb")}
    np.save(tmp_path / "KGEmb.npy", crowd["KGEmb"])
    with pytest.raises(UserError, match=r"CrowdTimeEmb\.npy: no such file"):
        read_prompts(tmp_path / "KGEmb.npy")
    np.save(tmp_path / "CrowdTimeEmb.npy", crowd["CrowdTimeEmb"])
    for name in crowd:
        found = read_prompts(tmp_path / f"{name}.npy")
        assert np.array_equal(found.spatial, crowd["KGEmb"]) and np.array_equal(found.temporal, crowd["CrowdTimeEmb"])
    np.save(tmp_path / "trafficTimeEmb.npy", draw.normal(size=(1683, 128)))
    speeds = read_prompts(tmp_path / "trafficTimeEmb.npy")
    assert (speeds.spatial == 1.0).all() and speeds.names == ("metr-la", "pems-bay", "shenzhen", "chengdu_m")


@pytest.mark.parametrize(("values", "message"), [
    (np.zeros((2, 3), np.int64), "array of int64; expected numbers with decimals"),
    (np.zeros(5), "array of shape (5,); expected rows of parameters"),
    (np.zeros((0, 3)), "array of shape (0, 3); expected rows of parameters"),
    (np.array([[1.0, 2.0], [3.0, np.nan]]), "row 1, number 1 is nan; expected finite numbers"),
    (np.array([["a"]], dtype=object), "array of object"),
])  # fmt: skip
def test_arrays_that_are_no_rows(values: Any, message: str, tmp_path: Path) -> None:
    np.save(tmp_path / "ModelParams_x.npy", values, allow_pickle=True)
    with pytest.raises(UserError) as caught:
        read_rows(tmp_path / "ModelParams_x.npy", city="here")
    assert str(caught.value).startswith(f"{tmp_path}/ModelParams_x.npy: ")
    assert message in str(caught.value) or "Python objects" in str(caught.value)


def test_files_are_told_by_their_names(tmp_path: Path) -> None:
    names = {"ModelParams_GWN_91904_traffic.npy": "rows", "sampleSeq_RealParams_140.npy": "samples",
             "sampleRes_DC.npy": "samples", "KGEmb.npy": "prompts", "model-80000.pt": "diffusion",
             "task4_17.pt": "node"}  # fmt: skip
    assert {name: kind_of(Path(name)) for name in names} == names
    with pytest.raises(
        UserError, match=r"^other\.bin: no name that the original gives its files; expected ModelParams"
    ):
        kind_of(Path("other.bin"))


@pytest.mark.parametrize("kind", ["gwn", "stgcn"])
def test_pickled_networks_are_read_without_their_classes(kind: str, tmp_path: Path) -> None:
    states = []
    torch.manual_seed(0)
    with legacy_networks.classes() as known:
        for node in (0, 1, 10, *range(2, 10)):
            net = getattr(legacy_networks, kind)(known)
            legacy_networks.save(net, tmp_path / f"task4_{node}.pt")
            states.append((node, net.state_dict()))
    tensors = read_network(tmp_path / "task4_1.pt")
    assert list(tensors) == list(dict(states)[1])
    assert kind_of(tmp_path) == "node"
    table = read_networks(tmp_path, city="here", history=5)
    assert table.nodes == tuple(map(str, range(11))) and table.model.kind == kind
    for node, state in states:
        start = 0
        for entry in table.spec:
            part = table.rows[node, start : start + entry.size]
            start += entry.size
            assert torch.equal(part, state[entry.name].flatten() if entry.used else torch.zeros(entry.size))
    if kind == "gwn":
        assert torch.equal(table.states["bn.0.running_var"][10], dict(states)[10]["bn.0.running_var"])


def test_other_names_in_a_pickle_are_refused_before_it_is_read(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    with legacy_networks.classes() as known:
        torch.save(known["Stranger"](), tmp_path / "stranger.pt")
        torch.save(known["linear"](), tmp_path / "part.pt")
    hostile = {"reduce": _Hostile(str(canary))}
    torch.save(hostile, tmp_path / "hostile.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps([1, 2]))
    torch.save({"a": torch.zeros(1)}, tmp_path / "state.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "part.pt").read_bytes()[:200])
    for name, message in {
        "stranger": "asks for 'Elsewhere.Stranger'; expected Models.meta_gwn.v_GWN or",
        "hostile": "asks for 'posix.mkdir'; expected Models.meta_gwn.v_GWN or",
        "part": "holds a 'Models.meta_gwn.linear'; expected one of Models.meta_gwn.v_GWN",
        "plain": "no file of torch.save",
        "state": "holds a 'dict'; expected one of",
        "cut": "no file of torch.save",
        "missing": "no such file",
    }.items():
        with pytest.raises(UserError) as caught:
            read_network(tmp_path / f"{name}.pt")
        assert message in str(caught.value)
        assert str(caught.value).startswith(f"{tmp_path}/{name}.pt: ") and "\n" not in str(caught.value)
    assert not canary.exists()


class _Hostile:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def test_a_city_lacks_a_network(tmp_path: Path) -> None:
    with legacy_networks.classes() as known:
        for node in (0, 2):
            legacy_networks.save(legacy_networks.stgcn(known), tmp_path / f"task4_{node}.pt")
    with pytest.raises(UserError, match=r": no task4_1\.pt \(1 missing up to 2\); expected one for each node"):
        read_networks(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: no task4_<i>\.pt inside; expected one for each node"):
        read_networks(tmp_path / "empty")


def legacy_checkpoint(strategy: Strategy, *, steps: int = 500, kind: str = "linear") -> tuple[dict[str, Any], Any]:
    """Return what the original saves, and the denoiser behind its average."""
    torch.manual_seed(3)
    config = original_denoiser(strategy, width=16, channels=8)
    layout = make_layout(build_node_model(SMALL, 2).spec, "legacy", 8)
    model = Denoiser(config, TokenTable.of(layout, config), 5, 6)
    inner = to_legacy_state_dict(model.state_dict(), strategy)
    unused = {"layers_decoding.0._selfAttention._W_q.weight": torch.zeros(2), "last_mlp.1.bias": torch.zeros(2)}
    if strategy == "adaptive-norm":
        unused |= {"kgEmb_linear.weight": torch.zeros(16, 5), "timeEmb_linear.weight": torch.zeros(16, 6)}
    schedule = Schedule.make(steps, kind, "legacy")  # pyright: ignore[reportArgumentType]
    buffers = {"betas": schedule.betas, "alphas_cumprod": schedule.alphas_cumprod,
               "loss_weight": schedule.loss_weight("v")}  # fmt: skip
    average = {**buffers, **{f"model.{name}": value for name, value in {**inner, **unused}.items()}}
    online = {name: value + 1.0 if name.startswith("model.") else value for name, value in average.items()}
    content = {
        "step": 2010, "model": online, "opt": {"state": {}, "param_groups": []}, "scaler": None, "version": "1.9.4",
        "ema": {"initted": torch.tensor(True), "step": torch.tensor(2010),
                **{f"online_model.{name}": value for name, value in online.items()},
                **{f"ema_model.{name}": value for name, value in average.items()}},
    }  # fmt: skip
    return content, model


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_checkpoints_of_the_diffusion_stage_become_runs(strategy: Strategy, tmp_path: Path) -> None:
    content, model = legacy_checkpoint(strategy)
    torch.save(content, tmp_path / "model-2010.pt")
    run = import_diffusion(tmp_path / "model-2010.pt", tmp_path / "run", model=SMALL)
    trained = TrainedDiffusion.load(run.folder)
    assert trained.dims == (5, 6) and trained.stage.denoiser.layout == "legacy"
    assert trained.stage.diffusion.objective == "v" and trained.model == SMALL
    for name, value in model.state_dict().items():
        assert torch.equal(trained.denoiser.state_dict()[name], value)
    draw = np.random.default_rng(0)
    prompts = Prompts(spatial=draw.normal(size=(3, 5)).astype(np.float32), cities=("a",) * 3, nodes=("0", "1", "2"),
                      temporal=draw.normal(size=(3, 6)).astype(np.float32))  # fmt: skip
    rows = generate(trained, prompts, SamplingConfig(steps=2, clip="legacy"), device="cpu")
    assert rows.shape == (3, NUMBERS) and float(rows.abs().max()) <= 1.0
    last = import_diffusion(tmp_path / "model-2010.pt", tmp_path / "last", averaged=False, model=SMALL)
    assert torch.equal(TrainedDiffusion.load(last.folder).denoiser.enter.bias, model.enter.bias + 1.0)


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda content: content.pop("ema"), "holds step, model, opt, scaler, version; expected ema among"),
    (lambda content: content["ema"].pop("ema_model.betas"), "expected betas and a denoiser under model."),
    (lambda content: content["ema"].update({"ema_model.betas": torch.linspace(0, 1, 9)}), "9 betas of no known"),
    (lambda content: content["ema"].update({"ema_model.model.odd": torch.zeros(1)}), "unknown parameter 'odd'"),
    (lambda content: content["ema"].pop("ema_model.model._linear.bias"), "leave.bias is missing; expected (8,)"),
])  # fmt: skip
def test_checkpoints_that_are_none(spoil: Any, message: str, tmp_path: Path) -> None:
    content, _ = legacy_checkpoint("pre-inductive")
    spoil(content)
    torch.save(content, tmp_path / "model-10.pt")
    with pytest.raises(UserError) as caught:
        import_diffusion(tmp_path / "model-10.pt", tmp_path / "run", model=SMALL)
    assert str(caught.value).startswith(f"{tmp_path}/model-10.pt: ") and message in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_what_is_no_denoiser() -> None:
    with pytest.raises(UserError, match="parameters a; expected those of a denoiser, Trans1 to Trans5"):
        from_legacy_state_dict({"a": torch.zeros(1)})
    table, _ = world()
    assert average_weights(torch.nn.Linear(1, 1), 0.0) is None and len(table) == 12
