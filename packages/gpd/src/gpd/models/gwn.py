"""v_GWN: Graph WaveNet without adaptive adjacency, for many nodes at once.

Only the last step of the centre reaches the forecast: the skip path is taken there alone, the last layer is computed
there alone, and its graph convolution and normalisation as well as all residual convolutions, which the original
registers and never uses, vanish. The first layer reads the data through one matrix. Where the adjacency is symmetric,
both directions of the diffusion are one and their weights add up. All of this is exact.

Source: tsinghua-fib-lab/GPD, `Models/meta_gwn.py::v_GWN` (its behaviour; written anew), after Wu et al., "Graph WaveNet
for Deep Spatial-Temporal Graph Modeling" (IJCAI 2019).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from gpd.models.configs import NodeModelConfig
from gpd.models.spec import ParamSpec, Spec, Training
from gpd.models.stacking import (
    at_centre,
    batch_norm,
    drop,
    gated,
    kernel_matrix,
    last_value,
    layer_norm,
    multiply,
    point_matrix,
    taps,
    time_first,
    uniform,
)  # fmt: skip

EPS, MOMENTUM = 1e-5, 0.1
ORDER = 2
"""Steps of the diffusion in each direction."""


class GraphWaveNet:
    """Dilated gated convolutions, each followed by diffusion over the ego graph.

    Args:
        config: sizes.
        features: channels of the input.
    """

    def __init__(self, config: NodeModelConfig, features: int) -> None:
        self.config, self.features = config, features
        self.dilations = config.dilations
        self.normed = () if config.norm == "none" else tuple(range(len(self.dilations) - 1))
        self.spec: Spec = tuple(self._legacy() if config.row == "legacy" else self._native())

    @property
    def states(self) -> dict[str, tuple[int, ...]]:
        """Running statistics of batch normalisation."""
        if self.config.norm != "batch":
            return {}
        shape = (self.config.channels,)
        return {f"bn.{k}.{name}": shape for k in self.normed for name in ("running_mean", "running_var")}

    def _tensors(self, *, gaps: bool) -> dict[str, list[ParamSpec]]:
        c = self.config
        residual, inside, skip, end, kernel = (
            c.channels, c.dilation_channels, c.skip_channels, c.end_channels, c.kernel_size)  # fmt: skip
        count = len(self.dilations)
        live = range(count) if gaps else range(count - 1)

        def each(name: str, shape: tuple[int, ...], group: str, layers: range, *, used: bool = True) -> list[ParamSpec]:
            return [ParamSpec(name.format(k), shape, group, k, used) for k in layers]

        convolution = (inside, residual, 1, kernel)
        found = {
            "filter": each("filter_convs.{}.weight", convolution, "filter_convs", range(count)),
            "gate": each("gate_convs.{}.weight", convolution, "gate_convs", range(count)),
            "residual": each("residual_convs.{}.weight", (residual, inside, 1, 1), "residual_convs", range(count),
                             used=False),
            "skip": each("skip_convs.{}.weight", (skip, inside, 1, 1), "skip_convs", range(count)),
            "gain": each("bn.{}.weight", (residual,), "bn.weight", live),
            "bias": each("bn.{}.bias", (residual,), "bn.bias", live),
            "graph": each("gconv.{}.mlp.mlp.weight", (residual, (2 * ORDER + 1) * inside, 1, 1), "gconv", live),
            "ends": [ParamSpec("start_conv.weight", (residual, self.features, 1, 1), "start_conv", 0),
                     ParamSpec("end_conv_1.weight", (end, skip, 1, 1), "end_conv_1", 0),
                     ParamSpec("end_conv_2.weight", (c.horizon, end, 1, 1), "end_conv_2", 0)],
            "mean": [ParamSpec(f"bn.{k}.running_mean", (residual,), "running_mean", k, trained=False)
                     for k in self.normed],
            "variance": [ParamSpec(f"bn.{k}.running_log_var", (residual,), "running_log_var", k, trained=False)
                         for k in self.normed],
        }  # fmt: skip
        unused = {f"{name}.{part}" for name, part in ((f"bn.{count - 1}", "weight"), (f"bn.{count - 1}", "bias"))}
        unused |= {f"gconv.{count - 1}.mlp.mlp.weight"}
        if c.norm == "none":
            unused |= {entry.name for entry in (*found["gain"], *found["bias"])}
        return {part: [entry._replace(used=entry.used and entry.name not in unused) for entry in entries]
                for part, entries in found.items()}  # fmt: skip

    def _legacy(self) -> list[ParamSpec]:
        """The original's order of registration, with what is never used."""
        parts = self._tensors(gaps=True)
        pairs = [entry for pair in zip(parts["gain"], parts["bias"], strict=True) for entry in pair]
        return [*parts["filter"], *parts["gate"], *parts["residual"], *parts["skip"], *pairs, *parts["graph"],
                *parts["ends"], *self._statistics(parts)]  # fmt: skip

    def _native(self) -> list[ParamSpec]:
        """Groups one after the other, with what is used only."""
        parts = self._tensors(gaps=False)
        names = ("filter", "gate", "skip", "gain", "bias", "graph", "ends")
        found = [entry for name in names for entry in parts[name] if entry.used]
        return [*found, *self._statistics(parts)]

    def _statistics(self, parts: Mapping[str, list[ParamSpec]]) -> list[ParamSpec]:
        return [*parts["mean"], *parts["variance"]] if self.config.append_statistics else []

    def init(self, generator: torch.Generator, nodes: int) -> dict[str, Tensor]:
        """Draw convolutions as torch does; norms start as the identity."""
        params: dict[str, Tensor] = {}
        for entry in self.spec:
            if not entry.used or not entry.trained:
                continue
            if entry.group in ("bn.weight", "bn.bias"):
                params[entry.name] = torch.full((nodes, *entry.shape), float(entry.group == "bn.weight"))
            elif entry.group == "end_conv_2" and self.config.residual != "none":
                params[entry.name] = torch.zeros(nodes, *entry.shape)  # start from the forecast that is corrected
            else:
                params[entry.name] = uniform(generator, nodes, entry.shape, entry.shape[1] * entry.shape[3])
        for name, shape in self.states.items():
            params[name] = torch.full((nodes, *shape), float(name.endswith("running_var")))
        return params

    def forward_stacked(
        self,
        params: Mapping[str, Tensor],
        x: Float[Tensor, "node batch ego time feature"],
        graph: Float[Tensor, "node ego ego"],
        mask: Bool[Tensor, "node ego"],
        centre: Tensor,
        training: Training | None = None,
    ) -> Float[Tensor, "node batch horizon"]:
        """Forecast the centre of each ego graph, see `gpd.models.spec.NodeModel`."""
        windows = time_first(x)
        supports = _powers(graph)
        missing = max(0, self.config.receptive_field - windows.shape[1])
        z = F.pad(windows, (0, 0, 0, 0, 0, 0, missing, 0))
        skips: list[Tensor] = []
        last = len(self.dilations) - 1
        for layer, dilation in enumerate(self.dilations):
            if layer == last:
                # Nothing but the last step of the centre is asked of the last layer.
                z = at_centre(z, centre)[:, :, None]
                z = z[:, -(self.config.kernel_size - 1) * dilation - 1 :]
            h, z = self._gated(params, layer, z, dilation)
            skips.append(h[:, -1, 0] if layer == last else at_centre(h[:, -1:], centre)[:, 0])
            if layer < last:
                z = self._diffused(params, layer, h, z, supports, mask, training)
        joined = torch.cat(skips, dim=-1)
        matrix = torch.cat([point_matrix(params[f"skip_convs.{k}.weight"]) for k in range(last + 1)], dim=1)
        inner = F.relu(multiply(F.relu(multiply(joined, matrix)), point_matrix(params["end_conv_1.weight"])))
        y = multiply(inner, point_matrix(params["end_conv_2.weight"]))
        return y + last_value(windows, centre) if self.config.residual == "persistence" else y

    def _gated(self, params: Mapping[str, Tensor], layer: int, z: Tensor, dilation: int) -> tuple[Tensor, Tensor]:
        """Return the gated convolution of `z` (the data itself for the first layer), and the residual path."""
        kernel = self.config.kernel_size
        weights = [params[f"{name}_convs.{layer}.weight"] for name in ("filter", "gate")]
        start = point_matrix(params["start_conv.weight"])
        if layer == 0:
            # Both convolutions follow one another without anything between them.
            weights = [torch.einsum("nfr,nork->nofk", start, weight[:, :, :, 0])[:, :, :, None] for weight in weights]
        filtered, gate = (kernel_matrix(weight) for weight in weights)
        h = gated(taps(z, kernel, dilation), filtered, gate, tanh=True)
        kept = z[:, (kernel - 1) * dilation :]
        return h, multiply(kept, start) if layer == 0 else kept

    def _diffused(
        self, params: Mapping[str, Tensor], layer: int, h: Tensor, kept: Tensor, supports: list[Tensor], mask: Tensor,
        training: Training | None,
    ) -> Tensor:  # fmt: skip
        """Mix `h` over the ego graph, add the residual path, normalise."""
        parts = params[f"gconv.{layer}.mlp.mlp.weight"][..., 0, 0].transpose(1, 2).chunk(2 * ORDER + 1, dim=1)
        if len(supports) == ORDER:
            parts = (parts[0], *(parts[1 + k] + parts[1 + ORDER + k] for k in range(ORDER)))
        nodes, time, ego, batch, width = h.shape
        flat = h.reshape(nodes, -1, width)
        out = torch.bmm(flat, parts[0])
        blocks = h.reshape(nodes, time, ego, batch * width)
        for support, weight in zip(supports, parts[1:], strict=True):
            out = torch.baddbmm(out, torch.matmul(support[:, None], blocks).reshape(flat.shape), weight)
        z = out.reshape(*h.shape[:-1], -1)
        if training is not None:
            z = drop(z, self.config.dropout, training.seeds, layer)
        z = z + kept
        return self._normed(params, layer, z, mask, training)

    def _normed(
        self, params: Mapping[str, Tensor], layer: int, z: Tensor, mask: Tensor, training: Training | None
    ) -> Tensor:
        if self.config.norm == "none":
            return z
        gain, bias = params[f"bn.{layer}.weight"], params[f"bn.{layer}.bias"]
        if self.config.norm == "layer":
            return layer_norm(z, gain, bias, EPS)
        names = [f"bn.{layer}.running_mean", f"bn.{layer}.running_var"]
        if training is None:
            mean, variance = (params[name] for name in names)
            slope = gain * (variance + EPS).rsqrt()
            return torch.addcmul((bias - mean * slope)[:, None, None, None], z, slope[:, None, None, None])
        y, mean, variance = batch_norm(z, mask, gain, bias, EPS)
        training.observed |= dict(zip(names, (mean.detach(), variance.detach()), strict=True))
        return y


def _powers(graph: Float[Tensor, "node ego ego"]) -> list[Tensor]:
    """Return what mixes over the ego graph: powers of the adjacency along its edges, then against them if these differ.

    The original multiplies from the right, so its first direction is the transpose.
    """
    against = graph.transpose(1, 2)
    directions = [against] if torch.equal(graph, against) else [against, graph]
    return [torch.linalg.matrix_power(direction, power) for direction in directions for power in range(1, ORDER + 1)]
