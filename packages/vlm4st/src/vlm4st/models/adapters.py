"""Low-rank updates of frozen linear layers, in four forms, and the layers that carry them.

With `s = alpha / rank`, x of one sample and its mean over tokens x̄ (paper, LoRA variants; W, b frozen):

standard       `W x + b + s B A x`
mtl            `A` of all, a diagonal and a mixture of `B`s weighted by a softmax over tasks of x̄
moe            experts `(A_e, B_e)` weighted by a softmax of x̄
task_adaptive  `A` of all plus a mixture of `A_e`s weighted by a softmax of x̄, one `B`

Experts are stacked, so that each form is a few matrix products whatever their number. Parameters have the names of the
original's; which parameters are adapters is told by the type of their module, never by a name.

Sources: LoRA (Hu et al. 2022); VLM4ST, `LoRALinear`, `MTLoRALinear`, `MoELoRALinear`, `TaskAdaptiveLoRALinear`. Differs
in: an image encoder's queries, keys and values stay one product, with three updates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from stcore.errors import UserError
from vlm4st.models.configs import LoraType, VlmConfig

START = 0.01
"""Standard deviation of what is drawn; every B starts at 0, so that an update starts at 0."""
GATE_WIDTH = 64
"""Hidden width of the gates of `mtl` and `moe`."""

Update = Float[Tensor, "batch *tokens out"]
Given = Float[Tensor, "batch *tokens width"]


def _drawn(*shape: int) -> nn.Parameter:
    return nn.Parameter(START * torch.randn(*shape))


def _gate(width: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


class Adapter(nn.Module):
    """An update of a linear layer; `forward` returns what is added to the layer's output."""

    scaling: float

    def mixture(self, gate: nn.Module, x: Given) -> Float[Tensor, "batch choice"]:
        """Return the weights of a softmax over the mean of each sample's tokens."""
        return gate(x.flatten(1, -2).mean(1) if x.ndim > 2 else x).softmax(-1)


class StandardAdapter(Adapter):
    """One update for all samples.

    Args:
        width: inputs of the layer.
        out: its outputs.
        config: rank and alpha.
    """

    def __init__(self, width: int, out: int, config: VlmConfig) -> None:
        super().__init__()
        self.scaling = config.scaling
        self.lora_A = _drawn(config.lora_rank, width)
        self.lora_B = nn.Parameter(torch.zeros(out, config.lora_rank))

    def forward(self, x: Given) -> Update:
        """Return `s B A x`."""
        return F.linear(F.linear(x, self.lora_A) * self.scaling, self.lora_B)

    def matrix(self) -> Float[Tensor, "out width"]:
        """Return `s B A`, which may be added to the layer's weight."""
        return self.scaling * self.lora_B @ self.lora_A


class MtlAdapter(Adapter):
    """One A; its rows are weighted, and Bs are mixed, by tasks that each sample is found to belong to."""

    def __init__(self, width: int, out: int, config: VlmConfig) -> None:
        super().__init__()
        self.scaling = config.scaling
        rank, experts, tasks = config.lora_rank, config.num_experts, config.num_tasks
        self.lora_A = _drawn(rank, width)
        self.lora_B_experts = nn.Parameter(torch.zeros(experts, out, rank))
        self.task_lambdas = nn.Parameter(torch.ones(tasks, rank))
        self.task_expert_weights = _drawn(tasks, experts)
        self.gate_net = _gate(width, GATE_WIDTH, tasks)

    def forward(self, x: Given) -> Update:
        """Return `s B_t Λ_t A x`."""
        tasks = self.mixture(self.gate_net, x)
        experts = (tasks @ self.task_expert_weights).softmax(-1)
        weighted = F.linear(x, self.lora_A) * _per_sample(tasks @ self.task_lambdas, x)
        return _experts(weighted, experts, self.lora_B_experts) * self.scaling


class MoeAdapter(Adapter):
    """Several updates, mixed for each sample."""

    def __init__(self, width: int, out: int, config: VlmConfig) -> None:
        super().__init__()
        self.scaling = config.scaling
        self.expert_A = _drawn(config.num_experts, config.lora_rank, width)
        self.expert_B = nn.Parameter(torch.zeros(config.num_experts, out, config.lora_rank))
        self.gate_net = _gate(width, GATE_WIDTH, config.num_experts)

    def forward(self, x: Given) -> Update:
        """Return `s Σ_e g_e B_e A_e x`."""
        share = self.mixture(self.gate_net, x).repeat_interleave(self.expert_A.shape[1], dim=-1)
        inner = F.linear(x, self.expert_A.flatten(0, 1)) * _per_sample(share, x)
        return F.linear(inner, self.expert_B.transpose(1, 2).flatten(0, 1).T) * self.scaling


class TaskAdaptiveAdapter(Adapter):
    """One B; to an A for all a mixture of As is added for each sample."""

    def __init__(self, width: int, out: int, config: VlmConfig) -> None:
        super().__init__()
        self.scaling = config.scaling
        self.A_shared = _drawn(config.lora_rank, width)
        self.A_experts = _drawn(config.num_experts, config.lora_rank, width)
        self.lora_B = nn.Parameter(torch.zeros(out, config.lora_rank))
        self.gate_net = _gate(width, config.task_emb_dim, config.num_experts)

    def forward(self, x: Given) -> Update:
        """Return `s B (A + Σ_e g_e A_e) x`."""
        share = self.mixture(self.gate_net, x)
        each = F.linear(x, self.A_experts.flatten(0, 1)).unflatten(-1, self.A_experts.shape[:2])
        inner = F.linear(x, self.A_shared) + (each * _per_sample(share, x)[..., None]).sum(-2)
        return F.linear(inner, self.lora_B) * self.scaling


