"""A trained diffusion model as it is read back from a run or a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from gpd.diffusion.configs import StageConfig
from gpd.diffusion.denoiser import Denoiser, TokenTable
from gpd.diffusion.schedule import Schedule
from gpd.diffusion.tokens import RowScaling, TokenLayout, make_layout
from gpd.models.configs import NodeModelConfig
from gpd.models.spec import build_node_model, row_size
from stcore.configuration import from_plain
from stcore.errors import UserError
from stcore.training.checkpoint import Checkpoint
from stcore.training.starting import load_start, require_package

_AVERAGED = "ema_model."


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedDiffusion:
    """Everything that generation needs."""

    denoiser: Denoiser
    """In evaluation mode, with averaged weights where there are any."""
    stage: StageConfig
    layout: TokenLayout
    scaling: RowScaling
    schedule: Schedule
    model: NodeModelConfig
    """Networks that the rows are of."""
    features: int
    """Channels that these networks read."""
    dims: tuple[int, int]
    """Widths of the spatial and of the temporal prompts."""
    checkpoint: Path

    @classmethod
    def load(cls, source: Path) -> TrainedDiffusion:
        """Load the best weights of a run, or those of a checkpoint file.

        Raises:
            UserError: there are none, or they are not of a diffusion model.
        """
        return cls.restore(load_start(source))

    @classmethod
    def restore(cls, checkpoint: Checkpoint) -> TrainedDiffusion:
        """Rebuild the model of a checkpoint.

        Raises:
            UserError: it is of another stage or package, or its weights do not fit its configuration.
        """
        require_package(checkpoint, "gpd")
        facts = checkpoint.metadata
        if facts.get("stage") != "train":
            raise UserError(f"{checkpoint.path}: a checkpoint of {facts.get('stage') or 'another stage'}; expected one "
                            "of the diffusion model, as gpd train writes them")  # fmt: skip
        where = str(checkpoint.path)
        stage = from_plain(StageConfig, facts["config"], where=where)
        model = from_plain(NodeModelConfig, facts["rows"]["model"], where=where)
        features = int(facts["rows"]["features"])
        spec = build_node_model(model, features).spec
        layout = make_layout(spec, stage.denoiser.layout, stage.denoiser.channels_for(row_size(spec)))
        dims = int(facts["prompts"]["spatial"]), int(facts["prompts"]["temporal"])
        denoiser = Denoiser(stage.denoiser, TokenTable.of(layout, stage.denoiser), *dims)
        try:
            denoiser.load_state_dict(_weights(checkpoint))
        except RuntimeError as error:
            first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
            raise UserError(f"{where}: its weights do not fit its configuration: {first}; expected those of this "
                            "denoiser") from error  # fmt: skip
        diffusion = stage.diffusion
        return cls(
            denoiser=denoiser.eval(), stage=stage, layout=layout,
            scaling=RowScaling.from_constants(checkpoint.part("constants")),
            schedule=Schedule.make(diffusion.steps, diffusion.schedule, diffusion.beta_scale),
            model=model, features=features, dims=dims, checkpoint=checkpoint.path,
        )  # fmt: skip


def _weights(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Return the averaged weights; `best.safetensors` holds no others."""
    averaged = {
        name.removeprefix(_AVERAGED): value
        for name, value in checkpoint.part("ema").items()
        if name.startswith(_AVERAGED)
    }
    return averaged or checkpoint.part("model")
