"""VLM4ST written down plainly, in library operations, computing what the original computes.

This is what the package is timed against, and a second opinion on the recordings. Nothing here is clever: the text
layers run although nothing reads them, attention in both encoders of the backbone is written out, queries, keys and
values have layers of their own, the patterns of each sample are looked up one after another. Nothing is needlessly slow
either: where the original calls torch's own layers (transformer encoders, attention, convolutions), so does this.

Modules carry the names of the original's state, so its weights load without translation.

Source: the structure of VLM4ST, of ALBEF's encoders (Li et al., NeurIPS 2021) and of its adapters; written anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Config = Mapping[str, Any]


class PlainLora(nn.Module):
    """A frozen linear layer with an update, of one of the four kinds."""

    def __init__(self, base: nn.Linear, vlm: Config) -> None:
        super().__init__()
        self.original_layer = base.requires_grad_(False)
        self.kind, self.scaling = vlm["lora_type"], vlm["lora_alpha"] / vlm["lora_rank"]
        rank, experts, tasks = vlm["lora_rank"], vlm["num_experts"], vlm["num_tasks"]
        width, out = base.in_features, base.out_features

        def drawn(*shape: int) -> nn.Parameter:
            return nn.Parameter(0.01 * torch.randn(*shape))

        def zeros(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(*shape))

        def gate(hidden: int, outputs: int) -> nn.Sequential:
            return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, outputs))

        if self.kind == "standard":
            self.lora_A, self.lora_B = drawn(rank, width), zeros(out, rank)
        elif self.kind == "mtl":
            self.lora_A, self.lora_B_experts = drawn(rank, width), zeros(experts, out, rank)
            self.task_lambdas, self.task_expert_weights = nn.Parameter(torch.ones(tasks, rank)), drawn(tasks, experts)
            self.gate_net = gate(64, tasks)
        elif self.kind == "moe":
            self.expert_A, self.expert_B = drawn(experts, rank, width), zeros(experts, out, rank)
            self.gate_net = gate(64, experts)
        else:
            self.A_shared, self.A_experts = drawn(rank, width), drawn(experts, rank, width)
            self.lora_B, self.gate_net = zeros(out, rank), gate(vlm["task_emb_dim"], experts)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 2:
            return self(x[:, None])[:, 0]
        y = self.original_layer(x)
        if self.kind == "standard":
            return y + self.scaling * (x @ self.lora_A.T @ self.lora_B.T)
        share = self.gate_net(x.mean(1)).softmax(-1)
        if self.kind == "mtl":
            scale = share @ self.task_lambdas
            experts = (share @ self.task_expert_weights).softmax(-1)
            upper = torch.einsum("be,eor->bor", experts, self.lora_B_experts)
            return y + self.scaling * torch.einsum("blr,bor->blo", (x @ self.lora_A.T) * scale[:, None], upper)
        if self.kind == "moe":
            inner = torch.einsum("blw,erw->belr", x, self.expert_A)
            each = torch.einsum("belr,eor->belo", inner, self.expert_B)
            return y + self.scaling * (share[:, :, None, None] * each).sum(1)
        lower = self.A_shared + torch.einsum("be,erw->brw", share, self.A_experts)
        return y + self.scaling * torch.einsum("blw,brw->blr", x, lower) @ self.lora_B.T


def plain_encoder(width: int, dix: Config) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(
        width, dix["num_heads"], 4 * width, dix["dropout"], F.gelu, batch_first=True, norm_first=True
    )
    return nn.TransformerEncoder(layer, dix["num_layers"], enable_nested_tensor=False)


class PlainTemporal(nn.Module):
    def __init__(self, width: int, dix: Config) -> None:
        super().__init__()
        self.weekday_embed, self.timeofday_embed = nn.Embedding(7, width // 2), nn.Embedding(48, width // 2)
        self.timestamp_proj = nn.Linear(width, width)
        self.cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.temporal_encoder, self.norm = plain_encoder(width, dix), nn.LayerNorm(width)

    def forward(self, x: Tensor, timestamps: Tensor | None) -> tuple[Tensor, Tensor]:
        batch, steps, height, columns, width = x.shape
        if timestamps is not None:
            stamp = [self.weekday_embed(timestamps[..., 0]), self.timeofday_embed(timestamps[..., 1])]
            x = x + self.timestamp_proj(torch.cat(stamp, -1))[:, :, None, None]
        cells = x.permute(0, 2, 3, 1, 4).reshape(-1, steps, width)
        found = self.temporal_encoder(torch.cat([self.cls_token.expand(len(cells), -1, -1), cells], 1))
        cls = found[:, 0].reshape(batch, -1, width).mean(1)
        back = found[:, 1:].reshape(batch, height, columns, steps, width).permute(0, 3, 1, 2, 4)
        return self.norm(back + x), cls


class PlainSpatial(nn.Module):
    def __init__(self, width: int, dix: Config) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.spatial_encoder, self.norm = plain_encoder(width, dix), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        batch, steps, _, _, width = x.shape
        frames = x.reshape(batch * steps, -1, width)
        found = self.spatial_encoder(torch.cat([self.cls_token.expand(len(frames), -1, -1), frames], 1))
        return self.norm(found[:, 1:].reshape(x.shape) + x), found[:, 0].reshape(batch, steps, width).mean(1)


class PlainCross(nn.Module):
    def __init__(self, width: int, dix: Config) -> None:
        super().__init__()
        heads, rate = dix["num_heads"], dix["dropout"]
        self.t2s_cross_attn = nn.MultiheadAttention(width, heads, rate, batch_first=True)
        self.s2t_cross_attn = nn.MultiheadAttention(width, heads, rate, batch_first=True)
        self.t2s_cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.s2t_cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.fusion = nn.Sequential(
            nn.Linear(2 * width, width), nn.LayerNorm(width), nn.GELU(), nn.Dropout(rate), nn.Linear(width, width)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, temporal: Tensor, spatial: Tensor) -> tuple[Tensor, Tensor]:
        batch, steps, height, columns, width = temporal.shape
        pooled = F.adaptive_avg_pool2d(spatial.flatten(0, 1).permute(0, 3, 1, 2), 7).flatten(2).transpose(1, 2)
        query = temporal.mean((2, 3)).reshape(-1, 1, width)
        query = torch.cat([self.t2s_cls_token.expand(len(query), -1, -1), query], 1)
        t2s = self.t2s_cross_attn(query, pooled, pooled, need_weights=False)[0].reshape(batch, steps, 2, width)
        cells = temporal.permute(0, 2, 3, 1, 4).reshape(-1, steps, width)
        query = spatial.mean(1).reshape(-1, 1, width)
        query = torch.cat([self.s2t_cls_token.expand(len(query), -1, -1), query], 1)
        s2t = self.s2t_cross_attn(query, cells, cells, need_weights=False)[0].reshape(batch, -1, 2, width)
        cls = (t2s[:, :, 0].mean(1) + s2t[:, :, 0].mean(1)) / 2
        of_space = t2s[:, :, 1, None, None].expand_as(temporal)
        of_time = s2t[:, None, :, 1].reshape(batch, 1, height, columns, width).expand_as(temporal)
        return self.norm(self.fusion(torch.cat([of_space, of_time], -1)) + temporal + spatial), cls


class PlainDix(nn.Module):
    def __init__(self, width: int, dix: Config) -> None:
        super().__init__()
        self.input_proj, self.norm = nn.Linear(1, width), nn.LayerNorm(width)
        self.temporal_encoder, self.spatial_encoder = PlainTemporal(width, dix), PlainSpatial(width, dix)
        self.cross_encoder = PlainCross(width, dix)

    def forward(self, x: Tensor, timestamps: Tensor | None) -> tuple[list[Tensor], list[Tensor]]:
        given = self.norm(self.input_proj(x[..., None]))
        temporal, temporal_cls = self.temporal_encoder(given, timestamps)
        spatial, spatial_cls = self.spatial_encoder(given)
        cross, cross_cls = self.cross_encoder(temporal, spatial)
        return [temporal, spatial, cross, given], [temporal_cls, spatial_cls, cross_cls]


class PlainMemory(nn.Module):
    """One pool; samples and prototypes one after another, as the original has them."""

    def __init__(self, width: int, forge: Config) -> None:
        super().__init__()
        coarse, fine = forge["num_coarse_prototypes"], forge["num_fine_per_coarse"]
        self.coarse_prototypes = nn.Parameter(torch.randn(coarse, width))
        self.fine_prototypes = nn.Parameter(torch.randn(coarse, fine, width))
        self.query_proj, self.norm = nn.Linear(width, width), nn.LayerNorm(width)
        self.prompt_proj = nn.Linear(width, forge["d_prompt"])

    def forward(self, cls: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query = F.normalize(self.norm(self.query_proj(cls)), dim=-1)
        coarse = (query @ F.normalize(self.coarse_prototypes, dim=-1).T / 0.5).softmax(-1)
        ordered, order = coarse.sort(-1, descending=True)
        sums = ordered.cumsum(-1)
        prompts, fines = [], []
        for row in range(len(cls)):
            count = min(int((sums[row] <= 0.9).sum().item()) + 1, coarse.shape[1])
            prompt = cls.new_zeros(self.prompt_proj.out_features)
            weights = [cls.new_zeros(self.fine_prototypes.shape[1])] * coarse.shape[1]
            for place in order[row, :count].tolist():
                likeness = query[row] @ F.normalize(self.fine_prototypes[place], dim=-1).T
                weights[place] = (likeness / 0.5).softmax(-1)
                for share, prototype in zip(weights[place], self.fine_prototypes[place], strict=True):
                    prompt = prompt + coarse[row, place] * share * self.prompt_proj(prototype)
            prompts.append(prompt)
            fines.append(torch.stack(weights))
        return torch.stack(prompts), coarse, torch.stack(fines)


class PlainForge(nn.Module):
    def __init__(self, width: int, forge: Config) -> None:
        super().__init__()
        self.temporal_memory, self.spatial_memory = PlainMemory(width, forge), PlainMemory(width, forge)
        self.cross_memory = PlainMemory(width, forge)
        joint, inner = 3 * forge["d_prompt"], 2 * forge["d_prompt"]
        self.prompt_fusion = nn.Sequential(
            nn.Linear(joint, inner), nn.LayerNorm(inner), nn.GELU(), nn.Dropout(0.1), nn.Linear(inner, joint)
        )
        self.norm = nn.LayerNorm(joint)

    def forward(self, temporal: Tensor, spatial: Tensor, cross: Tensor) -> tuple[Tensor, dict[str, Any]]:
        found = {"temporal": self.temporal_memory(temporal), "spatial": self.spatial_memory(spatial),
                 "cross": self.cross_memory(cross)}  # fmt: skip
        joint = torch.cat([prompt for prompt, _, _ in found.values()], -1)
        return self.norm(joint + self.prompt_fusion(joint)), found


class PlainGate(nn.Module):
    def __init__(self, width: int, rate: float) -> None:
        super().__init__()
        self.branch_projs = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width), nn.GELU()) for _ in range(4)
        )
        self.gate_network = nn.Sequential(
            nn.Linear(4 * width, 2 * width), nn.LayerNorm(2 * width), nn.GELU(), nn.Dropout(rate),
            nn.Linear(2 * width, 4),
        )  # fmt: skip
        self.output_proj = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width), nn.GELU(), nn.Dropout(rate))

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        projected = [project(each) for project, each in zip(self.branch_projs, maps, strict=True)]
        gates = self.gate_network(torch.cat(projected, -1)).softmax(-1)
        return self.output_proj((torch.stack(projected, -1) * gates[..., None, :]).sum(-1)), gates


class PlainImage(nn.Module):
    def __init__(self, width: int, steps: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.feature_reduction = nn.Sequential(
            nn.Conv2d(width, width // 2, 1), nn.BatchNorm2d(width // 2), nn.GELU(), nn.Conv2d(width // 2, 1, 1)
        )
        self.temporal_pos_encoding = nn.Parameter(0.02 * torch.randn(1, steps, 1, 1))
        self.temporal_attention = nn.Sequential(
            nn.Conv2d(steps, steps, 3, padding=1, groups=steps), nn.BatchNorm2d(steps), nn.GELU(),
            nn.Conv2d(steps, 3 * steps, 1),
        )  # fmt: skip
        self.channel_projection = nn.Conv2d(steps, 3, 1)
        self.stat_fusion = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.GELU(), nn.Conv2d(8, 3, 1)
        )
        self.output_norm = nn.BatchNorm2d(3)

    def forward(self, fused: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        batch, steps, height, columns, _ = fused.shape
        series = self.feature_reduction(fused.flatten(0, 1).permute(0, 3, 1, 2).contiguous())
        series = series.reshape(batch, steps, height, columns) + self.temporal_pos_encoding
        weights = self.temporal_attention(series).reshape(batch, 3, steps, height, columns).softmax(2)
        statistics = torch.stack([series.mean(1), series.std(1), series[:, -1] - series[:, 0]], 1)
        small = self.output_norm(
            0.5 * (series[:, None] * weights).sum(2)
            + 0.3 * self.channel_projection(series)
            + 0.2 * self.stat_fusion(statistics)
        )
        if (height, columns) == (self.size, self.size):
            return small, small, weights
        return F.interpolate(small, (self.size, self.size), mode="bicubic", align_corners=False), small, weights


class PlainPerceiver(nn.Module):
    def __init__(self, width: int, latents: int) -> None:
        super().__init__()
        self.latent_queries = nn.Parameter(0.02 * torch.randn(1, latents, width))
        self.cross_attn_layers = nn.ModuleList(nn.MultiheadAttention(width, 8, 0.1, batch_first=True) for _ in range(2))
        self.ffns = nn.ModuleList(
            nn.Sequential(
                nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(0.1), nn.Linear(4 * width, width), nn.Dropout(0.1)
            )
            for _ in range(2)
        )
        self.layer_norms1 = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.layer_norms2 = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def forward(self, tokens: Tensor) -> Tensor:
        latents = self.latent_queries.expand(len(tokens), -1, -1)
        for i, attention in enumerate(self.cross_attn_layers):
            latents = self.layer_norms1[i](latents + attention(latents, tokens, tokens, need_weights=False)[0])
            latents = self.layer_norms2[i](latents + self.ffns[i](latents))
        return latents


class PlainSequence(nn.Module):
    def __init__(self, width: int, steps: int, form: Config) -> None:
        super().__init__()
        self.pool, out = form["spatial_pool_size"], form["vlm_hidden_dim"]
        self.spatiotemporal_pos_embed = nn.Parameter(0.02 * torch.randn(1, steps * self.pool**2, width))
        self.feature_enhance = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width), nn.GELU(), nn.Dropout(0.1))
        self.perceiver = PlainPerceiver(width, form["num_latents"])
        self.proj_to_vlm = nn.Sequential(nn.Linear(width, out), nn.LayerNorm(out), nn.GELU(), nn.Dropout(0.1))
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, out))

    def forward(self, fused: Tensor) -> Tensor:
        batch, _, _, _, width = fused.shape
        pooled = F.adaptive_avg_pool2d(fused.flatten(0, 1).permute(0, 3, 1, 2).contiguous(), self.pool)
        tokens = pooled.flatten(2).transpose(1, 2).reshape(batch, -1, width) + self.spatiotemporal_pos_embed
        latents = self.proj_to_vlm(self.perceiver(self.feature_enhance(tokens)))
        return torch.cat([self.cls_token.expand(batch, -1, -1), latents], 1)


class PlainFormat(nn.Module):
    def __init__(self, model: Config, image_res: int) -> None:
        super().__init__()
        form = model["format_transformer"]
        self.image_projector = PlainImage(model["d_model"], model["T"], image_res)
        self.sequence_projector = PlainSequence(model["d_model"], model["T"], form)
        self.prompt_proj = nn.Linear(3 * model["prompt_forge"]["d_prompt"], form["vlm_hidden_dim"])

    def forward(self, fused: Tensor, prompt: Tensor) -> tuple[Tensor, Tensor]:
        sequence = self.sequence_projector(fused)
        sequence = torch.cat([sequence[:, :1], self.prompt_proj(prompt)[:, None], sequence[:, 1:]], 1)
        return self.image_projector(fused)[0], sequence


def plain_attention(query: Tensor, key: Tensor, value: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    """Attention written out, with the weights of all pairs."""
    query, key, value = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    weights = (scores if bias is None else scores + bias).softmax(-1)
    return (weights @ value).transpose(1, 2).flatten(2)


class PlainVitAttention(nn.Module):
    def __init__(self, width: int, heads: int, vlm: Config) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.adapted = bool(vlm["use_lora"])
        if self.adapted:
            for name in ("query_lora", "key_lora", "value_lora"):
                setattr(self, name, PlainLora(nn.Linear(width, width), vlm))

    def forward(self, x: Tensor) -> Tensor:
        adapters = (self.query_lora, self.key_lora, self.value_lora) if self.adapted else ()
        found = [adapter(x) for adapter in adapters] or self.qkv(x).chunk(3, -1)
        return self.proj(plain_attention(*found, self.heads))


class PlainMlp(nn.Module):
    def __init__(self, width: int, ratio: float) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, int(width * ratio)), nn.Linear(int(width * ratio), width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class PlainBlock(nn.Module):
    def __init__(self, width: int, vit: Config, vlm: Config) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = PlainVitAttention(width, vit["num_heads"], vlm)
        self.mlp = PlainMlp(width, vit["mlp_ratio"])

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PlainPatches(nn.Module):
    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch)

    def forward(self, image: Tensor) -> Tensor:
        return self.proj(image).flatten(2).transpose(1, 2)


class PlainVit(nn.Module):
    def __init__(self, image_res: int, width: int, vit: Config, vlm: Config) -> None:
        super().__init__()
        patches = (image_res // vit["patch_size"]) ** 2
        self.patch_embed = PlainPatches(width, vit["patch_size"])
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, patches + 1, width))
        self.blocks = nn.ModuleList(PlainBlock(width, vit, vlm) for _ in range(vit["depth"]))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, image: Tensor) -> Tensor:
        x = torch.cat([self.cls_token.expand(len(image), -1, -1), self.patch_embed(image)], 1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class PlainSelf(nn.Module):
    def __init__(self, bert: Config, vlm: Config) -> None:
        super().__init__()
        self.heads, width = bert["num_attention_heads"], bert["hidden_size"]
        for name in ("query", "key", "value"):
            linear = nn.Linear(width, width)
            setattr(self, name, PlainLora(linear, vlm) if vlm["use_lora"] else linear)

    def forward(self, x: Tensor, memory: Tensor, bias: Tensor) -> Tensor:
        return plain_attention(self.query(x), self.key(memory), self.value(memory), self.heads, bias)


class PlainOutput(nn.Module):
    def __init__(self, before: int, bert: Config) -> None:
        super().__init__()
        self.dense = nn.Linear(before, bert["hidden_size"])
        self.LayerNorm = nn.LayerNorm(bert["hidden_size"], eps=bert["layer_norm_eps"])
        self.dropout = nn.Dropout(bert["hidden_dropout_prob"])

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(self.dropout(self.dense(x)) + residual)


class PlainBertAttention(nn.Module):
    def __init__(self, bert: Config, vlm: Config) -> None:
        super().__init__()
        self.self, self.output = PlainSelf(bert, vlm), PlainOutput(bert["hidden_size"], bert)

    def forward(self, x: Tensor, memory: Tensor, bias: Tensor) -> Tensor:
        return self.output(self.self(x, memory, bias), x)


class PlainIntermediate(nn.Module):
    def __init__(self, bert: Config) -> None:
        super().__init__()
        self.dense = nn.Linear(bert["hidden_size"], bert["intermediate_size"])

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.dense(x))


class PlainBertLayer(nn.Module):
    def __init__(self, bert: Config, vlm: Config, *, fusion: bool) -> None:
        super().__init__()
        self.attention = PlainBertAttention(bert, vlm)
        if fusion:
            self.crossattention = PlainBertAttention(bert, vlm)
        self.intermediate, self.output = PlainIntermediate(bert), PlainOutput(bert["intermediate_size"], bert)

    def forward(self, x: Tensor, bias: Tensor, visual: Tensor | None, visual_bias: Tensor | None) -> Tensor:
        x = self.attention(x, x, bias)
        if visual is not None and visual_bias is not None:
            x = self.crossattention(x, visual, visual_bias)
        return self.output(self.intermediate(x), x)


class PlainEmbeddings(nn.Module):
    """Built and held, never read by the forecast."""

    def __init__(self, bert: Config) -> None:
        super().__init__()
        width = bert["hidden_size"]
        self.word_embeddings = nn.Embedding(bert["vocab_size"], width)
        self.position_embeddings = nn.Embedding(bert["max_position_embeddings"], width)
        self.token_type_embeddings = nn.Embedding(bert["type_vocab_size"], width)
        self.LayerNorm = nn.LayerNorm(width, eps=bert["layer_norm_eps"])

    def forward(self, ids: Tensor) -> Tensor:
        places = torch.arange(ids.shape[1], device=ids.device)
        found = self.word_embeddings(ids) + self.position_embeddings(places)
        return self.LayerNorm(found + self.token_type_embeddings.weight[0])


class PlainLayers(nn.Module):
    def __init__(self, bert: Config, vlm: Config) -> None:
        super().__init__()
        self.layer = nn.ModuleList(
            PlainBertLayer(bert, vlm, fusion=i >= bert["fusion_layer"]) for i in range(bert["num_hidden_layers"])
        )


class PlainBert(nn.Module):
    def __init__(self, bert: Config, vlm: Config) -> None:
        super().__init__()
        self.fusion_layer = bert["fusion_layer"]
        self.embeddings, self.encoder = PlainEmbeddings(bert), PlainLayers(bert, vlm)

    def text(self, x: Tensor, mask: Tensor) -> Tensor:
        bias = (1.0 - mask[:, None, None].to(x.dtype)) * -10000.0
        for layer in self.encoder.layer[: self.fusion_layer]:
            x = layer(x, bias, None, None)
        return x

    def fusion(self, x: Tensor, mask: Tensor, visual: Tensor, visual_mask: Tensor) -> Tensor:
        bias = (1.0 - mask[:, None, None].to(x.dtype)) * -10000.0
        visual_bias = (1.0 - visual_mask[:, None, None].to(x.dtype)) * torch.finfo(x.dtype).min
        for layer in self.encoder.layer[self.fusion_layer :]:
            x = layer(x, bias, visual, visual_bias)
        return x


class PlainVlm(nn.Module):
    def __init__(self, vlm: Config, bert: Config, vit: Config) -> None:
        super().__init__()
        self.visual_encoder = PlainVit(vlm["image_res"], vlm["vision_width"], vit, vlm)
        self.text_encoder = PlainBert(bert, vlm)
        self.vision_proj = nn.Linear(vlm["vision_width"], vlm["embed_dim"])
        self.text_proj = nn.Linear(bert["hidden_size"], vlm["embed_dim"])
        if vlm["use_lora"]:
            self.freeze()

    def freeze(self) -> None:
        """Train the adapters only."""
        self.requires_grad_(False)
        for part in self.modules():
            if isinstance(part, PlainLora):
                part.requires_grad_(True)
                part.original_layer.requires_grad_(False)

    def forward(self, image: Tensor, sequence: Tensor, ablation: str | None) -> tuple[Tensor, Tensor, Tensor]:
        mask = sequence.new_ones(sequence.shape[:2])
        if ablation == "no_visual":
            text = self.text_encoder.text(sequence, mask)
            return text, sequence.new_zeros(len(sequence), 197, sequence.shape[-1]), text
        visual = self.visual_encoder(image)
        if ablation == "no_seq":
            return visual.mean(1, keepdim=True).expand(-1, sequence.shape[1], -1), visual, torch.zeros_like(sequence)
        text = self.text_encoder.text(sequence, mask)
        return self.text_encoder.fusion(sequence, mask, visual, visual.new_ones(visual.shape[:2])), visual, text


class PlainHead(nn.Module):
    def __init__(self, model: Config) -> None:
        super().__init__()
        head, tokens, width = model["prediction_head"], model["format_transformer"]["vlm_hidden_dim"], model["d_model"]
        hidden, channels, rate = head["hidden_dim"], head["output_channels"], model["dix_attention"]["dropout"]
        self.grid, self.horizon = (model["H"], model["W"]), model["T_out"]
        self.horizon_queries = nn.Parameter(0.02 * torch.randn(1, self.horizon, tokens))
        self.cross_attention = nn.MultiheadAttention(tokens, 8, rate, batch_first=True)
        self.attn_norm, self.ffn_norm = nn.LayerNorm(tokens), nn.LayerNorm(hidden)
        self.ffn = nn.Sequential(
            nn.Linear(tokens, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Dropout(rate),
            nn.Linear(hidden, hidden), nn.GELU(), nn.Dropout(rate),
        )  # fmt: skip
        decoded = self.grid[0] * self.grid[1] * hidden // 4
        self.spatial_decode = nn.Sequential(nn.Linear(hidden, decoded), nn.GELU(), nn.Dropout(rate))
        self.dix_proj = nn.Sequential(
            nn.Conv2d(width, width // 2, 3, padding=1), nn.BatchNorm2d(width // 2), nn.GELU(), nn.Dropout(rate),
            nn.Conv2d(width // 2, width // 4, 3, padding=1), nn.BatchNorm2d(width // 4), nn.GELU(),
        )  # fmt: skip
        self.fusion_conv = nn.Sequential(
            nn.Conv3d(hidden // 4 + width // 4, hidden // 2, 3, padding=1), nn.BatchNorm3d(hidden // 2), nn.GELU(),
            nn.Dropout(rate), nn.Conv3d(hidden // 2, hidden // 4, 3, padding=1), nn.BatchNorm3d(hidden // 4),
            nn.GELU(), nn.Dropout(rate), nn.Conv3d(hidden // 4, channels, 1),
        )  # fmt: skip
        self.output_refine = nn.Sequential(
            nn.Conv3d(channels, 2 * channels, 3, padding=1), nn.BatchNorm3d(2 * channels), nn.GELU(),
            nn.Conv3d(2 * channels, channels, 1),
        )  # fmt: skip

    def forward(self, embeddings: Tensor, fused: Tensor) -> Tensor:
        batch = len(fused)
        if fused.shape[1] != self.horizon:
            fused = fused.mean(1, keepdim=True).repeat(1, self.horizon, 1, 1, 1)
        queries = self.horizon_queries.expand(batch, -1, -1)
        # With its weights, as the original asks for them.
        queries = self.attn_norm(queries + self.cross_attention(queries, embeddings, embeddings)[0])
        decoded = self.spatial_decode(self.ffn_norm(self.ffn(queries)))
        decoded = decoded.reshape(batch, self.horizon, *self.grid, -1).permute(0, 4, 1, 2, 3)
        features = self.dix_proj(fused.flatten(0, 1).permute(0, 3, 1, 2).contiguous())
        features = features.unflatten(0, (batch, self.horizon)).transpose(1, 2)
        field = self.output_refine(self.fusion_conv(torch.cat([decoded, features], 1)))
        return field.permute(0, 2, 3, 4, 1)


class PlainPredictionHead(nn.Module):
    def __init__(self, model: Config) -> None:
        super().__init__()
        self.head = PlainHead(model)

    def forward(self, embeddings: Tensor, fused: Tensor) -> Tensor:
        return self.head(embeddings, fused)


class PlainVLM4ST(nn.Module):
    """The whole model, from the `model` table of the original's configuration.

    Args:
        model: the table.
        bert: the text encoder's configuration.
        vit: depth, heads, patch and ratio of the image encoder.
        ablation: what to leave out.
    """

    def __init__(self, model: Config, bert: Config, vit: Config, ablation: str | None = None) -> None:
        super().__init__()
        self.ablation, self.three_prompts = ablation, 3 * model["prompt_forge"]["d_prompt"]
        self.dix_attention = PlainDix(model["d_model"], model["dix_attention"])
        self.prompt_forge = PlainForge(model["d_model"], model["prompt_forge"])
        self.gate_fusion = PlainGate(model["d_model"], model["dix_attention"]["dropout"])
        self.format_transformer = PlainFormat(model, model["vlm"]["image_res"])
        self.vlm_module = PlainVlm(model["vlm"], bert, vit)
        self.prediction_head = PlainPredictionHead(model)

    def forward(self, x: Tensor, timestamps: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        if self.ablation == "no_dix":
            given = self.dix_attention.norm(self.dix_attention.input_proj(x[..., None]))
            maps, tokens = [given] * 4, [given.new_zeros(len(x), given.shape[-1])] * 3
        else:
            maps, tokens = self.dix_attention(x, timestamps)
        prompt = self.prompt_forge(*tokens)[0]
        prompt = torch.zeros_like(prompt) if self.ablation == "no_prompt" else prompt
        fused, gates = self.gate_fusion(maps)
        image, sequence = self.format_transformer(fused, prompt)
        embeddings, visual, text = self.vlm_module(image, sequence, self.ablation)
        return self.prediction_head(embeddings, fused), {
            "X_temporal": maps[0], "X_cross": maps[2], "B_prompt": prompt, "X_fused": fused, "gate_weights": gates,
            "image": image, "sequence": sequence, "vlm.fused_embeds": embeddings, "vlm.visual_embeds": visual,
            "vlm.text_embeds": text,
        }  # fmt: skip


def plain_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the loss of the original's configuration."""
    error = prediction.squeeze(-1) - target
    return error.square().mean() + 0.5 * error.abs().mean()


def without_attention_dropout(model: nn.Module) -> nn.Module:
    """Switch the dropout of attention weights off, that of values stays."""
    for part in model.modules():
        if isinstance(part, nn.MultiheadAttention):
            part.dropout = 0.0
    return model
