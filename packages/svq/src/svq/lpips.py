"""LPIPS with AlexNet: how different two pictures look, from the features of a network trained on photographs.

The weights are not ours to give: the file is what the package `lpips` (Zhang et al., BSD) saves of `LPIPS(net="alex")`,
`torch.save(lpips.LPIPS(net="alex").state_dict(), FILE)`. Grey pictures are taken as three equal channels.

Source: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018; features of
Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from stcore.errors import UserError
from stcore.training.foreign import read_torch_file, tensors_of

_LAYERS = ("slice1.0", "slice2.3", "slice3.6", "slice4.8", "slice5.10")
"""Convolutions, as `lpips` names them."""
_SETTINGS = ({"stride": 4, "padding": 2}, {"padding": 2}, {"padding": 1}, {"padding": 1}, {"padding": 1})
_POOLED = (False, True, True, False, False)
"""Layers whose input is pooled first."""
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
SMALLEST = 31
"""Side of the smallest picture that AlexNet takes."""


class Lpips:
    """The distance.

    Args:
        state: weights under the names of the package `lpips`.

    Raises:
        UserError: a weight is missing.
    """

    def __init__(self, state: Mapping[str, Tensor], *, where: str = "lpips") -> None:
        wanted = [f"net.{layer}.{kind}" for layer in _LAYERS for kind in ("weight", "bias")]
        wanted += [f"lin{at}.model.1.weight" for at in range(len(_LAYERS))]
        if missing := [name for name in wanted if name not in state]:
            raise UserError(f"{where}: no {missing[0]}; expected the weights of lpips.LPIPS(net='alex')")
        self._state = {name: state[name].float() for name in wanted}

    @classmethod
    def load(cls, path: Path) -> Lpips:
        """Read the weights.

        Raises:
            UserError: no such file, or other weights.
        """
        return cls(tensors_of(read_torch_file(path), path), where=str(path))

    def distance(
        self, first: Float[Tensor, "frame channel height width"], second: Float[Tensor, "frame channel height width"]
    ) -> Float[Tensor, "frame"]:
        """Return the distance of pictures on the scale [0, 1], of one channel or three.

        Raises:
            UserError: pictures are too small, or have another number of channels.
        """
        if first.shape[1] not in (1, 3) or min(first.shape[-2:]) < SMALLEST:
            raise UserError(f"lpips: frames {tuple(first.shape[1:])}; expected 1 or 3 channels and sides of at least "
                            f"{SMALLEST}")  # fmt: skip
        with torch.no_grad():
            pairs = zip(self._features(first), self._features(second), strict=True)
            return torch.stack([self._part(at, a, b) for at, (a, b) in enumerate(pairs)]).sum(0)

    def _part(self, at: int, a: Tensor, b: Tensor) -> Float[Tensor, "frame"]:
        off = (_unit(a) - _unit(b)).square()
        return F.conv2d(off, self._state[f"lin{at}.model.1.weight"]).mean((1, 2, 3))

    def _features(self, pictures: Tensor) -> Iterator[Tensor]:
        shift, scale = (pictures.new_tensor(values)[:, None, None] for values in (_SHIFT, _SCALE))
        x = ((2.0 * pictures - 1.0).expand(-1, 3, -1, -1) - shift) / scale
        for layer, settings, pooled in zip(_LAYERS, _SETTINGS, _POOLED, strict=True):
            x = F.max_pool2d(x, 3, 2) if pooled else x
            weight, bias = self._state[f"net.{layer}.weight"], self._state[f"net.{layer}.bias"]
            x = F.relu(F.conv2d(x, weight, bias, **settings))
            yield x


def _unit(features: Tensor) -> Tensor:
    return features / (features.square().sum(1, keepdim=True).sqrt() + 1e-10)
