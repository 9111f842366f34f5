"""VLM4ST: features of a grid's past, a prompt, a vision-language backbone, frames of the future.

Source: VLM4ST, `VLM4ST`. Differs in: parts that an ablation leaves out are not built; freezing goes by the type of a
module; a backbone of random weights is frozen only where that is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from stcore.errors import UserError
from vlm4st.models.adapters import Adapter
from vlm4st.models.backbone import Backbone
from vlm4st.models.configs import Ablation, ModelConfig, check_ablation, from_original
from vlm4st.models.dix import DixAttention
from vlm4st.models.dropout import make_cheap
from vlm4st.models.encoder import Encoder
from vlm4st.models.format_transformer import FormatTransformer
from vlm4st.models.gate_fusion import GateFusion
from vlm4st.models.linear import make_linear
from vlm4st.models.prediction_head import PredictionHead, forecast_loss
from vlm4st.models.prompt_forge import Prompt, PromptForge, no_patterns

Grid = Float[Tensor, "batch time height width"]
Forecast = Float[Tensor, "batch horizon height width channel"]


BACKBONE = "vlm_module."
"""Beginning of the names of the backbone's weights in a model's state."""


class VLM4ST(nn.Module):
    """The whole model.

    Args:
        config: a configuration of ours, or the original's dictionary.
        ablation_mode: a part to leave out: `no_dix`, `no_prompt`, `no_seq` or `no_visual`.
        load_backbone: read the backbone's weights from `vlm.pretrained_path`; false where all weights are loaded
            afterwards.

    Raises:
        UserError: sizes that do not fit one another, an unknown ablation, a backbone that is to be frozen and has no
            weights.
    """

    def __init__(
        self,
        config: ModelConfig | Mapping[str, Any],
        ablation_mode: str | None = None,
        *,
        load_backbone: bool = True,
    ) -> None:
        super().__init__()
        self.config = config if isinstance(config, ModelConfig) else from_original(config)
        self.ablation: Ablation | None = check_ablation(ablation_mode)
        if load_backbone:
            check_backbone(self.config)
        sizes, width, ablation = self.config, self.config.d_model, self.ablation
        self.dix_attention = DixAttention(width, sizes.dix_attention, encoders=ablation != "no_dix")
        self.prompt_forge = None if ablation == "no_prompt" else PromptForge(width, sizes.prompt_forge)
        self.gate_fusion = GateFusion(width, sizes.gate_fusion, sizes.dix_attention.dropout)
        self.format_transformer = FormatTransformer(sizes)
        self.vlm_module = Backbone(sizes, ablation)
        self.prediction_head = PredictionHead(sizes)
        make_cheap(self)
        make_linear(self)
        if load_backbone and sizes.vlm.pretrained_path is not None:
            from vlm4st.convert.backbone import load_backbone as load

            load(self, Path(sizes.vlm.pretrained_path))
        self.unfreeze_all()
        if sizes.vlm.use_lora or sizes.vlm.pretrained_path is not None:
            self.freeze_vlm_backbone()

    def forward(
        self,
        X: Grid,
        timestamps: Int[Tensor, "batch time 2"] | None = None,
        return_intermediate: bool = False,
    ) -> Forecast | tuple[Forecast, dict[str, Any]]:
        """Return the forecast, on request with everything on the way to it.

        Args:
            X: known frames, normalised.
            timestamps: day of the week (0 is Monday) and half hour of the day of each known frame.
            return_intermediate: return a dictionary besides.
        """
        if return_intermediate:
            return self.trace(X, timestamps)
        maps = self.dix_attention(X, timestamps)
        fused = self.gate_fusion(maps.temporal, maps.spatial, maps.cross, maps.given).values
        image = None if self.ablation == "no_visual" else self.format_transformer.image(fused).values
        prompt = self._prompt(maps.temporal_cls, maps.spatial_cls, maps.cross_cls).prompt
        sequence = self._empty(fused) if self.ablation == "no_seq" else self.format_transformer.sequence(fused, prompt)
        return self.prediction_head(self.vlm_module(image, sequence).fused, fused, X)

    def trace(self, X: Grid, timestamps: Int[Tensor, "batch time 2"] | None = None) -> tuple[Forecast, dict[str, Any]]:
        """Return the forecast and everything on the way to it, under the original's names."""
        maps = self.dix_attention(X, timestamps)
        prompt = self._prompt(maps.temporal_cls, maps.spatial_cls, maps.cross_cls)
        fused = self.gate_fusion(maps.temporal, maps.spatial, maps.cross, maps.given)
        image = self.format_transformer.image(fused.values)
        sequence = self.format_transformer.sequence(fused.values, prompt.prompt)
        found = self.vlm_module(image.values, sequence, return_text=True)
        prediction = self.prediction_head(found.fused, fused.values, X)
        return prediction, {
            "X_temporal": maps.temporal,
            "X_spatial": maps.spatial,
            "X_cross": maps.cross,
            "X_input": maps.given,
            "B_prompt": prompt.prompt,
            "pattern_info": {
                f"{view}_weights": (pattern.coarse, pattern.fine) for view, pattern in prompt.patterns.items()
            },
            "X_fused": fused.values,
            "gate_weights": fused.gates,
            "image": image.values,
            "sequence": sequence,
            "vlm_output": {
                "fused_embeds": found.fused,
                "visual_embeds": found.visual,
                "text_embeds": found.text,
            },
            "format_outputs": {
                "image": image.values,
                "sequence": sequence,
                "seq_mask": torch.ones(sequence.shape[:2], dtype=torch.int64, device=sequence.device),
                "image_attn_weights": image.weights,
                "seq_length": sequence.shape[1],
            },
        }

    def _prompt(self, temporal: Tensor, spatial: Tensor, cross: Tensor) -> Prompt:
        if self.prompt_forge is not None:
            return self.prompt_forge(temporal, spatial, cross)
        sizes = self.config.prompt_forge
        return Prompt(temporal.new_zeros(temporal.shape[0], 3 * sizes.d_prompt), no_patterns(sizes, temporal))

    def _empty(self, fused: Tensor) -> Tensor:
        """Return a sequence that only tells its length."""
        width = self.config.format_transformer.vlm_hidden_dim
        return fused.new_zeros(fused.shape[0], 1, 1).expand(-1, self.config.sequence_length, width)

    def freeze_vlm_backbone(self) -> None:
        """Keep the backbone as it is; its adapters go on being trained."""
        self.vlm_module.freeze()

    def unfreeze_all(self) -> None:
        """Train everything that the forecast depends on."""
        self.requires_grad_(True)
        for part in self._unread():
            part.requires_grad_(False)

    def _unread(self) -> Iterator[nn.Module | nn.Parameter]:
        """Yield what the forecast of this ablation never reads, though it is built."""
        if self.ablation == "no_visual":
            yield self.format_transformer.image_projector
        if self.ablation == "no_seq":
            yield from (self.format_transformer.sequence_projector, self.format_transformer.prompt_proj)
            if self.prompt_forge is not None:
                yield self.prompt_forge
        if self.ablation in ("no_seq", "no_prompt"):
            cross = self.dix_attention.cross_encoder
            yield from (cross.t2s_cls_token, cross.s2t_cls_token)

    def get_trainable_parameters(self) -> dict[str, int]:
        """Return how many parameters there are, how many are trained, and how many are not."""
        total = sum(parameter.numel() for parameter in self.parameters())
        trainable = sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)
        return {"total": total, "trainable": trainable, "frozen": total - trainable}

    def get_loss(
        self,
        prediction: Forecast,
        target: Tensor,
        loss_config: Mapping[str, Any] | None = None,
        *,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, and its parts under the original's names.

        Args:
            prediction: forecast.
            target: truth, with or without the axis of channels where there is one channel.
            loss_config: `mse_weight` and `mae_weight`, by default 1.0 and 0.5.
            mask: true where a cell counts; None where all do.
        """
        weights = {name: float(value) for name, value in (loss_config or {}).items()}
        unknown = sorted(weights.keys() - {"mse_weight", "mae_weight"})
        if unknown:
            raise UserError(f"loss: unknown key {unknown[0]!r}; expected mse_weight and mae_weight")
        return forecast_loss(prediction, target, mask=mask, **weights)

    def set_gradient_checkpointing(self, enable: bool = True) -> None:
        """Compute inner values again in the backward pass instead of keeping them: less memory, more time."""
        for part in self.modules():
            if isinstance(part, (Encoder, Backbone, FormatTransformer, PredictionHead)):
                part.recompute = enable
        if self.vlm_module.visual is not None:
            self.vlm_module.visual.set_grad_checkpointing(enable)

    def backbone_state(self) -> dict[str, Tensor]:
        """Return the weights of the backbone without its adapters, by their names in this model's state."""
        adapters = {
            f"{name}.{inner}"
            for name, part in self.named_modules()
            if isinstance(part, Adapter)
            for inner in part.state_dict()
        }
        mine = self.state_dict().items()
        return {name: value for name, value in mine if name.startswith(BACKBONE) and name not in adapters}


def check_backbone(config: ModelConfig) -> None:
    """Refuse to freeze a backbone of random weights unless that was asked for.

    Raises:
        UserError: no file with weights, or none at its path.
    """
    vlm = config.vlm
    if vlm.pretrained_path is None and vlm.use_lora and not vlm.allow_random_backbone:
        raise UserError("model.vlm.pretrained-path: none, though the backbone is to be frozen below its adapters; "
                        "expected a file with its weights; see `vlm4st weights`, or set "
                        "model.vlm.allow-random-backbone")  # fmt: skip
    if vlm.pretrained_path is not None and not Path(vlm.pretrained_path).is_file():
        raise UserError(f"model.vlm.pretrained-path: no file {vlm.pretrained_path!r}; expected the backbone's weights")
