"""What the tests of recordings share: the original's options in our terms, and parts of a state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from svq.convert import to_ours
from svq.models.configs import Kind, QuantizerConfig, SimVPConfig, translator_named

KINDS: dict[str, Kind] = {
    "svq": "svq",
    "vq": "vq",
    "rvq": "residual-vq",
    "grvq": "grouped-residual-vq",
    "mhvq": "multi-head-vq",
    "lfq": "lfq",
    "rlfq": "residual-lfq",
    "rfsq": "residual-fsq",
}
OPTIONS = {
    "codebook_size": "codebook_size",
    "middim": "middle",
    "hid_relu": "hidden_relu",
    "out_relu": "out_relu",
    "nonlinear": "nonlinear",
    "init_method": "init",
    "freeze_codebook": "freeze_codebook",
    "decay": "decay",
    "commitment_weight": "commitment",
    "num_quantizers": "quantizers",
    "groups": "groups",
    "heads": "heads",
    "codebook_dim": "head_dim",
    "sample_codebook_temp": "temperature",
    "entropy_loss_weight": "entropy_weight",
    "diversity_gamma": "diversity",
}
"""Arguments of the original's quantisers, and ours."""
FIXED = {"separate_codebook_per_head": False, "shared_codebook": True}
"""Arguments that never differ."""


def quantizer_config(kind: str | None, arguments: Mapping[str, Any] | None, *, post: bool = False) -> QuantizerConfig:
    """Options of a quantiser; an argument that is not known here fails."""
    if kind is None:
        return QuantizerConfig(kind="none")
    given = dict(arguments or {})
    assert all(given.pop(name, value) == value for name, value in FIXED.items())
    given.pop("input_dim", None), given.pop("dim", None)
    stochastic = given.pop("stochastic_sample_codes", False)
    levels = given.pop("levels", None)
    ours: Any = {OPTIONS[name]: value for name, value in given.items()}
    if levels is not None:
        ours["levels"] = tuple(levels)
    return QuantizerConfig(kind="residual-vq-stochastic" if stochastic else KINDS[kind], post=post, **ours)


def simvp_config(config: Mapping[str, Any], **others: Any) -> SimVPConfig:
    """Sizes of a model, with the original's defaults for what a recording does not name."""
    return SimVPConfig(
        translator=translator_named(config["model_type"]),
        hid_spatial=config["hid_S"],
        hid_temporal=config["hid_T"],
        depth_spatial=config.get("N_S", 2),
        depth_temporal=config["N_T"],
        kernel_encoder=config.get("spatio_kernel_enc", 3),
        kernel_decoder=config.get("spatio_kernel_dec", 3),
        mlp_ratio=config["mlp_ratio"],
        legacy_drop_path=True,
        **others,
    )


def load_part(module: nn.Module, state: Mapping[str, Tensor], *, before: str, ours: str) -> None:
    """Load a part of a model, whose recorded names lack `before`; ours of the whole model start with `ours`."""
    converted = to_ours({before + name: value for name, value in state.items()}).state
    module.load_state_dict({name.removeprefix(ours): value for name, value in converted.items()})


def gradients(module: nn.Module) -> dict[str, Tensor]:
    """Gradients by name, of the parameters that have one."""
    return {name: value.grad for name, value in module.named_parameters() if value.grad is not None}
