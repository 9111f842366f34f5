"""Stacked training is the training of each node alone; what is kept, and what a killed run goes on from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from node_worlds import MODELS, SHORT, city, make_stack, name_of, steps_of

from gpd.finetune import finetune
from gpd.models.configs import NodeModelConfig, NodeTrainingConfig
from gpd.node_training import CosineRate, NodeBatch, NodeBatches, NodeStack
from gpd.pretrain import pretrain
from gpd.rows import RowTable
from stcore.errors import UserError
from stcore.graph_windows import few_shot, split_graph
from stcore.training.run import Run

PERCEPTRON = NodeModelConfig(kind="mlp", history=12, horizon=3, channels=4, dropout=0.3)


@pytest.mark.parametrize("model", MODELS, ids=name_of)
@pytest.mark.parametrize("symmetric", [False, True], ids=["directed", "symmetric"])
def test_three_steps_of_a_stack_are_those_of_each_node_alone(model: NodeModelConfig, symmetric: bool) -> None:
    """Dropping included, whose draws belong to a node; sizes of ego graphs differ, so padding is at work too."""
    series = city(symmetric=symmetric)
    nodes = [0, 1, 3, 4]
    together = steps_of(make_stack(model, nodes, replace(SHORT, group=3), series), [str(node) for node in nodes], 3)
    for row, node in enumerate(nodes):
        alone = steps_of(make_stack(model, [node], series=series), [str(node)], 3)
        for name, value in alone.items():
            error = float((together[name][row] - value[0]).abs().max())
            assert error <= 1e-5, f"node {node}: {name} differs by {error:.3g}"


@pytest.mark.parametrize("model", MODELS[:3], ids=name_of)
def test_missing_readings_count_nothing(model: NodeModelConfig) -> None:
    """Whatever stands where nothing is known, the gradient is the same, and so are losses."""
    series = city(missing=0.1)
    stack = make_stack(model, [0, 2], series=series)
    values = stack.part("train").values
    known = stack.part("train").known
    assert known is not None and not known.all()
    first = steps_of(stack, ["0", "2"], 2)
    other = make_stack(model, [0, 2], series=series)
    other.part("train").values.copy_(torch.where(known, values, 1000.0))
    second = steps_of(other, ["0", "2"], 2)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_best_weights_are_kept_node_by_node() -> None:
    stack = make_stack(MODELS[0], [0, 1])
    began = {name: value.clone() for name, value in stack.current().items()}
    stack.consider(torch.tensor([2.0, 2.0]), 0)
    now = steps_of(stack, ["0", "1"], 1)
    stack.consider(torch.tensor([3.0, 1.0]), 1)
    assert stack.get_buffer("best_epoch").tolist() == [0, 1]
    assert stack.get_buffer("best_loss").tolist() == [2.0, 1.0]
    for name, value in stack.kept().items():
        assert torch.equal(value[0], began[name][0]) and torch.equal(value[1], now[name][1])
        assert not torch.equal(began[name], now[name])


def test_all_networks_may_choose_together() -> None:
    """Each loss counts in units of its node's scale; one that is not known does not count."""
    stack = make_stack(MODELS[0], [0, 1, 2], replace(SHORT, choose="together"))
    stack.get_buffer("std")[:, 0] = torch.tensor([1.0, 10.0, 1.0])
    stack.consider(torch.tensor([2.0, 100.0, torch.inf]), 0)
    stack.consider(torch.tensor([2.4, 50.0, torch.inf]), 1)
    assert stack.get_buffer("best_epoch").tolist() == [1, 1, 1]
    assert stack.get_buffer("best_loss").tolist() == pytest.approx([1.45] * 3)
    stack.consider(torch.tensor([1.0, 200.0, torch.inf]), 2)
    assert stack.get_buffer("best_epoch").tolist() == [1, 1, 1]


@pytest.mark.parametrize("loss", ["mse", "mae"])
def test_networks_of_a_city_are_one_while_they_share_epochs(loss: str) -> None:
    """They take the mean of their gradients, each in units of its scale, and go on alone afterwards."""
    training = replace(SHORT, shared_epochs=1, loss=loss)  # pyright: ignore[reportArgumentType]
    stack = make_stack(MODELS[4], [0, 1, 2], training)
    for name in stack.names:
        value = stack.get_parameter(name.replace(".", "/"))
        value.data.copy_(value.data[:1].expand_as(value))
    alone = make_stack(MODELS[4], [0, 1, 2], replace(training, shared_epochs=0))
    alone.load_state_dict(stack.state_dict())
    batch = NodeBatch(stack.part("train").starts[:8], (0, 1, 2), (1, 1, 1), 0)
    for module in (stack, alone):
        module.eval()
        module(batch).backward()
    unit = stack.scales.std[:, 0].square() if loss == "mse" else stack.scales.std[:, 0]
    for (name, one), (_, each) in zip(stack.named_parameters(), alone.named_parameters(), strict=True):
        assert one.grad is not None and each.grad is not None, name
        scaled = each.grad / unit.reshape(-1, *(1,) * (each.ndim - 1))
        torch.testing.assert_close(one.grad, scaled.mean(dim=0).expand_as(one))
        one.grad = None
    stack(batch._replace(epoch=1)).backward()
    for (_, one), (_, each) in zip(stack.named_parameters(), alone.named_parameters(), strict=True):
        assert one.grad is not None and each.grad is not None
        torch.testing.assert_close(one.grad, each.grad / unit.reshape(-1, *(1,) * (each.ndim - 1)))


