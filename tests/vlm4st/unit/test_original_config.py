"""The original's YAML: what it becomes, and that nothing of it runs. What is refused is in `malformed_flows`."""

from __future__ import annotations

from pathlib import Path

import pytest

from stcore.errors import UserError
from vlm4st.original_config import read_original_config, read_yaml

WHOLE = """
data:
  dataset_path: ./Dataset/one_short.json
  dataset_paths: [./Dataset/one_short.json, ./Dataset/two_short.json]
  task: prediction
  normalize: true
  train_ratio: 0.6
  val_ratio: 0.2
  test_ratio: 0.2
model:
  T: 6
  H: 16
  W: 20
  d_model: 64
  dix_attention: {num_heads: 4, num_layers: 1, dropout: 0.2}
  prompt_forge: {num_coarse_prototypes: 4, num_fine_per_coarse: 3, d_prompt: 32}
  gate_fusion: {num_branches: 4}
  format_transformer: {spatial_pool_size: 5, num_latents: 40, vlm_hidden_dim: 768}
  vlm:
    image_res: 224
    embed_dim: 256
    vision_width: 768
    bert_config: ./config/config_bert.json
    pretrained_path: null
    use_lora: false
    lora_type: moe
  prediction_head: {hidden_dim: 128, output_channels: 1}
training:
  batch_size: 24
  num_epochs: 7
  learning_rate: 1e-4
  weight_decay: 5.0e-2
  warmup_epochs: 2
  loss: {mse_weight: 0.7, mae_weight: 0.3}
  optimizer: AdamW
  scheduler: cosine
  device: cuda
  num_workers: 0
  save_dir: ./checkpoints
  log_dir: ./logs
  save_frequency: 5
testing: {checkpoint_path: ./checkpoints/best_model.pth, batch_size: 32, output_dir: ./results}
few_shot: {target_ratio: 0.05, num_epochs: 9, save_dir: a, output_dir: b}
vlm: {image_res: 224}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(WHOLE)
    return path


def test_every_key_that_has_an_effect_is_taken_over(file: Path) -> None:
    config = read_original_config(file)
    data, model, fit = config.data, config.model, config.fit
    assert data.source == ("./Dataset/one_short.json", "./Dataset/two_short.json")
    assert (data.split, data.batch, data.batch_rule, data.scaler_fit) == ((0.6, 0.2, 0.2), 24, "adaptive", "all")
    assert (model.T, model.T_out, model.H, model.W, model.d_model) == (6, 6, 16, 20, 64)
    assert (model.dix_attention.dropout, model.prompt_forge.num_fine_per_coarse) == (0.2, 3)
    assert (model.vlm.use_lora, model.vlm.lora_type, model.vlm.pretrained_path) == (False, "moe", None)
    assert (config.loss.mse_weight, config.loss.mae_weight) == (0.7, 0.3)
    assert (config.optimiser.kind, config.optimiser.learning_rate, config.optimiser.weight_decay) == (
        "adamw",
        1e-4,
        0.05,
    )
    assert (config.optimiser.decay, config.schedule.kind, config.schedule.warmup_epochs) == ("all", "cosine", 2)
    assert (fit.epochs, fit.clip_norm, config.few_shot.ratio) == (7, 1.0, 0.05)


def test_one_data_set_and_the_epochs_of_few_shots_where_asked_for(file: Path) -> None:
    config = read_original_config(file, single=True, few_shot=True)
    assert config.data.source == ("./Dataset/one_short.json",) and config.fit.epochs == 9


def test_what_is_left_out_has_the_originals_defaults(tmp_path: Path) -> None:
    path = tmp_path / "short.yaml"
    path.write_text("model: {T: 4}\n")
    config = read_original_config(path)
    assert (config.model.T, config.model.T_out, config.model.H, config.model.d_model) == (4, 4, 32, 256)
    assert (config.fit.epochs, config.optimiser.learning_rate, config.data.batch) == (65, 1e-4, 32)
    assert (config.model.prediction_head.output_refine, config.model.prediction_head.residual) == ("reference", "none")


def test_numbers_without_a_point_are_numbers_and_anchors_are_followed(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: &rate 1e-4\nb: [*rate, -2E+3, 1_0e1, 1e, e1]\n")
    assert read_yaml(path) == {"a": 1e-4, "b": [1e-4, -2000.0, 100.0, "1e", "e1"]}


def test_tags_run_nothing(tmp_path: Path) -> None:
    canary, path = tmp_path / "canary", tmp_path / "a.yaml"
    for tag in ("!!python/object/apply:os.system", "!!python/object/new:os.system", "!!python/name:os.system"):
        path.write_text(f"data: {tag} ['touch {canary}']\n")
        with pytest.raises(UserError, match=r"a\.yaml, line 1: .*expected plain YAML"):
            read_original_config(path)
    assert not canary.exists()
