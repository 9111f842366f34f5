"""Sizes and forms of the model, as frozen dataclasses named like the keys of the original's YAML.

Standard library only, so that reading or checking a configuration never imports torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

from stcore.configuration import from_plain
from stcore.errors import UserError
from stcore.option_checks import require_option

LoraType = Literal["standard", "mtl", "moe", "task_adaptive"]
LORA_TYPES: tuple[LoraType, ...] = get_args(LoraType)
"""One low-rank update; shared A with task-weighted expert Bs; experts; A shared and by experts."""
Ablation = Literal["no_dix", "no_prompt", "no_seq", "no_visual"]
ABLATIONS: tuple[Ablation, ...] = get_args(Ablation)
"""Parts that can be left out to see what they are worth."""
Refine = Literal["reference", "residual", "none"]
Norm = Literal["batch", "group"]
TextPath = Literal["fusion_only", "text_then_fusion"]
Attention = Literal["sdpa", "eager"]

HEADS = 8
"""Heads of the perceiver and of the prediction head; the original fixes them."""


def _require(condition: bool, name: str, found: object, expected: str) -> None:
    require_option(condition, "model", name, found, expected)


def _positive(config: object, section: str, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        _require(value >= 1, f"{section}{name}", value, "1 or more")


def _share(config: object, section: str, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        _require(value is None or 0 <= value < 1, f"{section}{name}", value, "0 or more and below 1")


def _choice(config: object, section: str, name: str, choices: tuple[str, ...]) -> None:
    value = getattr(config, name)
    _require(value in choices, f"{section}{name}", value, f"one of {', '.join(choices)}")


@dataclass(frozen=True, kw_only=True)
class DixConfig:
    """Attention over time within each cell, over space within each frame, and across the two."""

    num_heads: int = 8
    """Heads of all its attentions."""
    num_layers: int = 2
    """Layers of the temporal and of the spatial encoder."""
    dropout: float = 0.1
    """Share of values dropped here, in the gates and in the prediction head."""
    attention_dropout: float | None = None
    """Share of attention weights dropped here, in the perceiver and in the head; none: as much as of other values.
    Above 0 the weights of all pairs of cells are held in memory."""
    pool_size: int = 7
    """Rows and columns to which a frame's features are pooled where time attends to space."""

    def __post_init__(self) -> None:
        _positive(self, "dix_attention.", "num_heads", "num_layers", "pool_size")
        _share(self, "dix_attention.", "dropout", "attention_dropout")

    @property
    def weights_dropout(self) -> float:
        """Share of attention weights dropped."""
        return self.dropout if self.attention_dropout is None else self.attention_dropout


@dataclass(frozen=True, kw_only=True)
class PromptForgeConfig:
    """Memory of patterns in two levels, from which a prompt is put together."""

    num_coarse_prototypes: int = 5
    """Coarse prototypes of each pool (K)."""
    num_fine_per_coarse: int = 2
    """Fine prototypes below each coarse one (M)."""
    d_prompt: int = 128
    """Width of the prompt of each pool (P)."""
    dropout: float = 0.1
    """Share of values dropped where the prompts are joined; the original fixes it."""

    def __post_init__(self) -> None:
        _positive(self, "prompt_forge.", "num_coarse_prototypes", "num_fine_per_coarse", "d_prompt")
        _share(self, "prompt_forge.", "dropout")


@dataclass(frozen=True, kw_only=True)
class GateFusionConfig:
    """Weighted sum of the four maps, with weights of each cell."""

    num_branches: int = 4
    """Temporal, spatial, cross and input: always these four."""

    def __post_init__(self) -> None:
        _require(self.num_branches == 4, "gate_fusion.num_branches", self.num_branches,
                 "4: temporal, spatial, cross and input")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FormatTransformerConfig:
    """Turns the fused map into an image and into a sequence of tokens."""

    spatial_pool_size: int = 10
    """Rows and columns to which each frame is pooled before it becomes tokens."""
    num_latents: int = 300
    """Tokens that the perceiver makes of them (n); the sequence has two more."""
    vlm_hidden_dim: int = 768
    """Width of the tokens (V), that of the text encoder."""
    dropout: float = 0.1
    """Share of values dropped; the original fixes it."""

    def __post_init__(self) -> None:
        _positive(self, "format_transformer.", "spatial_pool_size", "num_latents", "vlm_hidden_dim")
        _share(self, "format_transformer.", "dropout")
        width = self.vlm_hidden_dim
        _require(width % HEADS == 0, "format_transformer.vlm_hidden_dim", width, f"a multiple of {HEADS} (heads)")