def test_networks_that_start_differently_share_no_epochs() -> None:
    with pytest.raises(UserError, match=r"training\.shared-epochs: 2; expected 0 with start own"):
        NodeTrainingConfig(start="own", shared_epochs=2)


def test_a_choice_that_was_cut_short_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C may come while the best weights are copied; the evaluation is then repeated."""
    stack = make_stack(MODELS[0], [0, 1])
    stack.consider(torch.tensor([2.0, 2.0]), 0)
    now = {name: value.clone() for name, value in steps_of(stack, ["0", "1"], 1).items()}
    losses, copy, seen = torch.tensor([1.0, 3.0]), torch.Tensor.copy_, [0]

    def cut(self, *others):
        seen[0] += 1
        if seen[0] == 4:
            raise KeyboardInterrupt
        return copy(self, *others)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(torch.Tensor, "copy_", cut)
        stack.consider(losses, 1)
    stack.consider(losses, 1)
    assert stack.get_buffer("best_epoch").tolist() == [1, 0] and stack.get_buffer("best_loss").tolist() == [1.0, 2.0]
    assert all(torch.equal(value[0], now[name][0]) for name, value in stack.kept().items())


def test_a_stack_that_was_never_scored_keeps_its_last_weights() -> None:
    stack = make_stack(MODELS[1], [0, 1])
    now = steps_of(stack, ["0", "1"], 2)
    assert all(torch.equal(value, now[name]) for name, value in stack.kept().items())


@pytest.mark.parametrize("model", [MODELS[1], MODELS[4]], ids=name_of)
def test_a_run_goes_on_from_any_step_to_the_bit(
    model: NodeModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series, training = city(nodes=3, days=10), replace(SHORT, batch=128)
    whole = pretrain(series, model, training, run=tmp_path / "whole", device="cpu", quiet=True)
    wanted = Run(tmp_path / "whole")
    for stop in range(1, wanted.steps()[-1] + 1):
        folder = tmp_path / f"cut-{stop}"
        _killed_after(stop, monkeypatch)
        with pytest.raises(RuntimeError, match="killed"):
            pretrain(series, model, training, run=folder, device="cpu", quiet=True)
        monkeypatch.undo()
        again = pretrain(series, model, training, resume=folder, device="cpu", quiet=True)
        assert torch.equal(again.rows, whole.rows)
        assert again.metadata == whole.metadata
        assert all(torch.equal(again.states[name], value) for name, value in whole.states.items())
        assert Run(folder).metrics_file.read_bytes() == wanted.metrics_file.read_bytes()
        last = Run(folder).step_files()[-1]
        assert last.read_bytes() == wanted.step_file(wanted.steps()[-1]).read_bytes()


def _killed_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the step after so many fail, or the evaluation where there is no such step."""
    forward, seen = NodeStack.forward, [0]

    def counted(self, batch):
        seen[0] += 1
        if seen[0] > steps:
            raise RuntimeError("killed")
        return forward(self, batch)

    def stopped(self, *_):
        if seen[0] >= steps and seen[0] > 0:
            raise RuntimeError("killed")
        return consider(self, *_)

    consider = NodeStack.consider
    monkeypatch.setattr(NodeStack, "forward", counted)
    monkeypatch.setattr(NodeStack, "consider", stopped)


def test_a_run_of_other_data_is_refused(tmp_path: Path) -> None:
    series = city(nodes=3, days=10)
    pretrain(series, PERCEPTRON, SHORT, run=tmp_path / "run", device="cpu", quiet=True)
    with pytest.raises(UserError, match="made from another data; expected the same"):
        pretrain(city(nodes=3, days=10, seed=1), PERCEPTRON, SHORT, resume=tmp_path / "run", device="cpu", quiet=True)


