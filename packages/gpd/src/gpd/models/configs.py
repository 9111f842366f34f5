"""Sizes of the node-level forecasters and how they are trained, as frozen dataclasses.

Standard library only, so that reading or checking a configuration never imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from stcore.errors import UserError
from stcore.option_checks import require_choice, require_option

NodeKind = Literal["stgcn", "gwn", "mlp"]
NODE_KINDS: tuple[NodeKind, ...] = get_args(NodeKind)
Norm = Literal["batch", "layer", "none"]
RowLayout = Literal["native", "legacy"]
Residual = Literal["none", "persistence", "average"]
Calendar = Literal["none", "day", "week"]
NodeLoss = Literal["mse", "mae", "huber"]
SelectOn = Literal["val", "tail", "test", "last"]
Statistics = Literal["train", "full"]
SplitKind = Literal["gpd", "legacy", "chronological"]

KERNELS: dict[NodeKind, int] = {"stgcn": 4, "gwn": 2, "mlp": 0}
"""Width along time of each model's own convolutions."""
CALENDAR_CHANNELS: dict[Calendar, int] = {"none": 0, "day": 2, "week": 4}
"""Channels that each kind of calendar adds."""


@dataclass(frozen=True, kw_only=True)
class NodeModelConfig:
    """The small network of one node: STGCN or Graph WaveNet on the node's ego graph, or a perceptron without graph."""

    kind: NodeKind = "stgcn"
    """v_STGCN5 (one graph mixing between gated convolutions), v_GWN (Graph WaveNet), or a perceptron."""
    history: int = 12
    """Steps that are read."""
    horizon: int = 6
    """Steps that are forecast."""
    norm: Norm = "layer"
    """Normalisation of v_GWN: over the channels of each position, over batches as in the original, or none."""
    row: RowLayout = "native"
    """What a row holds: the numbers that count, or all of the original's, with zeros for those that never count."""
    append_statistics: bool = False
    """Add running means and logarithms of the running variances of batch normalisation to the row (v_GWN)."""
    residual: Residual = "none"
    """Forecast the change from the last value, or the deviation from the node's average by time of day."""
    linear: bool = False
    """Add a linear map of the node's own history (and unevenness) to the forecast; its weights are part of the row."""
    unevenness: bool = False
    """Add a channel that tells of the hours ahead how far each average by time of day lies off those beside it: the
    fewer days are known, the more of that is chance (residual average)."""
    time_of_day: bool = False
    """Add a channel with the share of the day that has passed."""
    calendar: Calendar = "none"
    """Add sine and cosine of the time of day, and for `week` of the time of week too."""
    channels: int = 32
    """Width: gated convolutions of v_STGCN5, residual path of v_GWN, hidden layers of the perceptron."""
    graph_channels: int = 8
    """Channels after the graph mixing of v_STGCN5."""
    dilation_channels: int = 32
    """Channels of the gated convolutions of v_GWN."""
    skip_channels: int = 32
    """Channels of the skip path of v_GWN."""
    end_channels: int = 32
    """Channels before the last layer of v_GWN."""
    kernel: int = 0
    """Steps under a convolution; 0 takes the model's own, 4 for v_STGCN5 and 2 for v_GWN."""
    blocks: int = 4
    """Blocks of v_GWN; dilations start again at 1 in each."""
    layers: int = 2
    """Layers of each block of v_GWN, dilation doubling from one to the next; residual layers of the perceptron."""
    dropout: float = 0.2
    """Share of values dropped in training (v_GWN behind each graph convolution, the perceptron in each layer)."""

    def __post_init__(self) -> None:
        require_choice(self, "model", "kind", NODE_KINDS)
        require_choice(self, "model", "norm", get_args(Norm))
        require_choice(self, "model", "row", get_args(RowLayout))
        require_choice(self, "model", "residual", get_args(Residual))
        require_choice(self, "model", "calendar", get_args(Calendar))
        sizes = ("history", "horizon", "channels", "graph_channels", "dilation_channels", "skip_channels",
                 "end_channels", "blocks", "layers")  # fmt: skip
        for name in sizes:
            require_option(getattr(self, name) >= 1, "model", name, getattr(self, name), "1 or more")
        require_option(self.kernel >= 0, "model", "kernel", self.kernel, "0 or more")
        require_option(0 <= self.dropout < 1, "model", "dropout", self.dropout, "0 or more and below 1")
        if self.kind == "stgcn":
            shortest = 3 * (self.kernel_size - 1) + 1
            require_option(self.history >= shortest, "model", "history", self.history,
                     f"{shortest} or more for three convolutions over {self.kernel_size} steps")  # fmt: skip
        require_option(not (self.linear and self.row == "legacy"), "model", "linear", True, "false with row legacy")
        fits = not self.unevenness or self.residual == "average"
        require_option(fits, "model", "unevenness", True, "false without residual average: there are no averages")
        if self.append_statistics:
            fits = self.kind == "gwn" and self.norm == "batch"
            require_option(fits, "model", "append_statistics", True, "false: only gwn with norm batch has statistics")

    @property
    def kernel_size(self) -> int:
        """Steps under a convolution."""
        return self.kernel or KERNELS[self.kind]

    @property
    def dilations(self) -> tuple[int, ...]:
        """Dilation of every layer of v_GWN."""
        return tuple(2**layer for _ in range(self.blocks) for layer in range(self.layers))

    @property
    def receptive_field(self) -> int:
        """Steps that v_GWN looks back over."""
        return 1 + (self.kernel_size - 1) * sum(self.dilations)

    @property
    def clock_channels(self) -> int:
        """Channels that the clock adds."""
        return int(self.time_of_day) + CALENDAR_CHANNELS[self.calendar]

    @property
    def added_channels(self) -> int:
        """Channels that are added to those of the data."""
        return self.clock_channels + int(self.unevenness)