@dataclass(frozen=True, kw_only=True)
class BertSizes:
    """Text encoder: the keys of the original's `config_bert.json` that say something of the layers."""

    hidden_size: int = 768
    """Width of the tokens."""
    num_hidden_layers: int = 12
    """Layers in all."""
    num_attention_heads: int = 12
    """Heads."""
    intermediate_size: int = 3072
    """Hidden width of the perceptrons."""
    hidden_dropout_prob: float = 0.1
    """Share of values dropped."""
    attention_probs_dropout_prob: float = 0.1
    """Share of attention weights dropped."""
    layer_norm_eps: float = 1e-12
    """Added to variances."""
    initializer_range: float = 0.02
    """Standard deviation of weights that are drawn."""
    fusion_layer: int = 6
    """First layer that attends to the image; those before it see the text only."""
    encoder_width: int = 768
    """Width of the image's tokens."""

    def __post_init__(self) -> None:
        _positive(self, "vlm.bert_config.", "hidden_size", "num_hidden_layers", "num_attention_heads",
                  "intermediate_size", "encoder_width")  # fmt: skip
        _share(self, "vlm.bert_config.", "hidden_dropout_prob", "attention_probs_dropout_prob")
        within = 0 <= self.fusion_layer < self.num_hidden_layers
        _require(within, "vlm.bert_config.fusion_layer", self.fusion_layer,
                 f"from 0 to {self.num_hidden_layers - 1}, so that a layer attends to the image")  # fmt: skip
        _require(self.hidden_size % self.num_attention_heads == 0, "vlm.bert_config.hidden_size", self.hidden_size,
                 f"a multiple of {self.num_attention_heads} (num-attention-heads)")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class VitSizes:
    """Image encoder; the original fixes these, ViT-B/16."""

    depth: int = 12
    """Blocks."""
    num_heads: int = 12
    """Heads."""
    patch_size: int = 16
    """Rows and columns of a patch."""
    mlp_ratio: float = 4.0
    """Hidden width of the perceptrons over their width."""

    def __post_init__(self) -> None:
        _positive(self, "vlm.vit.", "depth", "num_heads", "patch_size")
        _require(self.mlp_ratio > 0, "vlm.vit.mlp_ratio", self.mlp_ratio, "more than 0")


