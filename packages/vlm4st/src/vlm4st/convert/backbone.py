"""The backbone's weights in a file of their own: from ALBEF, or from a model that was trained elsewhere.

The file is safetensors. Its names are those of the libraries, `visual.<timm>` and `text.<layer>.<transformers>`; those
of adapters are not in it. The table of positions keeps the size it was trained at, and is resampled when it is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from stcore.errors import UserError
from stcore.files import write_atomically
from stcore.torchvision_ops import prepare_timm
from vlm4st.convert.albef import import_albef
from vlm4st.models.vlm4st import BACKBONE, VLM4ST

prepare_timm()  # before timm

from timm.layers.pos_embed import resample_abs_pos_embed  # noqa: E402

KIND = "vlm4st-backbone"
"""What the metadata of such a file says it is."""
POSITIONS = "visual.pos_embed"


def write_backbone(tensors: Mapping[str, Tensor], out: Path, *, about: Mapping[str, str] | None = None) -> None:
    """Write weights of a backbone.

    Args:
        tensors: by names of the libraries, from `import_albef` or `backbone_tensors`.
        out: the file; written whole or not at all.
        about: more for its metadata.
    """
    content = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_atomically(out, [save(content, {"kind": KIND, **(about or {})})])


def read_backbone(path: Path) -> dict[str, Tensor]:
    """Read weights of a backbone: a file of `write_backbone`, or a checkpoint of ALBEF.

    Raises:
        UserError: no such file, or it is something else.
    """
    if path.suffix in (".pth", ".pt", ".bin"):
        return import_albef(path)[0]
    try:
        with safe_open(path, framework="pt") as file:
            kind = (file.metadata() or {}).get("kind")
            if kind != KIND:
                raise UserError(f"{path}: of kind {kind!r}; expected {KIND!r}, weights of a backbone")
            return {name: file.get_tensor(name) for name in list(file.keys())}
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; expected weights of a backbone") from error
    except SafetensorError as error:
        raise UserError(f"{path}: no valid safetensors: {error}; expected weights of a backbone") from error


def backbone_tensors(model: VLM4ST) -> dict[str, Tensor]:
    """Return a model's backbone without its adapters, by names of the libraries."""
    return {_library_name(name): value for name, value in model.backbone_state().items()}


def load_backbone(model: VLM4ST, path: Path) -> None:
    """Load weights into a model's backbone.

    Raises:
        UserError: weights that are missing, left over or of another shape; nothing is then loaded.
    """
    found = read_backbone(path)
    wanted = model.backbone_state()
    names = {_library_name(name): name for name in wanted}
    missing = sorted(names.keys() - found.keys())
    if missing:
        raise UserError(f"{path}: no {missing[0]} ({len(missing)} missing of {len(names)}); expected all weights of "
                        "the backbone")  # fmt: skip
    # Layers that this model does not build may be there; a weight that no backbone has may not.
    built = {_part(name) for name in names}
    extra = sorted(name for name in found.keys() - names.keys() if _part(name) in built)
    if extra:
        raise UserError(f"{path}: {extra[0]} ({len(extra)} left over); expected the weights of this backbone only")
    if POSITIONS in names:
        found[POSITIONS] = resized_positions(found[POSITIONS], _side(wanted[names[POSITIONS]]))
    for name, ours in names.items():
        if found[name].shape != wanted[ours].shape:
            raise UserError(f"{path}: {name} of shape {tuple(found[name].shape)}; expected {tuple(wanted[ours].shape)}")
    model.load_state_dict({ours: found[name] for name, ours in names.items()}, strict=False)


def resized_positions(table: Tensor, side: int) -> Tensor:
    """Resample a table of positions, as ALBEF does it: bicubic, without smoothing; the class token's stays.

    Args:
        table: of shape (1, 1 + patches, width), of a square of patches.
        side: patches along a side of the new square.
    """
    # Smoothing is timm's default, and another table: up to 2.2 standard deviations off.
    return resample_abs_pos_embed(table, [side, side], num_prefix_tokens=1, antialias=False)


def _side(table: Tensor) -> int:
    return math.isqrt(table.shape[1] - 1)


def _library_name(name: str) -> str:
    return name.removeprefix(BACKBONE).replace(".base.", ".")


def _part(name: str) -> str:
    """Return the part of a backbone that is built or not: the image encoder, or a layer of the text encoder."""
    return "visual" if name.startswith("visual.") else ".".join(name.split(".")[:2])