@dataclass(frozen=True, kw_only=True)
class NodeTrainingConfig:
    """How the networks of all nodes are trained, each as if it were alone."""

    epochs: int = 100
    """Passes over the training windows."""
    learning_rate: float = 1e-4
    """Of Adam."""
    rates: tuple[float, ...] = ()
    """Learning rates that are tried on the few days of a target instead of that one (`select_on = "tail"`); the one
    that is best at their end is kept. Cities unlike the sources want higher ones."""
    closed_form: bool = False
    """Change nothing but the linear map (`model.linear`) on the few days of a target, by ridge regression: for all
    nodes alike, then for each, as much as helps on days left out; rows that do worse there than none are given up,
    and no more of the daily course is believed than helps. Takes seconds; rate, epochs and batch then count for
    training from scratch alone. With `rates`, it is tried beside these."""
    weight_decay: float = 1e-2
    """Share of each weight that is added to its gradient (L2, not decoupled)."""
    decay: Literal["constant", "cosine"] = "constant"
    """How the learning rate goes on from epoch to epoch: as it is, or along half a cosine down to 0."""
    batch: int = 64
    """Windows per step."""
    drop_last: bool = False
    """Leave out what does not fill a batch, as the original does."""
    group: int = 0
    """Nodes computed at once; 0 takes what suits the device. Changes nothing but the rounding of sums."""
    loss: NodeLoss = "mse"
    """Error that is minimised, in the data's own units."""
    select_on: SelectOn = "val"
    """Part that decides which epoch of each node is kept: the validation part, a tail of the few days, the test part
    (only to repeat the original, which leaks), or none: the last epoch."""
    split: SplitKind = "gpd"
    """How a source's timeline is cut: training on its later part, the same without validation, or forward in time."""
    statistics: Statistics = "train"
    """Steps whose mean and deviation scale the inputs: the training part, or all (only to repeat the original)."""
    average_days: int = 0
    """Days whose average the deviations of a source are from (`residual = "average"`), each day being compared with
    the days after it; 0 takes all other days. As many as are known of a target make its averages as uncertain."""
    shared_epochs: int = 0
    """First epochs in which the nodes of a city learn as one network, each counting in units of its scale; then each
    goes on by itself, and what is peculiar in its row is what is peculiar to it (start shared). Rows that are unlike
    when a training begins, as generated ones are, are moved alike and stay unlike."""
    choose: Literal["each", "together"] = "each"
    """Keep of each node its best epoch, or of all nodes the one that is best for all: what is held back of a few days
    says little about a single node."""
    tail: float = 0.25
    """Share of the few days that is held back for `select_on = "tail"`."""
    start: Literal["shared", "own"] = "shared"
    """First weights: the same for all nodes of all cities, which makes rows comparable, or of each node its own."""
    evaluate_every: int = 5
    """Epochs between evaluations."""
    patience: int = 0
    """Stop after this many evaluations in a row in which no node got better; 0 never stops early."""
    checkpoint_every: int = 200
    """Steps between checkpoints."""
    log_every: int = 20
    """Steps between lines of the log."""

    def __post_init__(self) -> None:
        require_choice(self, "training", "loss", get_args(NodeLoss))
        require_choice(self, "training", "select_on", get_args(SelectOn))
        require_choice(self, "training", "split", get_args(SplitKind))
        require_choice(self, "training", "statistics", get_args(Statistics))
        require_choice(self, "training", "decay", ("constant", "cosine"))
        require_choice(self, "training", "start", ("shared", "own"))
        require_choice(self, "training", "choose", ("each", "together"))
        for name in ("epochs", "batch", "evaluate_every", "checkpoint_every", "log_every"):
            require_option(getattr(self, name) >= 1, "training", name, getattr(self, name), "1 or more")
        for name in ("group", "patience", "weight_decay", "average_days", "shared_epochs"):
            require_option(getattr(self, name) >= 0, "training", name, getattr(self, name), "0 or more")
        require_option(self.learning_rate > 0, "training", "learning_rate", self.learning_rate, "more than 0")
        require_option(
            all(rate > 0 for rate in self.rates), "training", "rates", self.rates, "more than 0, each of them"
        )
        held = not self.rates or self.select_on == "tail"
        require_option(held, "training", "rates", self.rates, "none unless select_on is tail, which chooses among them")
        fits = not self.shared_epochs or self.start == "shared"
        require_option(
            fits, "training", "shared_epochs", self.shared_epochs, "0 with start own: networks differ from the first"
        )
        require_option(0 < self.tail < 1, "training", "tail", self.tail, "a share between 0 and 1")
        if self.select_on == "val" and self.split == "legacy":
            raise UserError("training.select-on: 'val' with split legacy, which has no validation part; expected "
                            "test or last; or another split")  # fmt: skip
