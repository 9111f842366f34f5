"""Sizes and forms: what is refused, and with which words."""

from __future__ import annotations

import subprocess
import sys

import pytest

from stcore.errors import UserError
from svq.models.configs import QuantizerConfig, SimVPConfig, translator_named


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hid_spatial": 0}, "model.hid-spatial: 0; expected 1 or more"),
        ({"hid_spatial": 7}, "model.hid-spatial: 7; expected an even number"),
        ({"depth_spatial": 3}, "model.depth-spatial: 3; expected an even number: layers come in pairs"),
        ({"depth_temporal": 1}, "model.depth-temporal: 1; expected 2 or more"),
        ({"kernel_encoder": 4}, "model.kernel-encoder: 4; expected an odd number"),
        ({"kernel_decoder": 0}, "model.kernel-decoder: 0; expected an odd number"),
        ({"mlp_ratio": 0.0}, "model.mlp-ratio: 0.0; expected more than 0"),
        ({"drop_path": 1.0}, "model.drop-path: 1.0; expected 0 or more and below 1"),
        ({"dropout": -0.1}, "model.dropout: -0.1; expected 0 or more and below 1"),
    ],
)
def test_sizes_that_do_not_fit(options, message):
    with pytest.raises(UserError) as caught:
        SimVPConfig(**options)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"codebook_size": 0}, "quantizer.codebook-size: 0; expected 1 or more"),
        ({"noise_ratio": 1.5}, "quantizer.noise-ratio: 1.5; expected a share from 0 to 1"),
        ({"decay": 1.0}, "quantizer.decay: 1.0; expected between 0 and 1"),
        ({"temperature": 0.0}, "quantizer.temperature: 0.0; expected more than 0"),
        ({"levels": ()}, "quantizer.levels: (); expected 2 or more for each channel"),
        ({"sparsity": -1.0}, "quantizer.sparsity: -1.0; expected 0 or more"),
        ({"kind": "lfq", "codebook_size": 1000}, "quantizer.codebook-size: 1000; expected a power of two for lfq"),
        ({"kind": "vq", "sparsity": 0.1}, "quantizer.sparsity: 0.1 with vq; expected 0: only svq has codes"),
    ],
)
def test_forms_that_do_not_fit(options, message):
    with pytest.raises(UserError) as caught:
        QuantizerConfig(**options)
    assert str(caught.value).startswith(message)


def test_a_small_codebook_narrows_the_perceptron():
    assert QuantizerConfig(codebook_size=10).hidden == 10
    assert QuantizerConfig(codebook_size=1000).hidden == 128


@pytest.mark.parametrize(("name", "known"), [("gSTA", "gsta"), ("Moga", "moganet"), ("MLPMixer", "mlp-mixer"),
                                             ("IncepU", "incepu"), ("mlp-mixer", "mlp-mixer")])  # fmt: skip
def test_translators_by_the_names_of_openstl(name, known):
    assert translator_named(name) == known
    with pytest.raises(UserError, match=r"model.translator: 'era'"):
        translator_named("era")


UNKNOWN = """
import sys
from svq.models import QuantizerConfig, SimVPConfig
for form, options in ((SimVPConfig, {"translator": "lstm"}), (QuantizerConfig, {"kind": "kmeans"}),
                      (QuantizerConfig, {"init": "zeros"})):
    try:
        form(**options)
    except ValueError as error:
        print(error)
print("torch" in sys.modules)
"""


def test_unknown_names_are_refused_without_importing_torch():
    # Tests check types, which would refuse the names first.
    done = subprocess.run([sys.executable, "-c", UNKNOWN], capture_output=True, text=True, check=True)
    *messages, torch_was_imported = done.stdout.splitlines()
    starts = ("model.translator: 'lstm'; expected one of gsta, incepu, tau",
              "quantizer.kind: 'kmeans'; expected one of none, svq, control",
              "quantizer.init: 'zeros'; expected one of normal, kaiming")  # fmt: skip
    assert all(message.startswith(start) for message, start in zip(messages, starts, strict=True))
    assert torch_was_imported == "False"
