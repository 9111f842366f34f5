"""Objects of ours for recordings of the original."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from vlm4st_recordings import Recording

from vlm4st.convert import load_reference
from vlm4st.models import ModelConfig, from_original
from vlm4st.models.vlm4st import VLM4ST


def model_config(recording: Recording, **vlm: Any) -> ModelConfig:
    """Return our configuration of a whole model; text layers are built, as the original's are."""
    table = dict(recording.config["model"])
    sizes = {"depth", "num_heads", "patch_size", "mlp_ratio"}
    vit = {name: value for name, value in recording.meta["vit"].items() if name in sizes}
    table["vlm"] = {**table["vlm"], "bert_config": recording.meta["bert_config"], "vit": vit, **vlm}
    return from_original({"model": table}, where=recording.name)


def reference_model(recording: Recording, **vlm: Any) -> VLM4ST:
    """Return the recorded model, in evaluation mode."""
    options = {"keep_text_layers": True, "allow_random_backbone": True, **vlm}
    model = VLM4ST(model_config(recording, **options), recording.meta["ablation_mode"])
    load_reference(model, recording.weights())
    return model.eval()


def weights_under(recording: Recording, prefix: str = "") -> dict[str, Tensor]:
    """Return the weights whose names start so, without that."""
    found = recording.weights().items()
    return {name.removeprefix(prefix): value for name, value in found if name.startswith(prefix)}


def gradient_names(model: VLM4ST) -> dict[str, Tensor]:
    """Return the gradients of all parameters that have one, by our names."""
    return {name: part.grad for name, part in model.named_parameters() if part.grad is not None}


def zeros_like_state(model: torch.nn.Module) -> dict[str, Tensor]:
    """Return a state of zeros."""
    return {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
