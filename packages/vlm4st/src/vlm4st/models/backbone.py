"""The backbone: ALBEF's image encoder and the layers of its text encoder, from the libraries that keep them.

The image encoder is timm's `VisionTransformer`, the text encoder a list of transformers' `BertLayer`, which are given
embeddings, never words. What has to be seen to there:

- A `BertLayer` that may attend to images is a decoder to the library, which then masks the future wherever it is not
  given a mask. Here `is_causal` is off.
- `BertModel` adds positions and a normalisation to embeddings and lets every layer attend to images: not used.
- timm's image encoder starts its class token at almost 0: drawn with 0.02 here.

Source: ALBEF (Li et al., NeurIPS 2021; BSD-3), `models/vit.py`, `models/xbert.py`; VLM4ST, `VLMModule`. Differs in: the
text layers, whose output the forecast does not read, are computed only where somebody asks for it; embeddings of words
and projections to ALBEF's common space, which nothing reads, are not there.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from stcore.errors import UserError
from stcore.torchvision_ops import prepare_timm
from vlm4st.models.adapters import AdaptedLinear, AdaptedQkv, adapter_parameters
from vlm4st.models.configs import ModelConfig, VlmConfig, needs_text_layers
from vlm4st.models.encoder import recomputed

prepare_timm()  # before timm and transformers, which both import torchvision

from timm.models.vision_transformer import VisionTransformer  # noqa: E402
from transformers.models.bert.configuration_bert import BertConfig  # noqa: E402
from transformers.models.bert.modeling_bert import BertLayer  # noqa: E402

Tokens = Float[Tensor, "batch token dim"]
Mask = Int[Tensor, "batch token"]

PADDING = -10000.0
"""What ALBEF adds to the attention to tokens that are none."""


class Embeddings(NamedTuple):
    """What the backbone makes of an image and a sequence."""

    fused: Tokens
    """The sequence in the light of the image; the forecast is made of it."""
    visual: Float[Tensor, "batch image_token dim"]
    """The image's tokens; 0 without an image encoder."""
    text: Tokens | None
    """The sequence after the text layers; None where these were not asked for or are not there."""


class Backbone(nn.Module):
    """Image encoder, text encoder, adapters.

    Args:
        config: sizes, adapters.
        ablation: `no_visual` and `no_seq` leave one of the encoders out.
    """

    def __init__(self, config: ModelConfig, ablation: str | None = None) -> None:
        super().__init__()
        vlm = config.vlm
        self.config, self.ablation = vlm, ablation
        self.recompute = False
        self.visual = None if ablation == "no_visual" else make_vit(vlm)
        fusion, last = vlm.bert_config.fusion_layer, vlm.bert_config.num_hidden_layers
        numbers = [*range(fusion)] if needs_text_layers(config, ablation) else []
        numbers += [] if ablation in ("no_visual", "no_seq") else range(fusion, last)
        self.text = nn.ModuleDict({str(number): make_layer(vlm, number) for number in numbers})
        if vlm.use_lora:
            self._adapt()

    def _adapt(self) -> None:
        if self.visual is not None:
            for block in blocks_of(self.visual):
                block.attn.qkv = AdaptedQkv(block.attn.qkv, self.config)
        for layer in self.text.values():
            for part in ("attention", "crossattention"):
                attention = getattr(layer, part, None)
                for name in ("query", "key", "value") if attention is not None else ():
                    place = attention.self  # pyright: ignore[reportOptionalMemberAccess]
                    setattr(place, name, AdaptedLinear(getattr(place, name), self.config))

    def forward(
        self,
        image: Float[Tensor, "batch 3 rows columns"] | None,
        sequence: Tokens,
        *,
        return_text: bool = False,
    ) -> Embeddings:
        """Return the embeddings.

        Args:
            image: from the format transformer; None where the model has no image encoder.
            sequence: from the format transformer.
            return_text: run the text layers even if the forecast does not need them, where they are built.
        """
        visual = None if image is None or self.visual is None else self.see(image)
        if visual is None:
            text = self.text_pass(sequence)
            return Embeddings(text, sequence.new_zeros(sequence.shape[0], self.config.tokens, sequence.shape[-1]), text)
        if self.ablation == "no_seq":
            fused = visual.mean(1, keepdim=True).expand(-1, sequence.shape[1], -1)
            return Embeddings(fused, visual, torch.zeros_like(sequence))
        through = self.config.text_path == "text_then_fusion"
        text = self.text_pass(sequence) if through or (return_text and self.has_text_layers) else None
        start = text if through and text is not None else sequence
        return Embeddings(self.fusion_pass(start, visual), visual, text)

    @property
    def has_text_layers(self) -> bool:
        """Whether the layers that see the text only are built."""
        return "0" in self.text

    def see(self, image: Float[Tensor, "batch 3 rows columns"]) -> Float[Tensor, "batch image_token dim"]:
        """Return the image's tokens."""
        if self.visual is None:
            raise UserError("backbone: no image encoder; expected one: the ablation no_visual leaves it out")
        return self.visual.forward_features(image)

    def text_pass(self, sequence: Tokens, mask: Mask | None = None) -> Tokens:
        """Return the sequence after the layers that see the text only.

        Args:
            sequence: embeddings.
            mask: 1 where there is a token; None where all are.
        """
        bias = padding_bias(mask, PADDING, sequence.dtype)
        for number in range(self.config.bert_config.fusion_layer):
            sequence = self._run(number, sequence, bias)
        return sequence

    def fusion_pass(
        self,
        sequence: Tokens,
        visual: Float[Tensor, "batch image_token dim"],
        mask: Mask | None = None,
        visual_mask: Int[Tensor, "batch image_token"] | None = None,
    ) -> Tokens:
        """Return the sequence after the layers that attend to the image.

        Args:
            sequence: embeddings.
            visual: the image's tokens.
            mask: 1 where there is a token of the sequence; None where all are.
            visual_mask: 1 where there is a token of the image; None where all are.
        """
        bias = padding_bias(mask, PADDING, sequence.dtype)
        visual_bias = padding_bias(visual_mask, torch.finfo(sequence.dtype).min, sequence.dtype)
        sizes = self.config.bert_config
        for number in range(sizes.fusion_layer, sizes.num_hidden_layers):
            sequence = self._run(number, sequence, bias, visual, visual_bias)
        return sequence

    def _run(self, number: int, sequence: Tensor, *arguments: Tensor | None) -> Tensor:
        if str(number) not in self.text:
            raise UserError(f"backbone: no text layer {number}; expected it to be built; set "
                            "model.vlm.keep-text-layers")  # fmt: skip
        function = partial(run_layer, self.text[str(number)])
        again = self.recompute and self.training
        return recomputed(function, sequence, *arguments) if again else function(sequence, *arguments)

    def freeze(self) -> None:
        """Train the adapters only, or nothing where there are none."""
        self.requires_grad_(False)
        for parameter in adapter_parameters(self):
            parameter.requires_grad_(True)

    def train(self, mode: bool = True) -> Backbone:
        """Switch to training or evaluation; with `backbone_dropout` off the encoders stay in evaluation."""
        super().train(mode)
        if not self.config.backbone_dropout:
            for encoder in (self.visual, self.text):
                if encoder is not None:
                    encoder.eval()
        return self


