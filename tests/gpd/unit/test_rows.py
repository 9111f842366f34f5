"""Tables of rows: layouts, files, cities, statistics in a row."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from node_worlds import SIZES

from gpd.models.configs import NodeModelConfig
from gpd.models.original import convert_node_state, original_node_state
from gpd.models.spec import build_node_model, from_rows, row_size, to_rows
from gpd.rows import RowTable
from stcore.errors import UserError

ORIGINAL_SIZES = {"stgcn": 16_960, "gwn": 91_904}


def table(kind: str = "mlp", *, cities: tuple[str, ...] = ("a", "a", "b"), **options: object) -> RowTable:
    model = NodeModelConfig(kind=kind, **{**SIZES, **options})  # pyright: ignore[reportArgumentType]
    network = build_node_model(model, 2)
    params = network.init(torch.Generator().manual_seed(0), len(cities))
    if model.append_statistics:
        params = {name: value + 0.5 if "running" in name else value for name, value in params.items()}
    return RowTable(rows=to_rows(params, network.spec), model=model, features=2, cities=cities,
                    nodes=tuple(map(str, range(len(cities)))))  # fmt: skip


@pytest.mark.parametrize("kind", ["stgcn", "gwn"])
def test_rows_of_the_original_are_as_long_as_published(kind: str) -> None:
    model = NodeModelConfig(kind=kind, norm="batch", row="legacy")  # pyright: ignore[reportArgumentType]
    assert row_size(build_node_model(model, 2).spec) == ORIGINAL_SIZES[kind]


def test_a_native_row_of_graph_wavenet_has_no_dead_numbers() -> None:
    model = NodeModelConfig(kind="gwn", norm="batch")
    spec = build_node_model(model, 2).spec
    assert row_size(spec) == 78_528 and all(entry.used for entry in spec)
    with_statistics = build_node_model(replace(model, append_statistics=True), 2).spec
    assert row_size(with_statistics) == 78_528 + 448
    groups = [entry.group for entry in spec]
    assert [group for group, before in zip(groups, ["", *groups], strict=False) if group != before] == [
        "filter_convs", "gate_convs", "skip_convs", "bn.weight", "bn.bias", "gconv", "start_conv", "end_conv_1",
        "end_conv_2"]  # fmt: skip


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
def test_every_used_number_of_a_row_moves_the_forecast(norm: str) -> None:
    model = NodeModelConfig(kind="gwn", norm=norm, **SIZES)  # pyright: ignore[reportArgumentType]
    network = build_node_model(model, 2)
    params = network.init(torch.Generator().manual_seed(0), 1)
    trained = {entry.name: params[entry.name].requires_grad_() for entry in network.spec}
    graph = torch.tensor([[[0.5, 0.3], [0.2, 0.5]]])
    x = torch.randn(1, 4, 2, 12, 2, generator=torch.Generator().manual_seed(1))
    y = network.forward_stacked(params, x, graph, torch.ones(1, 2, dtype=torch.bool), torch.tensor([0]))
    y.square().sum().backward()
    for name, value in trained.items():
        assert value.grad is not None and bool((value.grad != 0).any()), name


def test_layouts_hold_the_same_networks() -> None:
    native = table("gwn", norm="batch")
    legacy = native.in_layout("legacy")
    assert legacy.rows.shape[1] > native.rows.shape[1]
    assert torch.equal(legacy.in_layout("native").rows, native.rows)
    spoilt = legacy.rows.clone()
    start = 0
    for entry in legacy.spec:
        if not entry.used:
            assert float(spoilt[:, start : start + entry.size].abs().max()) == 0.0
            spoilt[:, start : start + entry.size] = 9.0
        start += entry.size
    assert torch.equal(replace(legacy, rows=spoilt).in_layout("native").rows, native.rows)


def test_statistics_in_a_row_come_back() -> None:
    found = table("gwn", norm="batch", append_statistics=True)
    params = found.params()
    assert torch.allclose(params["bn.0.running_var"], torch.full((3, 4), 1.5), atol=1e-6)
    assert torch.allclose(params["bn.2.running_mean"], torch.full((3, 4), 0.5))
    assert torch.allclose(to_rows(params, found.spec), found.rows, atol=1e-6)


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = replace(table(), mean=torch.randn(3, 2), std=torch.rand(3, 2), averages=torch.randn(3, 24),
                      metadata={"seed": 3})  # fmt: skip
    written.write(tmp_path / "rows.safetensors")
    read = RowTable.read(tmp_path / "rows.safetensors")
    assert read.model == written.model and read.cities == written.cities and read.nodes == written.nodes
    assert read.metadata == {"seed": 3} and read.features == 2
    for name in ("rows", "mean", "std", "averages"):
        assert torch.equal(getattr(read, name), getattr(written, name))


def test_a_damaged_or_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.safetensors"
    table().write(path)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="tensor 'rows' does not match its digest"):
        RowTable.read(path)
    from stcore.training.checkpoint import save_checkpoint

    save_checkpoint(path, {}, {"package": "gpd"})
    with pytest.raises(UserError, match="'a checkpoint of a run'; expected a table of rows"):
        RowTable.read(path)


def test_cities_are_chosen_and_left_out() -> None:
    found = replace(table(), mean=torch.arange(6.0).reshape(3, 2))
    assert found.of("b").nodes == ("2",) and found.without("b").nodes == ("0", "1")
    (mean,) = [part.mean for part in [found.of("b")]]
    assert mean is not None and mean.tolist() == [[4.0, 5.0]]
    again = RowTable.concat([found.without("b"), found.of("b")])
    assert torch.equal(again.rows, found.rows) and again.cities == found.cities


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match="rows: 195 numbers each; expected 75 for mlp with 2 channels, layout native"):
        replace(table(), model=NodeModelConfig(kind="mlp", **{**SIZES, "history": 2, "layers": 1}))
    with pytest.raises(UserError, match="rows: 1 cities for 3 rows; expected one for each"):
        replace(table(), cities=("a",))
    with pytest.raises(UserError, match=r"rows: gwn of .* beside mlp of 195; expected networks of one kind"):
        RowTable.concat([table(), table("gwn")])
    with pytest.raises(UserError, match="rows: no table to join"):
        RowTable.concat([])


@pytest.mark.parametrize("kind", ["stgcn", "gwn"])
def test_networks_go_to_the_original_and_back(kind: str) -> None:
    native = table(kind, norm="batch", cities=("a",)).in_layout("legacy")
    state = {name: value[0] for name, value in native.params().items()}
    original = original_node_state(state, native.model, 2)
    found = convert_node_state(original, history=12)
    assert found.model == replace(native.model, kernel=native.model.kernel_size, dropout=found.model.dropout,
                                  graph_channels=found.model.graph_channels, blocks=found.model.blocks,
                                  skip_channels=found.model.skip_channels, end_channels=found.model.end_channels,
                                  dilation_channels=found.model.dilation_channels)  # fmt: skip
    assert all(torch.equal(found.state[name], value) for name, value in state.items())


def test_a_state_that_is_neither_is_refused() -> None:
    with pytest.raises(UserError, match="expected those of v_STGCN5 or v_GWN"):
        convert_node_state({"weight": torch.zeros(2)})
    native = table("stgcn", cities=("a",))
    state = {name: value[0] for name, value in from_rows(native.rows, native.spec).items()}
    with pytest.raises(UserError, match=r"state: last_temporal.conv2.weight is missing; expected \(4, 4, 1, 4\)"):
        convert_node_state({name: value for name, value in state.items() if name != "last_temporal.conv2.weight"})
    with pytest.raises(UserError, match="state: 'more' beside those of stgcn; expected no such tensor"):
        convert_node_state({**state, "more": torch.zeros(1)})