def test_networks_of_a_shared_start_begin_alike_and_those_of_their_own_do_not() -> None:
    series = city()
    training = replace(SHORT, learning_rate=1e-12, select_on="last", epochs=1)
    shared = pretrain(series, PERCEPTRON, training, device="cpu", quiet=True).rows
    assert float((shared - shared[0]).abs().max()) < 1e-6
    own = pretrain(series, PERCEPTRON, replace(training, start="own"), device="cpu", quiet=True).rows
    assert float((own - own[0]).abs()[1:].mean()) > 0.05
    part = pretrain(series, PERCEPTRON, replace(training, start="own"), device="cpu", quiet=True, nodes=[3, 1]).rows
    assert torch.equal(part, own[[3, 1]])


def test_a_shard_of_the_nodes_trains_as_all_do() -> None:
    series = city()
    whole = pretrain(series, PERCEPTRON, SHORT, device="cpu", quiet=True)
    parts = [
        pretrain(series, PERCEPTRON, SHORT, device="cpu", quiet=True, nodes=nodes) for nodes in ([0, 1], [2, 3, 4])
    ]
    joined = RowTable.concat(parts)
    assert joined.nodes == whole.nodes
    assert float((joined.rows - whole.rows).abs().max()) < 1e-6


def test_selection_never_looks_at_the_test_part() -> None:
    series = city(days=12)
    whole = pretrain(series, PERCEPTRON, SHORT, device="cpu", quiet=True)
    values = series.values.copy()
    values[: split_graph(series).test.num_steps] = 7.0
    other = pretrain(replace(series, values=values), PERCEPTRON, SHORT, device="cpu", quiet=True)
    assert torch.equal(whole.rows, other.rows)
    assert whole.mean is not None and other.mean is not None and torch.equal(whole.mean, other.mean)
    leaky = pretrain(replace(series, values=values), PERCEPTRON, replace(SHORT, select_on="test"), device="cpu",
                     quiet=True)  # fmt: skip
    assert leaky.metadata["best_loss"] != whole.metadata["best_loss"]


def test_fine_tuning_keeps_the_start_where_nothing_is_better() -> None:
    few = few_shot(city(), 3)
    start = pretrain(city(), PERCEPTRON, SHORT, device="cpu", quiet=True).rows
    wild = replace(SHORT, learning_rate=5.0, select_on="tail", epochs=1)
    table = finetune(few, start, PERCEPTRON, wild, device="cpu", quiet=True)
    assert table.metadata["best_epoch"] == [0] * 5
    assert torch.equal(table.rows, start)
    last = finetune(few, start, PERCEPTRON, replace(wild, select_on="last"), device="cpu", quiet=True)
    assert not torch.equal(last.rows, start)


def test_what_cannot_choose_is_refused() -> None:
    with pytest.raises(UserError, match=r"pretrain.select-on: 'tail'; expected val, test or last"):
        pretrain(city(), PERCEPTRON, replace(SHORT, select_on="tail"))
    with pytest.raises(UserError, match=r"finetune.select-on: 'val'; expected tail, last or test"):
        finetune(city(), None, PERCEPTRON, SHORT)
    with pytest.raises(UserError, match=r"finetune.select-on: 'test' without the test part"):
        finetune(city(), None, PERCEPTRON, replace(SHORT, select_on="test"))
    with pytest.raises(UserError, match=r"training.select-on: 'val' with split legacy"):
        replace(SHORT, split="legacy")
    with pytest.raises(UserError, match="rows: 2 for 5 nodes; expected one for each"):
        rows = pretrain(city(), PERCEPTRON, replace(SHORT, epochs=1), device="cpu", quiet=True, nodes=[0, 1]).rows
        finetune(city(), rows, PERCEPTRON, replace(SHORT, select_on="last"))


def test_last_partial_batch_is_dropped_on_demand_only() -> None:
    windows = torch.arange(40)
    counts = [len(list(NodeBatches(["a"], windows, NodeTrainingConfig(batch=16, drop_last=drop), 0).order(0)))
              for drop in (False, True)]  # fmt: skip
    assert counts == [3, 2]
    few = NodeBatches(["a"], windows[:5], NodeTrainingConfig(batch=16, drop_last=True), 0)
    assert len(few.order(0)) == 1, "one batch is always left"
    batch = few.load(0, few.order(0)[0])
    assert sorted(batch.starts.tolist()) == [0, 1, 2, 3, 4]


def test_cosine_rate_falls_from_the_whole_rate() -> None:
    rate = CosineRate(NodeTrainingConfig(epochs=4, learning_rate=2.0, decay="cosine"))
    assert [rate(epoch) for epoch in (0, 2)] == [2.0, pytest.approx(1.0)]
    assert CosineRate(NodeTrainingConfig(epochs=4, learning_rate=2.0))(3) == 2.0
