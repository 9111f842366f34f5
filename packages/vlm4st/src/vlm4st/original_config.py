"""The original's YAML, read safely and turned into a configuration of ours; no tag of it ever runs anything.

What it says of folders (save_dir, log_dir, output_dir), of the device and of the checkpoint to test is accepted and has
no effect: runs lie in folders of their own, and flags say the rest. Source: VLM4ST, `config/config.yaml`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from stcore.configuration import from_plain
from stcore.errors import UserError
from stcore.option_checks import require
from stcore.readers.limits import one_line, open_file, require_file, shown
from stcore.training.config import LoopConfig
from vlm4st.config import FewShotConfig, LossConfig, OptimiserConfig, ScheduleConfig, TrainConfig
from vlm4st.data_options import DataConfig
from vlm4st.models.configs import from_original

_LARGEST = 2**20
_MOST_NODES, _DEEPEST = 10_000, 32
_CLIP = 1.0
"""Norm of the gradient that the original clips at."""


@dataclass(frozen=True, kw_only=True)
class _Data:
    dataset_path: str | None = None
    dataset_paths: tuple[str, ...] = ()
    task: str = "prediction"
    normalize: bool = True
    train_ratio: float = 0.7
    val_ratio: float = 0.15
    test_ratio: float = 0.15


@dataclass(frozen=True, kw_only=True)
class _Loss:
    mse_weight: float = 1.0
    mae_weight: float = 0.5


@dataclass(frozen=True, kw_only=True)
class _Training:
    batch_size: int = 32
    num_epochs: int = 65
    learning_rate: float = 1e-4
    weight_decay: float = 0.05
    warmup_epochs: int = 5
    loss: _Loss = field(default_factory=_Loss)
    optimizer: str = "adamw"
    scheduler: str | None = "cosine"
    device: str = "cuda"
    num_workers: int = 0
    save_dir: str = ""
    log_dir: str = ""
    save_frequency: int = 5


@dataclass(frozen=True, kw_only=True)
class _Testing:
    checkpoint_path: str | None = None
    batch_size: int = 32
    output_dir: str = ""


@dataclass(frozen=True, kw_only=True)
class _FewShot:
    target_ratio: float = 0.0
    num_epochs: int = 65
    save_dir: str = ""
    output_dir: str = ""


@dataclass(frozen=True, kw_only=True)
class _Vlm:
    image_res: int = 224


@dataclass(frozen=True, kw_only=True)
class _Original:
    data: _Data = field(default_factory=_Data)
    model: dict[str, Any] = field(default_factory=dict[str, Any])
    training: _Training = field(default_factory=_Training)
    testing: _Testing = field(default_factory=_Testing)
    few_shot: _FewShot = field(default_factory=_FewShot)
    vlm: _Vlm = field(default_factory=_Vlm)


def read_original_config(path: str | Path, *, single: bool = False, few_shot: bool = False) -> TrainConfig:
    """Read a configuration of the original.

    Args:
        path: a YAML file.
        single: take `data.dataset_path` and not the list `data.dataset_paths`.
        few_shot: take the epochs of `few_shot` and not those of `training`.

    Raises:
        UserError: no YAML, an unknown key (with the nearest known one), a wrong type, a value out of range.
    """
    where = shown(Path(path))
    found = from_plain(_Original, read_yaml(path), where=where)
    data, training = found.data, found.training
    require(data.task == "prediction", f"{where}: data.task", data.task, "prediction")
    require(data.normalize, f"{where}: data.normalize", data.normalize, "true: values are always scaled")
    optimiser = training.optimizer.lower()
    require(optimiser in ("adamw", "adam"), f"{where}: training.optimizer", training.optimizer, "adamw or adam")
    schedule = (training.scheduler or "none").lower()
    known = schedule in ("cosine", "step", "none")
    require(known, f"{where}: training.scheduler", training.scheduler, "cosine, step or none")
    try:
        return TrainConfig(
            data=_data(data, training.batch_size, single=single, where=where),
            model=from_original(found.model, where=where),
            loss=LossConfig(mse_weight=training.loss.mse_weight, mae_weight=training.loss.mae_weight),
            optimiser=OptimiserConfig(kind=cast("Any", optimiser), learning_rate=training.learning_rate,
                                      weight_decay=training.weight_decay, decay="all"),
            schedule=ScheduleConfig(kind=cast("Any", schedule), warmup_epochs=training.warmup_epochs),
            fit=LoopConfig(epochs=found.few_shot.num_epochs if few_shot else training.num_epochs, clip_norm=_CLIP,
                           workers=training.num_workers),
            few_shot=FewShotConfig(ratio=found.few_shot.target_ratio),
        )  # fmt: skip
    except UserError as error:
        text = str(error)
        raise UserError(text if text.startswith(where) else f"{where}: {text}") from error


def _data(data: _Data, batch: int, *, single: bool, where: str) -> DataConfig:
    listed = data.dataset_paths
    if single or not listed:
        if single and data.dataset_path is None:
            raise UserError(f"{where}: no data.dataset_path; expected one for --single-dataset")
        listed = () if data.dataset_path is None else (data.dataset_path,)
    # The scale of all parts, though it leaks: checkpoints of the original were trained on it.
    return DataConfig(source=listed, split=(data.train_ratio, data.val_ratio, data.test_ratio), batch=batch,
                      batch_rule="adaptive", scaler_fit="all")  # fmt: skip


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file of plain values.

    Raises:
        UserError: no such file, no YAML, a tag or a key that occurs twice, or no table at the top.
    """
    import yaml

    source = Path(path)
    where = shown(source)
    size = require_file(source, "a configuration in YAML")
    if size > _LARGEST:
        raise UserError(f"{where}: {size:,} bytes; expected a configuration of at most {_LARGEST:,}")
    with open_file(source) as file:
        data = file.read()
    loader = _loader()(_decoded(data, where))
    try:
        node = loader.get_single_node()
        if node is not None:
            _count(node, where, 0, [0])
        found = None if node is None else loader.construct_document(node)
    except UserError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        why = one_line(Exception(getattr(error, "problem", None) or str(error)))
        raise UserError(f"{where}{line}: {why}; expected plain YAML") from error
    finally:
        loader.dispose()
    if not isinstance(found, Mapping):
        kind = "nothing" if found is None else f"a {type(found).__name__}"
        raise UserError(f"{where}: {kind}; expected tables such as data, model and training")
    table = cast("Mapping[Any, Any]", found)
    _require_words(table, where, "")
    return cast("dict[str, Any]", dict(table))


