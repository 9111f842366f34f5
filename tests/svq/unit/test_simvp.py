"""SimVP: frames of any size, rollouts, noise, the place of the quantiser, borders that meet."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stcore.errors import UserError
from svq.models import FrameShape, QuantizerConfig, SimVPConfig, build
from svq.models.configs import TRANSLATORS
from svq.models.noise import inject_noise
from svq.models.periodic import wrap
from svq.models.sparse import Quantized
from svq.models.tokens import swin_window
from svq.models.translator import drop_path_rates

SMALL = {"hid_spatial": 8, "hid_temporal": 16, "depth_spatial": 2, "depth_temporal": 2, "mlp_ratio": 2.0}
SVQ = QuantizerConfig(codebook_size=20, middle=8)
PLAIN = QuantizerConfig(kind="none")
FRAME = FrameShape(2, 8, 12)


def _model(quantizer=PLAIN, frame=FRAME, history=2, **options):
    torch.manual_seed(3)
    model = build(SimVPConfig(**SMALL | options), quantizer, frame, history).eval()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.uniform_(-0.5, 0.5)
    return model


def _frames(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("translator", TRANSLATORS)
def test_frames_of_any_size(translator):
    frame = FrameShape(2, 11, 13)
    model = _model(SVQ, frame, translator=translator, depth_spatial=4)
    x = _frames(2, 2, *frame)
    with torch.no_grad():
        future = model(x)
        height, width = model.padded(11, 13)
        padded = nn.functional.pad(x.flatten(0, 1), (0, width - 13, 0, height - 11), mode="replicate")
        expected = model(padded.view(2, 2, 2, height, width))[..., :11, :13]
    assert future.shape == x.shape
    assert height % 4 == 0 and width % 4 == 0 and height < 11 + 4 * model.window and width < 13 + 4 * model.window
    torch.testing.assert_close(future, expected, rtol=0, atol=0)


@pytest.mark.parametrize("translator", [name for name in TRANSLATORS if name != "mlp-mixer"])
def test_other_sizes_than_it_was_built_for(translator):
    model = _model(translator=translator)
    with torch.no_grad():
        assert model(_frames(1, 2, 2, 7, 18)).shape == (1, 2, 2, 7, 18)


@pytest.mark.parametrize("horizon", [1, 2, 3, 5])
def test_a_rollout_feeds_forecasts_back(horizon):
    model = _model(SVQ)
    x = _frames(2, 2, 2, 8, 12)
    with torch.no_grad():
        first = model(x)
        second = model(first)
        third = model(second)
        future = model(x, horizon)
    torch.testing.assert_close(future, torch.cat([first, second, third], 1)[:, :horizon], rtol=0, atol=0)


def test_gradients_pass_through_the_whole_rollout():
    model = _model(SVQ)
    x = _frames(1, 2, 2, 8, 12).requires_grad_()
    model(x, 4)[:, 2:].sum().backward()
    assert float(x.grad.abs().sum()) > 0


class _Counting(nn.Module):
    """A quantiser whose loss is the number of its calls."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, latent):
        self.calls += 1
        return Quantized(latent, torch.tensor(float(self.calls)))


@pytest.mark.parametrize(("horizon", "mean"), [(1, 1.0), (2, 1.0), (3, 1.5), (6, 2.0)])
def test_the_auxiliary_loss_is_the_mean_over_all_passes(horizon, mean):
    model = _model()
    model.quantizer = _Counting()
    future, auxiliary = model.loss_terms(_frames(1, 2, 2, 8, 12), horizon)
    assert (future.shape[1], float(auxiliary)) == (horizon, mean)


def test_a_damped_residual_adds_a_share_of_the_last_frame_to_each_lead():
    model, plain = _model(residual="damped"), _model()
    assert model.shares is not None and not model(_frames(1, 2, 2, 8, 12) * 0.0).any()
    torch.nn.init.normal_(model.decoder.readout.weight)
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if name != "shares"})
    x = _frames(1, 2, 2, 8, 12)
    with torch.no_grad():
        added = model(x) - plain(x)
        torch.testing.assert_close(added, torch.stack([0.9 * x[:, -1], 0.81 * x[:, -1]], dim=1), atol=1e-5, rtol=1e-4)
        model.shares[1, 0] = 0.0
        assert torch.equal(model(x)[:, 1, 0], plain(x)[:, 1, 0])


@pytest.mark.parametrize("post", [False, True])
def test_the_quantiser_stands_before_or_behind_the_translator(post):
    model = _model(QuantizerConfig(codebook_size=20, middle=8, post=post))
    x = _frames(1, 2, 2, 8, 12)
    with torch.no_grad():
        latent, skip = model.encoder(x[0])
        merged = lambda maps: model.translator(maps.reshape(1, 16, 4, 6)).reshape(2, 8, 4, 6)  # noqa: E731
        given = merged(latent) if post else latent
        torch.testing.assert_close(model.encode(x), given)
        values = model.quantizer(given).values
        expected = model.decoder(values if post else merged(values), skip)
        torch.testing.assert_close(model(x)[0], expected)
    assert [part.shape for part in model.code_weights(given, 30)] == [(30, 20), (18, 20)]


