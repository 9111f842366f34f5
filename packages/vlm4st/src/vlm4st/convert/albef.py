"""Weights of ALBEF: what of a checkpoint is kept, what is dropped, and that nothing is forgotten.

A checkpoint of the authors' (`ALBEF.pth`, `ALBEF_4M.pth`, or one that was fine-tuned, of any resolution) holds, beside
the two encoders, their averages, heads for words and for pairs, queues, and the optimiser. Kept are the image encoder
and the layers of the text encoder, under the names of the libraries. Every tensor has its row in the table; every
weight that the two encoders have must be there.

Source: ALBEF (Li et al., NeurIPS 2021; BSD-3), layout of `Pretrain.py`'s checkpoints.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from torch import Tensor

from stcore.errors import UserError
from stcore.training.foreign import read_torch_file, without_prefix

_VIT_TOP = ("cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias", "norm.weight", "norm.bias")
_PAIR = ("weight", "bias")
_BLOCK = tuple(
    f"{part}.{kind}" for part in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2") for kind in _PAIR
)
_INNER = ("self.query", "self.key", "self.value", "output.dense", "output.LayerNorm")
_ATTENTION = tuple(f"{part}.{kind}" for part in _INNER for kind in _PAIR)
_LAYER = (
    *(f"attention.{name}" for name in _ATTENTION),
    *(f"{part}.{kind}" for part in ("intermediate.dense", "output.dense", "output.LayerNorm") for kind in _PAIR),
)
_CROSS = tuple(f"crossattention.{name}" for name in _ATTENTION)

DROPPED: tuple[tuple[str, str], ...] = (
    (r"(visual|text)_encoder_m\..+|(vision|text)_proj_m\..+", "averages of the training"),
    (r"text_encoder\.(bert\.)?embeddings\.position_ids", "numbers of positions, no weights"),
    (r"text_encoder\.(bert\.)?embeddings\..+", "embeddings of words: the model is given none"),
    (r"text_encoder\.(bert\.)?pooler\..+", "pooler: nothing reads it"),
    (r"text_encoder\.cls\..+", "head for masked words"),
    (
        r"(vision|text)_proj\..+|combine_(vision|text)_proj(_m)?\..+",
        "projections to a common space: nothing reads them",
    ),
    (r"temp|(image|text|idx)_queue|queue_ptr|ptr_queue", "contrast of images and texts"),
    (r"itm_head\..+|cls_head(_m)?\..+|text_decoder(_m)?\..+|bbox_head\..+", "heads of tasks"),
)
"""Patterns of the names of tensors that are dropped, and why."""


class Row(NamedTuple):
    """What became of one tensor of a checkpoint."""

    name: str
    shape: tuple[int, ...]
    kept_as: str | None
    """Name in the result; None where it was dropped."""
    reason: str
    """Why it was dropped; empty where it was kept."""


def import_albef(path: Path | str, *, text_layers: bool = True) -> tuple[dict[str, Tensor], list[Row]]:
    """Read the encoders out of a checkpoint of ALBEF.

    Args:
        path: the checkpoint. Tensors are read when they are used, so the rest of it costs no memory.
        text_layers: keep the layers that see the text only, which a model without `no_visual` reads on request only.

    Returns:
        Tensors by names of the libraries (`visual.…`, `text.<layer>.…`), and the table of all that was there.

    Raises:
        UserError: no checkpoint, a weight that is missing, or a tensor that belongs to nothing that is known.
    """
    where = str(path)
    state = albef_state(read_torch_file(Path(path), mapped=True), where=where)
    rows = list(_sorted_out(state, text_layers=text_layers, where=where))
    kept = {row.kept_as: state[row.name] for row in rows if row.kept_as is not None}
    _require_all(kept, text_layers=text_layers, where=where)
    return kept, rows


def albef_state(content: Mapping[str, Any], *, where: str) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint, which lie in it or in its `model`.

    Raises:
        UserError: there are none.
    """
    inner = content.get("model", content)
    entries = cast("Mapping[str, Any]", inner) if isinstance(inner, Mapping) else content
    state = {str(name): value for name, value in entries.items() if isinstance(value, Tensor)}
    if not state:
        keys = ", ".join(map(str, list(content)[:6])) or "nothing"
        raise UserError(f"{where}: holds {keys}; expected a checkpoint of ALBEF, tensors by name in `model`")
    return without_prefix(state)


