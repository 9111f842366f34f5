"""What training is made of: rates, groups of decay, state without the frozen weights, presets, the original's tags."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flow_runs import LORA, SMALL
from torch import nn
from vlm4st_recordings import open_recording

from stcore.cli import parse
from stcore.errors import UserError
from vlm4st.backbone import content_hash, frozen_blocks, frozen_tensors, reference_to
from vlm4st.cli import PROGRAM
from vlm4st.config import FewShotConfig, LossConfig, ScheduleConfig, TrainConfig
from vlm4st.few_shot import remark_on
from vlm4st.fitted_start import start_fitted
from vlm4st.mixing import Mixture
from vlm4st.objective import Objective, error_sums, means_of, total_loss
from vlm4st.presets import PRESETS
from vlm4st.schedules import epoch_rate, step_rate
from vlm4st.train import decays, make_model, make_optimiser
from vlm4st.watching import Board, Seen, real_errors


def settings(*words: str) -> TrainConfig:
    """Return the configuration of a miniature with some flags, on a grid of 4 x 6."""
    parsed = parse(PROGRAM.commands["train"], [*SMALL, "--data", "x.npz", *words], prog="train").settings
    return replace(parsed, model=replace(parsed.model, H=4, W=6))


@pytest.fixture(scope="module")
def adapted() -> Objective:
    return Objective(make_model(settings(*LORA)))


@pytest.mark.parametrize("name", ["lr.65.5", "lr.12.3"])
def test_epoch_rates_are_the_recorded_ones(name: str) -> None:
    recorded = open_recording("data_pipeline").expect(f"extra/{name}")
    epochs, warmup = (int(part) for part in name.split(".")[1:])
    schedule = ScheduleConfig(kind="cosine", warmup_epochs=warmup)
    ours = [epoch_rate(epoch, rate=1e-4, epochs=epochs, schedule=schedule) for epoch in range(epochs)]
    torch.testing.assert_close(torch.tensor(ours, dtype=torch.float64), recorded.double(), rtol=1e-6, atol=1e-12)


def test_step_schedule_falls_in_thirds_and_none_stays() -> None:
    schedule = ScheduleConfig(kind="step", warmup_epochs=1)
    rates = [epoch_rate(epoch, rate=1.0, epochs=9, schedule=schedule) for epoch in range(9)]
    assert rates == pytest.approx([1.0, 1.0, 1.0, 1.0, 0.1, 0.1, 0.1, 0.01, 0.01])
    flat = replace(schedule, kind="none")
    assert {epoch_rate(epoch, rate=1.0, epochs=9, schedule=flat) for epoch in range(9)} == {1.0}


def test_way_up_that_takes_the_whole_run_never_comes_down() -> None:
    schedule = ScheduleConfig(warmup_epochs=10)
    assert [epoch_rate(epoch, rate=1.0, epochs=5, schedule=schedule) for epoch in (0, 4)] == pytest.approx([0.1, 0.5])
    assert step_rate(99, rate=1.0, steps=5, schedule=schedule) == 0.01


def test_what_multiplies_decays_and_nothing_else(adapted: Objective) -> None:
    config = settings(*LORA)
    groups = make_optimiser(adapted, config).param_groups
    assert [group["weight_decay"] for group in groups] == [0.05, 0.0]
    names = {id(value): name for name, value in adapted.named_parameters()}
    rest = [names[id(value)] for value in groups[1]["params"]]
    assert all(value.dim() > 1 for value in groups[0]["params"])
    for part in ("bias", "norm", "weekday_embed", "cls_token", "coarse_prototypes", "horizon_queries"):
        assert any(part in name for name in rest), part
    counted = sum(len(group["params"]) for group in groups)
    assert counted == sum(value.requires_grad for value in adapted.parameters())
    whole = make_optimiser(adapted, replace(config, optimiser=replace(config.optimiser, decay="all"))).param_groups
    assert [(group["weight_decay"], len(group["params"])) for group in whole] == [(0.05, counted)]
    assert decays("vlm_module.text.1.intermediate.dense.weight", torch.ones(2, 2))


def test_state_leaves_out_what_is_frozen_and_loads_without_it(adapted: Objective) -> None:
    state = adapted.state_dict()
    frozen = frozen_tensors(adapted.module)
    assert frozen and not frozen.keys() & state.keys()
    assert all("adapter" in name or "lora" in name for name in state if name.startswith("vlm_module."))
    other = Objective(make_model(replace(settings(*LORA), seed=9)))
    before = {name: value.clone() for name, value in frozen_tensors(other.module).items()}
    other.load_state_dict(state)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in state.items())
    assert all(torch.equal(value, before[name]) for name, value in frozen_tensors(other.module).items())
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict({name: value for name, value in state.items() if "gate_fusion" not in name})


def test_hash_tells_content_names_types_and_sizes() -> None:
    base = {"a": torch.arange(4.0), "b": torch.ones(2)}
    same = content_hash({"b": torch.ones(2), "a": torch.arange(4.0)})
    assert content_hash(base) == same
    others = [base | {"a": torch.arange(4.0) + 1e-6}, base | {"a": torch.arange(4.0).double()},
              base | {"a": torch.arange(4.0)[None]}, {"c": base["a"], "b": base["b"]}]  # fmt: skip
    assert len({content_hash(other) for other in others} | {same}) == 5


def test_all_but_the_ends_of_the_image_encoder_is_shared_in_blocks(adapted: Objective) -> None:
    blocks = frozen_blocks(adapted.module)
    assert len(blocks) == 1 + 4  # one of the image encoder, four parts of the layer that attends to the image
    inside = {id(value) for block in blocks for value in block.parameters()}
    outside = [name for name, value in adapted.module.named_parameters()
               if not value.requires_grad and id(value) not in inside]  # fmt: skip
    assert {name.split(".")[2] for name in outside} == {"cls_token", "pos_embed", "patch_embed", "norm"}
    assert reference_to(adapted.module, None).tensors == len(adapted.frozen)


def test_loss_is_that_of_the_model_itself(adapted: Objective) -> None:
    generator = torch.Generator().manual_seed(0)
    x, target = torch.rand(2, 3, 4, 6, generator=generator), torch.rand(2, 2, 4, 6, generator=generator)
    stamps = torch.zeros(2, 3, 2, dtype=torch.int64)
    adapted.eval()
    made = adapted(x, stamps, target, watch=True)
    ours = total_loss(*means_of(made.sums), LossConfig())
    theirs, parts = adapted.module.get_loss(adapted(x, stamps).forecast[..., None], target)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(means_of(made.sums)[1], parts["mae_loss"])
    seen = Seen()
    seen.add(made.seen)
    assert sum(seen.gate_means().values()) == pytest.approx(1.0)
    maps = seen.gate_maps()
    assert maps is not None and maps.shape == (4, 4, 6)
    assert {name: table.shape for name, table in seen.pattern_maps().items()} == dict.fromkeys(
        ("temporal", "spatial", "cross"), (5, 2)
    )


def test_untrained_model_is_persistence(adapted: Objective) -> None:
    x = torch.rand(2, 3, 4, 6)
    forecast = adapted.eval()(x, torch.zeros(2, 3, 2, dtype=torch.int64)).forecast
    torch.testing.assert_close(forecast, x[:, -1:].expand(-1, 2, -1, -1))


def test_damped_residual_starts_from_persistence_and_learns_a_share_of_each_lead() -> None:
    damped = Objective(make_model(settings("--model.prediction-head.residual", "damped"))).eval()
    x, stamps = torch.rand(2, 3, 4, 6), torch.zeros(2, 3, 2, dtype=torch.int64)
    torch.testing.assert_close(damped(x, stamps).forecast, x[:, -1:].expand(-1, 2, -1, -1))
    shares = damped.module.prediction_head.shares
    with torch.no_grad():
        shares.copy_(torch.tensor([0.01, 0.05]))
    expected = x[:, -1:] * torch.tensor([0.9, 0.5])[:, None, None]
    torch.testing.assert_close(damped(x, stamps).forecast, expected)
    loss = damped(x, stamps, torch.zeros(2, 2, 4, 6)).sums.squared
    loss.backward()
    assert shares.grad is not None and (shares.grad < 0).all()  # less of the last frame would do


def test_linear_residual_starts_from_the_map_that_fits_best() -> None:
    model = make_model(settings("--model.prediction-head.residual", "linear"))
    x, stamps = torch.rand(2, 3, 4, 6), torch.zeros(2, 3, 2, dtype=torch.int64)
    torch.testing.assert_close(
        Objective(model).eval()(x, stamps).forecast, x[:, -1:].expand(-1, 2, -1, -1), msg="no data, no map"
    )
    truth = torch.tensor([[0.0, -0.5, 1.4], [0.2, 0.0, 0.3]])
    history = torch.randn(40, 3, 4, 6)
    future = torch.einsum("ht,btrc->bhrc", truth, history)
    mask = torch.ones(40, 2, 4, 6, dtype=torch.bool)
    mask[:, 1, 0] = False
    future[:, 1, 0] = 1e6

    class Batches(Mixture):
        def order(self, epoch):
            return [np.arange(20), np.arange(20, 40)]

        def load(self, epoch, ids):
            return {"x": history[ids], "target": future[ids], "mask": mask[ids]}

    batches = Batches(parts=(), size=20, seed=0)
    start_fitted(model, batches, LossConfig())
    carry = model.prediction_head.carry
    assert carry is not None
    torch.testing.assert_close(carry.detach(), truth, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(
        Objective(model).eval()(history[:2], stamps).forecast[:, 0], future[:2, 0], atol=1e-2, rtol=1e-2
    )
    model.prediction_head(torch.randn(2, 5, 16), torch.randn(2, 3, 4, 6, 8), x).sum().backward()
    assert carry.grad is not None and not decays("prediction_head.carry", carry)
    future[::5, 0] += 30.0  # absolute errors bear them, squared ones do not
    start_fitted(model, batches, LossConfig(mse_weight=0.0, mae_weight=1.0))
    torch.testing.assert_close(carry.detach(), truth, atol=1e-2, rtol=1e-2)
    start_fitted(model, batches, LossConfig(mse_weight=1.0, mae_weight=0.0))
    assert float((carry.detach() - truth).detach().abs().max()) > 0.1
    damped = make_model(settings("--model.prediction-head.residual", "damped"))
    history[:, :2] = 0.0
    future = torch.einsum("ht,btrc->bhrc", truth, history)
    start_fitted(damped, batches, LossConfig())
    torch.testing.assert_close(damped.prediction_head.carried(history), future, atol=1e-2, rtol=1e-2)
    taught = torch.tensor([[0.7], [-0.2]])
    damped.prediction_head.start_from(taught)
    start_fitted(damped, batches, LossConfig(), taught=120)
    mean = (40 * truth[:, -1:] + 120 * taught) / 160
    torch.testing.assert_close(damped.prediction_head.started(), mean, atol=1e-2, rtol=1e-2)


def test_errors_count_masked_cells_only() -> None:
    forecast, target = torch.ones(1, 2, 2, 2), torch.zeros(1, 2, 2, 2)
    mask = torch.tensor([[True, False], [True, True]]).expand(1, 2, 2, 2)
    sums = error_sums(3 * forecast, target, mask)
    assert [float(value) for value in sums] == [54.0, 18.0, 6.0]
    assert real_errors(torch.full((2, 1, 1, 1), 0.5), [2.0, 4.0]) == pytest.approx({"mae": 1.5, "rmse": 2.5**0.5})


def test_without_timestamps_everything_trained_has_a_gradient() -> None:
    objective = Objective(make_model(settings()))
    made = objective(torch.rand(1, 3, 4, 6), None, torch.rand(1, 2, 4, 6))
    total_loss(*means_of(made.sums), LossConfig()).backward()
    lacking = [
        name for name, value in objective.module.named_parameters() if value.requires_grad and value.grad is None
    ]
    assert lacking == []


def test_average_of_the_weights_copies_the_hooks(adapted: Objective) -> None:
    from stcore.training.starting import moving_average

    state = moving_average(adapted, 0.9).state_dict()
    assert not any("patch_embed" in name for name in state)
    assert any("gate_fusion" in name for name in state)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_start_from_persistence_and_are_written_and_read_back(name: str, tmp_path: Path) -> None:
    from stcore.configuration import from_plain, to_plain

    config = PRESETS[name]
    assert from_plain(TrainConfig, to_plain(config), where=name) == config
    head = config.model.prediction_head
    assert (head.residual, head.output_refine) == ("linear" if name == "small" else "last", "residual")


def test_few_shot_settings_are_checked() -> None:
    assert FewShotConfig(ratio=0.055).mode == "few_shot_6pct"
    for wrong, message in (({"ratio": 1.1}, "ratio: 1.1"), ({"days": 2.0, "ratio": 0.1}, "days: 2.0"),
                           ({"others": False}, "others: False"),
                           ({"others": False, "ratio": 0.1, "select_on": "sources"}, "select-on")):  # fmt: skip
        with pytest.raises(UserError, match=f"few-shot.{message}"):
            FewShotConfig(**wrong)  # pyright: ignore[reportArgumentType]


def test_board_writes_the_tags_of_the_original(adapted: Objective, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    made = adapted.eval()(torch.rand(2, 3, 4, 6), torch.zeros(2, 3, 2, dtype=torch.int64), torch.rand(2, 2, 4, 6),
                          watch=True)  # fmt: skip
    seen, board, one = Seen(), Board(tmp_path), torch.tensor(1.0)
    seen.add(made.seen)
    for step in range(12):
        board.losses(step, step // 11, {"loss": one * step, "mse": one, "mae": one}, {"mae": 2.0, "rmse": 3.0})
    board.weights(0, made.seen)
    board.evaluated(0, 0.5, {"loss": 0.25, "real_mae": 4.0, "BikeNYC/real_mae": 5.0}, {"": seen, "BikeNYC": seen})
    board.close()
    found = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"scalars": 0})
    found.Reload()
    tags = found.Tags()
    scalars = {"Train/loss_step", "Train/real_rmse_step", "Train/gate_weight_cross", "Train/mae_epoch", "Train/lr",
               "Val/loss_epoch", "Val/real_mae_epoch", "Val/BikeNYC/real_mae_epoch", "Val/gate_weight_input",
               "Train/real_mae_epoch"}  # fmt: skip
    assert scalars <= set(tags["scalars"])
    assert {"Train/temporal_coarse_weights", "Train/cross_fine_weights"} <= set(tags["histograms"])
    assert {"Val/spatial/pattern_weights_heatmap", "Val/BikeNYC/temporal/pattern_weights_heatmap"} <= set(
        tags["images"]
    )
    assert [event.step for event in found.Scalars("Train/loss_step")] == [0, 10]
    assert found.Scalars("Train/loss_epoch")[0].value == pytest.approx(5.0)
    assert not Board(None).wanted


def test_modules_of_the_command_line_bring_no_torch() -> None:
    import subprocess
    import sys

    code = ("import sys, vlm4st.cli, vlm4st.inspect, vlm4st.presets; "
            "sys.exit(int('torch' in sys.modules or 'numpy' in sys.modules))")  # fmt: skip
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_frozen_backbone_is_a_module_of_ours(adapted: Objective) -> None:
    assert isinstance(adapted.module, nn.Module)
    assert all(name.startswith("vlm_module.") for name in adapted.frozen)


@pytest.mark.parametrize(
    ("anomalies", "ratio", "told"), [("week", 0.0, True), ("none", 0.0, False), ("week", 0.1, False)]
)
def test_zero_shot_reports_say_that_usual_frames_are_the_targets(anomalies: Any, ratio: float, told: bool) -> None:
    tiny = PRESETS["tiny"]
    config = replace(tiny, data=replace(tiny.data, anomalies=anomalies), few_shot=FewShotConfig(ratio=ratio))
    said = remark_on(config)
    assert said.startswith("weights chosen on the target's validation part")
    assert said.endswith("its usual frames are those of its whole training part") == told