def test_noise_multiplies_a_share_of_the_values_by_numbers_between_minus_two_and_two():
    x = torch.ones(4, 5, 6)
    noisy = inject_noise(x, 0.3, torch.Generator().manual_seed(0))
    changed = noisy[noisy != 1.0]
    assert len(changed) == 36
    assert float(changed.min()) < -1.5 and float(changed.max()) > 1.5 and float(changed.abs().max()) <= 2.0
    assert torch.equal(noisy, inject_noise(x, 0.3, torch.Generator().manual_seed(0)))
    assert not torch.equal(noisy, inject_noise(x, 0.3, torch.Generator().manual_seed(1)))


def test_noise_is_for_training_only_and_comes_from_the_generator():
    model = _model(QuantizerConfig(kind="none", noise_ratio=0.5), translator="convnext")
    x = _frames(1, 2, 2, 8, 12)
    clean = model(x)
    torch.testing.assert_close(clean, model.loss_terms(x, generator=torch.Generator().manual_seed(0)).future)
    model.train()
    noisy = [model.loss_terms(x, generator=torch.Generator().manual_seed(seed)).future for seed in (0, 0, 1)]
    assert torch.equal(noisy[0], noisy[1])
    assert not torch.allclose(noisy[0], noisy[2])
    assert not torch.allclose(noisy[0], clean)


@pytest.mark.parametrize("translator", ["gsta", "incepu", "convmixer", "convnext", "moganet", "poolformer", "hornet"])
def test_a_globe_may_be_cut_at_any_longitude(translator):
    model = _model(SVQ, translator=translator, periodic_longitude=True)
    x = _frames(1, 2, 2, 8, 12)
    with torch.no_grad():
        turned = model(x.roll(4, -1))
        torch.testing.assert_close(turned, model(x).roll(4, -1), rtol=1e-4, atol=1e-5)
        flat = _model(SVQ, translator=translator)
        assert not torch.allclose(flat(x.roll(4, -1)), flat(x).roll(4, -1), rtol=1e-3, atol=1e-3)


def test_columns_are_wrapped_further_than_once_around():
    x = torch.arange(3.0).view(1, 1, 1, 3)
    assert wrap(x, 2).flatten().tolist() == [1, 2, 0, 1, 2, 0, 1]
    assert wrap(x, 4).flatten().tolist() == [2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0]


def test_stochastic_depth_rises_to_its_rate():
    rates = lambda **options: drop_path_rates(SimVPConfig(depth_temporal=3, **options))  # noqa: E731
    assert rates(drop_path=0.2) == pytest.approx([0.0, 0.1, 0.2])
    assert rates(drop_path=0.2, legacy_drop_path=True) == pytest.approx([0.01, 0.105, 0.2])
    assert rates(legacy_drop_path=True) == pytest.approx([0.01, 0.005, 0.0])
    assert rates() == [0.0, 0.0, 0.0]


def test_windows_of_swin():
    assert [swin_window(rows) for rows in (7, 8, 10, 28, 64, 112, 128)] == [7, 4, 4, 7, 4, 7, 8]
    model = _model(translator="swin", frame=FrameShape(2, 32, 40), depth_temporal=3)
    assert [stage.block.shift for stage in model.translator.stages] == [0, 2, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"translator": "vit", "hid_temporal": 12}, "model: vit on 12 channels; expected multiples of 8"),
        ({"translator": "hornet", "hid_spatial": 6}, "model: hornet on 12 channels; expected multiples of 8"),
        ({"translator": "incepu", "hid_spatial": 6}, "model: incepu with 8 groups on 12 channels; expected multiples"),
        ({"periodic_longitude": True, "depth_spatial": 6}, "model.periodic-longitude: 12 columns; expected a multiple "
                                                           "of 8"),
        ({"history": 0}, "model: 0 frames of (2, 8, 12); expected 1 or more of each"),
    ],
)  # fmt: skip
def test_sizes_that_do_not_fit_one_another(options, message):
    with pytest.raises(UserError) as caught:
        _model(**options)
    assert str(caught.value).startswith(message)


def test_frames_that_do_not_fit_the_model():
    model = _model(translator="mlp-mixer")
    for shape, message in (((1, 3, 2, 8, 12), "history: 3 frames of 2 channels; expected 2 of 2"),
                           ((1, 2, 1, 8, 12), "history: 2 frames of 1 channels; expected 2 of 2"),
                           ((1, 2, 2, 8, 16), "history: 8 × 16 cells; expected 8 × 12")):  # fmt: skip
        with pytest.raises(UserError) as caught:
            model(_frames(*shape))
        assert str(caught.value).startswith(message)
    with pytest.raises(UserError, match=r"quantizer.kind: none; expected svq"):
        model.code_weights(_frames(2, 8, 4, 6))


@pytest.mark.parametrize("translator", TRANSLATORS)
def test_first_weights_of_blocks(translator):
    model = _model(translator=translator, hid_temporal=32, mlp_ratio=8.0)
    if translator == "incepu":
        return
    for name, value in model.translator.stages[1].block.named_parameters():
        if name.endswith("bias"):
            assert float(value.detach().abs().max()) == 0.0, name
        if value.ndim == 4 and value.shape[0] > 1 and value.numel() > 1000 and translator != "poolformer":
            # Depthwise kernels are those of one group per channel.
            groups = value.shape[0] if value.shape[1] == 1 else 1
            expected = (2.0 / (value[0, 0].numel() * value.shape[0] / groups)) ** 0.5
            assert float(value.detach().std()) == pytest.approx(expected, rel=0.1), name
        elif value.ndim == 2 and value.numel() > 1000:
            assert float(value.detach().std()) == pytest.approx(0.02, rel=0.1), name