def _per_sample(values: Float[Tensor, "batch size"], x: Given) -> Float[Tensor, "batch *ones size"]:
    """Give values of each sample an axis for each axis of tokens."""
    return values.view(values.shape[0], *[1] * (x.ndim - 2), -1)


def _experts(
    x: Float[Tensor, "batch *tokens rank"],
    share: Float[Tensor, "batch expert"],
    matrices: Float[Tensor, "expert out rank"],
) -> Update:
    """Return `Σ_e g_e B_e x`."""
    mixed = torch.einsum("be,eor->bro", share, matrices)
    return x @ mixed if x.ndim > 2 else (x[:, None] @ mixed)[:, 0]


TYPES: dict[LoraType, Callable[[int, int, VlmConfig], Adapter]] = {
    "standard": StandardAdapter,
    "mtl": MtlAdapter,
    "moe": MoeAdapter,
    "task_adaptive": TaskAdaptiveAdapter,
}
"""Kinds of adapters by the name they have in a configuration."""


class AdaptedLinear(nn.Module):
    """A frozen linear layer and what is added to it.

    Args:
        base: the layer.
        config: kind and sizes of the adapter.
    """

    def __init__(self, base: nn.Linear, config: VlmConfig) -> None:
        super().__init__()
        self.base = base
        self.adapter = TYPES[config.lora_type](base.in_features, base.out_features, config)
        self.merged = False

    @property
    def adapters(self) -> tuple[Adapter, ...]:
        """The adapters, in the order of the rows of the layer's weight."""
        return (self.adapter,)

    def forward(self, x: Given) -> Update:
        """Return the layer's output with the update."""
        y = self.base(x)
        return y if self.merged else updated(y, x, self.adapters)


class AdaptedQkv(nn.Module):
    """Queries, keys and values of an image encoder from one frozen layer, each with its own update.

    Args:
        base: the layer, whose outputs are queries, keys and values side by side.
        config: kind and sizes of the adapters.
    """

    def __init__(self, base: nn.Linear, config: VlmConfig) -> None:
        super().__init__()
        make, width = TYPES[config.lora_type], base.in_features
        self.base = base
        self.query, self.key, self.value = (make(width, base.out_features // 3, config) for _ in range(3))
        self.merged = False

    @property
    def adapters(self) -> tuple[Adapter, ...]:
        """The adapters, in the order of the rows of the layer's weight."""
        return (self.query, self.key, self.value)

    def forward(self, x: Given) -> Update:
        """Return queries, keys and values with their updates."""
        y = self.base(x)
        return y if self.merged else updated(y, x, self.adapters)


def updated(y: Update, x: Given, adapters: Sequence[Adapter]) -> Update:
    """Add updates to a layer's output, in one product where they do not depend on the sample.

    Args:
        y: output of the layer.
        x: what it was given.
        adapters: one for each part of the output.
    """
    standard = [adapter for adapter in adapters if isinstance(adapter, StandardAdapter)]
    if len(standard) < len(adapters):
        return y + torch.cat([adapter(x) for adapter in adapters], dim=-1)
    lower = torch.cat([adapter.lora_A for adapter in standard])
    upper = torch.block_diag(*(adapter.lora_B for adapter in standard))
    inner = F.linear(x.flatten(0, -2), lower)
    return torch.addmm(y.flatten(0, -2), inner, upper.T, alpha=standard[0].scaling).view_as(y)


def adapted_layers(module: nn.Module) -> Iterator[tuple[str, AdaptedLinear | AdaptedQkv]]:
    """Yield name and layer wherever there are adapters."""
    for name, part in module.named_modules():
        if isinstance(part, (AdaptedLinear, AdaptedQkv)):
            yield name, part


def adapter_parameters(module: nn.Module) -> Iterator[nn.Parameter]:
    """Yield the parameters of all adapters."""
    for part in module.modules():
        if isinstance(part, Adapter):
            yield from part.parameters()


def merge(module: nn.Module) -> None:
    """Add all updates to the weights below, so that they cost nothing; for adapters of kind `standard`.

    Raises:
        UserError: adapters whose update depends on the sample.
    """
    for _, layer in adapted_layers(module):
        if not layer.merged:
            _shift(layer, 1.0)
            layer.merged = True


def unmerge(module: nn.Module) -> None:
    """Take the updates out of the weights again."""
    for _, layer in adapted_layers(module):
        if layer.merged:
            _shift(layer, -1.0)
            layer.merged = False


def _shift(layer: AdaptedLinear | AdaptedQkv, sign: float) -> None:
    with torch.no_grad():
        updates = [_matrix(adapter) for adapter in layer.adapters]
        layer.base.weight += (sign * torch.cat(updates)).to(layer.base.weight.dtype)


def _matrix(adapter: Adapter) -> Tensor:
    if not isinstance(adapter, StandardAdapter):
        raise UserError(f"adapter: {type(adapter).__name__}, whose update depends on the sample; expected lora-type "
                        "standard to merge")  # fmt: skip
    return adapter.matrix()