def _sorted_out(state: Mapping[str, Tensor], *, text_layers: bool, where: str) -> Iterable[Row]:
    fusion = first_fusion_layer(state, where=where)
    for name, value in state.items():
        kept_as, reason = _place(name, state)
        if kept_as is not None and not text_layers and (match := re.match(r"text\.(\d+)\.", kept_as)):
            before = int(match[1]) < fusion
            kept_as, reason = (None, "layer that sees the text only") if before else (kept_as, reason)
        if kept_as is None and not reason:
            raise UserError(
                f"{where}: tensor {name!r} belongs to nothing that is known; expected a checkpoint of ALBEF"
            )
        yield Row(name, tuple(value.shape), kept_as, reason)


def _place(name: str, state: Mapping[str, Tensor]) -> tuple[str | None, str]:
    """Return the name under which a tensor is kept, or else why it is dropped."""
    if name.startswith("visual_encoder."):
        return "visual." + name.removeprefix("visual_encoder."), ""
    if match := re.fullmatch(r"text_encoder\.(bert\.)?encoder\.layer\.(.+)", name):
        if match[1] and f"text_encoder.encoder.layer.{match[2]}" in state:
            return None, "there twice: the one without `bert.` is kept"
        return f"text.{match[2]}", ""
    for pattern, reason in DROPPED:
        if re.fullmatch(pattern, name):
            return None, reason
    return None, ""


def first_fusion_layer(state: Mapping[str, Tensor], *, where: str) -> int:
    """Return the number of the first text layer that attends to images.

    Raises:
        UserError: there is none.
    """
    pattern = re.compile(r"text_encoder\.(?:bert\.)?encoder\.layer\.(\d+)\.crossattention\..+")
    numbers = [int(match[1]) for name in state if (match := pattern.fullmatch(name))]
    if not numbers:
        some = ", ".join(list(state)[:3])
        raise UserError(
            f"{where}: tensors {some}; expected a checkpoint of ALBEF, whose text encoder attends to images"
        )
    return min(numbers)


def _require_all(kept: Mapping[str, Tensor], *, text_layers: bool, where: str) -> None:
    """Refuse an encoder that is not whole, and a tensor that none has."""
    wanted = set(_expected(kept, text_layers=text_layers))
    missing, extra = sorted(wanted - kept.keys()), sorted(kept.keys() - wanted)
    if missing:
        raise UserError(f"{where}: no {missing[0]} ({len(missing)} missing of {len(wanted)}); expected all weights of "
                        "both encoders")  # fmt: skip
    if extra:
        raise UserError(f"{where}: {extra[0]} ({len(extra)} in all) belongs to no encoder of ALBEF's; expected only "
                        "what these have")  # fmt: skip


def _expected(kept: Mapping[str, Tensor], *, text_layers: bool) -> Iterable[str]:
    blocks, layers = _numbers(kept, r"visual\.blocks\.(\d+)\."), _numbers(kept, r"text\.(\d+)\.")
    cross = _numbers(kept, r"text\.(\d+)\.crossattention\.")
    yield from (f"visual.{name}" for name in _VIT_TOP)
    yield from (f"visual.blocks.{number}.{name}" for number in range(max(blocks, default=0) + 1) for name in _BLOCK)
    for number in range(0 if text_layers else min(cross), max(layers) + 1):
        yield from (f"text.{number}.{name}" for name in (*_LAYER, *(_CROSS if number >= min(cross) else ())))


def _numbers(names: Iterable[str], pattern: str) -> set[int]:
    return {int(match[1]) for name in names if (match := re.match(pattern, name))}


def table_text(rows: Sequence[Row]) -> str:
    """Return the table in words: how many tensors and numbers were kept for each part, and dropped for each reason."""
    counts: Counter[tuple[str, str]] = Counter()
    sizes: Counter[tuple[str, str]] = Counter()
    for row in rows:
        size = 1
        for side in row.shape:
            size *= side
        kept = "image encoder" if (row.kept_as or "").startswith("visual.") else "text encoder"
        group = ("dropped", row.reason) if row.kept_as is None else ("kept", kept)
        counts[group] += 1
        sizes[group] += size
    lines = [f"{'':8}{'tensors':>8}{'numbers':>14}  what"]
    for (fate, what), count in sorted(counts.items(), key=lambda item: (item[0][0] != "kept", item[0][1])):
        lines.append(f"{fate:8}{count:>8}{sizes[fate, what]:>14,}  {what}")
    return "\n".join([*lines, f"{'in all':8}{len(rows):>8}{sum(sizes.values()):>14,}  every tensor of the file"])