@dataclass(frozen=True, kw_only=True)
class VlmConfig:
    """Image and text encoder of ALBEF, their weights and adapters."""

    image_res: int = 224
    """Rows and columns of the image."""
    embed_dim: int = 256
    """Width of ALBEF's projections, which the forecast does not read."""
    vision_width: int = 768
    """Width of the image's tokens."""
    vit: VitSizes = field(default_factory=VitSizes)
    """Sizes of the image encoder."""
    bert_config: BertSizes = field(default_factory=BertSizes)
    """Sizes of the text encoder."""
    pretrained_path: str | None = None
    """Weights of the backbone: a file from `vlm4st weights convert`, or `ALBEF.pth` itself."""
    allow_random_backbone: bool = False
    """Freeze a backbone of random weights below the adapters where there is no file."""
    use_lora: bool = True
    """Keep the backbone as it is and train adapters on its queries, keys and values."""
    lora_type: LoraType = "standard"
    """Kind of adapter."""
    lora_rank: int = 16
    """Rank of the updates (r)."""
    lora_alpha: float = 32.0
    """Updates are scaled by alpha / rank."""
    num_tasks: int = 14
    """Width of the tasks' softmax (mtl)."""
    num_experts: int = 4
    """Experts of each adapter (mtl, moe, task_adaptive)."""
    task_emb_dim: int = 32
    """Hidden width of the gate (task_adaptive)."""
    text_path: TextPath = "fusion_only"
    """Straight into the layers that attend to the image, as the original, or through the text layers before (ALBEF)."""
    keep_text_layers: bool = False
    """Build the text layers though the forecast does not read them, to return `text_embeds` or to convert back."""
    backbone_dropout: bool = True
    """Drop values in the text encoder while training, though it is frozen, as the original does."""
    attention: Attention = "sdpa"
    """Attention in one fused operation, or written out."""

    def __post_init__(self) -> None:
        section = "vlm."
        _choice(self, section, "lora_type", LORA_TYPES)
        _choice(self, section, "text_path", get_args(TextPath))
        _choice(self, section, "attention", get_args(Attention))
        _positive(self, section, "image_res", "embed_dim", "vision_width", "lora_rank", "num_tasks", "num_experts",
                  "task_emb_dim")  # fmt: skip
        _require(self.lora_alpha > 0, "vlm.lora_alpha", self.lora_alpha, "more than 0")
        patch, width = self.vit.patch_size, self.vision_width
        _require(self.image_res % patch == 0, "vlm.image_res", self.image_res, f"a multiple of {patch} (patch-size)")
        _require(width % self.vit.num_heads == 0, "vlm.vision_width", width,
                 f"a multiple of {self.vit.num_heads} (heads of the image encoder)")  # fmt: skip
        _require(self.bert_config.encoder_width == width, "vlm.bert_config.encoder_width",
                 self.bert_config.encoder_width, f"{width}, the vision-width")  # fmt: skip
        _require(self.text_path == "fusion_only" or self.bert_config.fusion_layer > 0, "vlm.text_path", self.text_path,
                 "fusion_only: the text encoder has no text layers")  # fmt: skip

    @property
    def scaling(self) -> float:
        """What updates are multiplied by."""
        return self.lora_alpha / self.lora_rank

    @property
    def tokens(self) -> int:
        """Tokens of an image, its class token included."""
        return (self.image_res // self.vit.patch_size) ** 2 + 1


@dataclass(frozen=True, kw_only=True)
class PredictionHeadConfig:
    """Turns tokens and the fused map into frames."""

    hidden_dim: int = 512
    """Width between tokens and cells, a multiple of 4."""
    output_channels: int = 1
    """Channels of the forecast."""
    output_refine: Refine = "reference"
    """Last stage: the original's, which training is hostage to; that one as a correction; or none."""
    residual: Literal["none", "last", "damped", "linear"] = "none"
    """Forecast the field, or what is added to the last known frame, so that an untrained model forecasts persistence;
    or to a learnt share of that frame for each lead time; or to a linear map of each cell's history, the same for all
    cells, which training starts from as it fits the training part best."""

    def __post_init__(self) -> None:
        section = "prediction_head."
        _choice(self, section, "output_refine", get_args(Refine))
        _choice(self, section, "residual", ("none", "last", "damped", "linear"))
        _positive(self, section, "hidden_dim", "output_channels")
        _require(self.hidden_dim % 4 == 0, "prediction_head.hidden_dim", self.hidden_dim, "a multiple of 4")
        alone = self.residual == "none" or self.output_channels == 1
        _require(alone, "prediction_head.residual", self.residual, "none with more than one output channel")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything that is needed to build a model."""

    T: int = 6
    """Frames that are known."""
    T_out: int = 6
    """Frames that are forecast."""
    H: int = 32
    """Rows of a frame."""
    W: int = 32
    """Columns of a frame."""
    d_model: int = 256
    """Width of the features of a cell (D)."""
    norm: Norm = "batch"
    """Normalisation in the head and in the image path: over the batch as the original, or over groups of channels."""
    dix_attention: DixConfig = field(default_factory=DixConfig)
    """Attention over time, over space and across."""
    prompt_forge: PromptForgeConfig = field(default_factory=PromptForgeConfig)
    """Memory of patterns."""
    gate_fusion: GateFusionConfig = field(default_factory=GateFusionConfig)
    """Fusion of the maps."""
    format_transformer: FormatTransformerConfig = field(default_factory=FormatTransformerConfig)
    """Image and sequence for the backbone."""
    vlm: VlmConfig = field(default_factory=VlmConfig)
    """Backbone and adapters."""
    prediction_head: PredictionHeadConfig = field(default_factory=PredictionHeadConfig)
    """Frames of the future."""

    def __post_init__(self) -> None:
        _positive(self, "", "T", "T_out", "H", "W", "d_model")
        _choice(self, "", "norm", get_args(Norm))
        width, heads = self.d_model, self.dix_attention.num_heads
        _require(width % HEADS == 0, "d_model", width, f"a multiple of {HEADS} (heads of the perceiver)")
        _require(width % heads == 0, "d_model", width, f"a multiple of {heads} (num-heads of dix-attention)")
        tokens, text = self.format_transformer.vlm_hidden_dim, self.vlm.bert_config.hidden_size
        _require(tokens == text, "format_transformer.vlm_hidden_dim", tokens, f"{text}, the hidden-size of bert-config")
        _require(tokens == self.vlm.vision_width, "vlm.vision_width", self.vlm.vision_width,
                 f"{tokens}, the vlm-hidden-dim")  # fmt: skip

    @property
    def sequence_length(self) -> int:
        """Tokens that the text encoder is given: class, prompt and latents."""
        return self.format_transformer.num_latents + 2


def check_ablation(name: str | None) -> Ablation | None:
    """Return the ablation of a name; None is the whole model.

    Raises:
        UserError: there is none of this name.
    """
    if name is not None and name not in ABLATIONS:
        raise UserError(f"ablation: {name!r}; expected one of {', '.join(ABLATIONS)}, or none")
    return name


def needs_text_layers(config: ModelConfig, ablation: str | None) -> bool:
    """Say whether the text encoder's first layers are built: where the forecast reads them, or on request."""
    vlm = config.vlm
    reads = ablation == "no_visual" or (vlm.text_path == "text_then_fusion" and ablation != "no_seq")
    return reads or vlm.keep_text_layers


def from_original(values: Mapping[str, Any], *, where: str = "config", folder: Path | None = None) -> ModelConfig:
    """Build a configuration from the original's dictionary: its whole YAML, or the `model` table alone.

    Missing keys have the original's defaults, `T_out` that of `T`. `bert_config` may be a table, or the path of a JSON
    file. Our own keys are accepted beside the original's.

    Args:
        values: the dictionary.
        where: its origin, for errors.
        folder: what a relative `bert_config` is relative to.

    Raises:
        UserError: an unknown key, a wrong type, sizes that do not fit one another.

    >>> from_original({"T": 4, "d_model": 64}).T_out
    4
    """
    table = dict(_table(values.get("model", values), where, "model"))
    table = {"T_out": table.get("T", ModelConfig.T), **table}
    if "vlm" in table:
        vlm = dict(_table(table["vlm"], where, "model.vlm"))
        if "bert_config" in vlm:
            vlm["bert_config"] = _bert(vlm["bert_config"], where, folder)
        table["vlm"] = {key: value for key, value in vlm.items() if value is not None}
    return from_plain(ModelConfig, table, where=where)


def to_original(config: ModelConfig) -> dict[str, Any]:
    """Return the configuration as a dictionary that `from_original` takes."""
    return {"model": asdict(config)}


_ABOUT_TOKENS = {"architectures", "hidden_act", "max_position_embeddings", "model_type", "pad_token_id",
                 "type_vocab_size", "vocab_size", "add_cross_attention", "position_embedding_type",
                 "gradient_checkpointing", "transformers_version", "use_cache"}  # fmt: skip
"""Keys of `config_bert.json` that a text encoder without its embeddings has no use for."""


def _table(value: object, where: str, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: {name} is {value!r}; expected a table")
    return cast("Mapping[str, Any]", value)


def _bert(value: object, where: str, folder: Path | None) -> dict[str, Any]:
    if isinstance(value, str):
        path = Path(value) if folder is None else folder / value
        if not path.exists() and Path(value).name == "config_bert.json":
            return {}  # the original's file of this name holds what our defaults are
        value = _read_json(path)
    table = dict(_table(value, where, "model.vlm.bert_config"))
    activation = table.get("hidden_act", "gelu")
    if activation != "gelu":
        raise UserError(f"{where}: model.vlm.bert_config.hidden_act is {activation!r}; expected 'gelu'")
    return {key: entry for key, entry in table.items() if key not in _ABOUT_TOKENS}


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; expected a JSON file with sizes of the text encoder") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: no valid JSON: {error}") from error