def run_layer(
    layer: Any,
    sequence: Tensor,
    bias: Tensor | None = None,
    visual: Tensor | None = None,
    visual_bias: Tensor | None = None,
) -> Tensor:
    """Apply a layer of the text encoder by its parts, which is what compilers and recomputation get along with."""
    found = layer.attention(sequence, bias)[0]
    if visual is not None:
        found = layer.crossattention(found, None, visual, visual_bias)[0]
    return layer.feed_forward_chunk(found)


def padding_bias(mask: Mask | None, value: float, dtype: torch.dtype) -> Float[Tensor, "batch 1 1 token"] | None:
    """Return what is added to the attention to each token; None where there is no mask, so that it stays fast."""
    return None if mask is None else (1 - mask[:, None, None].to(dtype)) * value


def make_vit(config: VlmConfig) -> VisionTransformer:
    """Make the image encoder, with weights drawn anew."""
    vit = VisionTransformer(
        img_size=config.image_res,
        patch_size=config.vit.patch_size,
        embed_dim=config.vision_width,
        depth=config.vit.depth,
        num_heads=config.vit.num_heads,
        mlp_ratio=config.vit.mlp_ratio,
        qkv_bias=True,
        num_classes=0,
        global_pool="",
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )
    assert vit.cls_token is not None
    nn.init.trunc_normal_(vit.cls_token, std=0.02)
    for block in blocks_of(vit):
        block.attn.fused_attn = config.attention == "sdpa"
    return vit


def blocks_of(vit: VisionTransformer) -> list[Any]:
    """Return the blocks of an image encoder, which its library declares as one module."""
    return list(vit.blocks.children())


def make_layer(config: VlmConfig, number: int) -> BertLayer:
    """Make a layer of the text encoder, with weights drawn anew."""
    sizes = config.bert_config
    fusion = number >= sizes.fusion_layer
    about = BertConfig(
        hidden_size=sizes.hidden_size,
        num_hidden_layers=sizes.num_hidden_layers,
        num_attention_heads=sizes.num_attention_heads,
        intermediate_size=sizes.intermediate_size,
        hidden_dropout_prob=sizes.hidden_dropout_prob,
        attention_probs_dropout_prob=sizes.attention_probs_dropout_prob,
        layer_norm_eps=sizes.layer_norm_eps,
        is_decoder=fusion,
        add_cross_attention=fusion,
    )
    about._attn_implementation = config.attention  # pyright: ignore[reportPrivateUsage]: a bare layer needs it
    layer = BertLayer(about)
    layer.attention.self.is_causal = False
    for part in layer.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=sizes.initializer_range)
            nn.init.zeros_(part.bias)
    return layer
