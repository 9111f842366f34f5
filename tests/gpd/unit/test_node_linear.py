"""A linear map beside a node model: part of the row, nothing at first, the node's own history only."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gpd.models.configs import NODE_KINDS, NodeKind, NodeModelConfig
from gpd.models.spec import build_node_model, from_rows, row_size, to_rows
from stcore.errors import UserError

MODEL = NodeModelConfig(history=12, horizon=3, channels=4, dilation_channels=4, skip_channels=4, end_channels=4)


@pytest.mark.parametrize("kind", NODE_KINDS)
def test_a_linear_map_is_added_and_starts_at_nothing(kind: NodeKind) -> None:
    config = replace(MODEL, kind=kind)
    bare, model = build_node_model(config, 2), build_node_model(replace(config, linear=True), 2)
    assert row_size(model.spec) == row_size(bare.spec) + 12 * 3
    params = model.init(torch.Generator().manual_seed(0), 2)
    x, graph = torch.randn(2, 5, 3, 12, 2), torch.eye(3).expand(2, 3, 3).contiguous()
    given = (x, graph, torch.ones(2, 3, dtype=torch.bool), torch.tensor([1, 2]))
    before = bare.forward_stacked(params, *given)
    torch.testing.assert_close(model.forward_stacked(params, *given), before)
    params["linear.weight"] = torch.randn(2, 3, 12)
    added = torch.stack([x[node, :, at, :, 0] @ params["linear.weight"][node].T for node, at in ((0, 1), (1, 2))])
    torch.testing.assert_close(model.forward_stacked(params, *given), before + added)
    again = from_rows(to_rows(params, model.spec), model.spec)
    assert torch.equal(again["linear.weight"], params["linear.weight"])


def test_a_linear_map_reads_the_last_channel_where_averages_are_uneven() -> None:
    config = replace(MODEL, kind="mlp", linear=True, residual="average", unevenness=True)
    model = build_node_model(config, 3)
    params = model.init(torch.Generator().manual_seed(0), 1)
    assert params["linear.weight"].shape == (1, 3, 24)
    x = torch.randn(1, 5, 1, 12, 3)
    given = (x, torch.eye(1)[None], torch.ones(1, 1, dtype=torch.bool), torch.tensor([0]))
    before = model.forward_stacked(params, *given)
    params["linear.weight"] = torch.randn(1, 3, 24)
    read = torch.cat([x[0, :, 0, :, 0], x[0, :, 0, :, 2]], dim=-1)
    torch.testing.assert_close(
        model.forward_stacked(params, *given)[0], before[0] + read @ params["linear.weight"][0].T
    )


def test_rows_of_the_original_have_no_linear_map() -> None:
    with pytest.raises(UserError, match=r"model\.linear: True; expected false with row legacy"):
        NodeModelConfig(linear=True, row="legacy")