def _decoded(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: byte {error.start} is not UTF-8; expected YAML in UTF-8") from error


def _require_words(table: Mapping[Any, Any], where: str, path: str) -> None:
    for key, value in table.items():
        if not isinstance(key, str):
            raise UserError(f"{where}: key {path}{key!r:.40}; expected a word")
        if isinstance(value, Mapping):
            _require_words(cast("Mapping[Any, Any]", value), where, f"{path}{key}.")


def _count(node: Any, where: str, depth: int, seen: list[int]) -> None:
    """Refuse what grows without end when its references are followed."""
    seen[0] += 1
    if seen[0] > _MOST_NODES or depth > _DEEPEST:
        found = f"more than {_MOST_NODES:,} values" if seen[0] > _MOST_NODES else f"more than {_DEEPEST} levels"
        raise UserError(f"{where}: {found} once references are followed; expected a configuration")
    for entry in node.value if isinstance(node.value, list) else ():
        for below in entry if isinstance(entry, tuple) else (entry,):
            _count(below, where, depth + 1, seen)


def _loader() -> Any:
    """Return PyYAML's safe loader, which refuses keys that occur twice and takes 1e-4 for a number."""
    import re

    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys: set[Any] = set()
            for key, _ in node.value:
                if key.tag != "tag:yaml.org,2002:merge" and key.value in keys:
                    raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r:.60} occurs twice",
                                                            key.start_mark)  # fmt: skip
                if isinstance(key.value, str):
                    keys.add(key.value)
            return super().construct_mapping(node, deep=deep)

    number = re.compile(r"[-+]?(?:[0-9][0-9_]*)(?:\.[0-9_]*)?[eE][-+]?[0-9]+")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+0123456789"))
    return Loader
