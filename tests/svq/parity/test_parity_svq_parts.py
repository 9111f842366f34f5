"""Parts of the original against ours: SVQ, encoder and decoder, translators, other quantisers, noise, schedules."""

from __future__ import annotations

import pytest
import torch
from einops import rearrange
from svq_recordings import Recording, of_kind, open_recording
from svq_reference import gradients, load_part, quantizer_config, simvp_config

from svq.convert import to_ours
from svq.models.coder import Decoder, Encoder
from svq.models.noise import multiply
from svq.models.simvp import make_quantizer
from svq.models.sparse import SVQ, usage_perplexity
from svq.models.translator import make_translator
from svq.schedules import cosine, one_cycle

INNER = "vq.vq."


def _svq(recording: Recording) -> SVQ:
    config = recording.config
    quantizer = SVQ(quantizer_config("svq", config), config["input_dim"])
    load_part(quantizer, recording.weights(), before=INNER, ours="quantizer.")
    return quantizer.eval()


@pytest.mark.parametrize("form", ["folded", "unfolded"])
@pytest.mark.parametrize("name", of_kind("svq_module"))
def test_svq_and_its_gradients(name, form):
    recording = open_recording(name)
    quantizer = _svq(recording)
    x = recording.input("in/x").clone().requires_grad_()
    if form == "folded":
        if not quantizer.folds:
            assert recording.config["out_relu"]
            return
        values = quantizer.folded(x)
    else:
        values, _ = quantizer.unfolded(x, chunk=7)
    recording.check("out/quantized", values)
    (values * recording.input("in/cotangent")).sum().backward()
    assert x.grad is not None
    recording.check("grad/x", x.grad)
    # Layers are named by what else there is, so gradients are renamed together with the weights.
    expected = {key.removeprefix("grad/"): key for key in recording.under("grad/") if key != "grad/x"}
    everything = {INNER + name: torch.zeros(0) for name in recording.weights()}
    ours = dict(zip(everything, to_ours(everything).state, strict=True))
    found = {f"quantizer.{name}": value for name, value in gradients(quantizer).items()}
    assert found.keys() == {ours[INNER + theirs] for theirs in expected}
    for theirs, key in expected.items():
        recording.check(key, found[ours[INNER + theirs]])


@pytest.mark.parametrize("name", of_kind("svq_module"))
def test_code_weights_and_their_perplexity(name):
    recording = open_recording(name)
    quantizer = _svq(recording)
    x = recording.input("in/x")
    weights = torch.cat(list(quantizer.code_weights(x, chunk=5)))
    recording.check("out/code_weight", rearrange(weights, "(frame token) codes -> frame token codes", frame=len(x)))
    two, three = usage_perplexity(quantizer, x, chunk=5)
    recording.check("out/perp_2", torch.tensor([two]))
    recording.check("out/perp_3", torch.tensor([three]))


@pytest.mark.parametrize("name", of_kind("encoder_decoder"))
def test_encoder_and_decoder(name):
    recording = open_recording(name)
    config = recording.config
    sizes = config["in_channels"], config["hid_S"], config["N_S"]
    state = to_ours(recording.weights()).state
    encoder, decoder = Encoder(*sizes, config["spatio_kernel_enc"]), Decoder(*sizes, config["spatio_kernel_dec"])
    for part, module in (("encoder.", encoder), ("decoder.", decoder)):
        module.load_state_dict({k.removeprefix(part): v for k, v in state.items() if k.startswith(part)})
    x = recording.input("in/x")
    latent, skip = encoder(x)
    recording.check("out/latent", latent)
    recording.check("out/skip0", skip)
    assert len(recording.under("out/skip")) == config["N_S"]
    for i, layer in enumerate(encoder.layers):
        x = layer(x)
        recording.check(f"out/skip{i}", x)
    recording.check("out/y", decoder(recording.input("in/hid"), skip))


@pytest.mark.parametrize("name", of_kind("translator"))
def test_translators(name):
    recording = open_recording(name)
    config = recording.config
    made = make_translator(simvp_config(config), config["T"] * config["hid_S"], config["height"], config["width"])
    load_part(made, recording.weights(), before="hid.", ours="translator.")
    x = recording.input("in/x").clone().requires_grad_()
    y = made.eval()(rearrange(x, "batch time latent ... -> batch (time latent) ..."))
    y = rearrange(y, "batch (time latent) ... -> batch time latent ...", time=config["T"])
    recording.check("out/y", y)
    (y * recording.input("in/cotangent")).sum().backward()
    assert x.grad is not None
    recording.check("grad/x", x.grad)


@pytest.mark.parametrize("name", of_kind("quantizer"))
def test_quantisers_of_the_comparison(name):
    recording = open_recording(name)
    x = recording.input("in/x")
    quantizer = make_quantizer(quantizer_config(recording.config["vq_type"], recording.config["vq_kwargs"]), x.shape[1])
    load_part(quantizer, recording.weights(), before="vq.", ours="quantizer.")
    with torch.no_grad():
        values, loss, indices = quantizer.eval()(x)
    recording.check("out/quantized", values)
    recording.check("out/loss", loss.reshape(1))
    assert torch.equal(indices.long(), recording.expect("out/indices"))


@pytest.mark.parametrize("name", of_kind("noise"))
def test_noise(name):
    recording = open_recording(name)
    x, noise, permutation = (recording.input(f"in/{key}") for key in ("x", "noise", "permutation"))
    assert len(noise) == int(recording.config["noise"] * x.numel())
    recording.check("out/x", multiply(x, noise, permutation))


@pytest.mark.parametrize("name", of_kind("schedule"))
def test_schedules(name):
    recording = open_recording(name)
    config = recording.config
    for key in recording.under("out/cosine_"):
        epochs, lr, warmup = recording.input(f"in/{key.removeprefix('out/')}_epochs_lr_warmup").tolist()
        rates = [cosine(epoch, lr=lr, epochs=int(epochs), warmup_epochs=int(warmup), warmup_lr=config["warmup_lr"],
                        min_lr=config["min_lr"], k_decay=config["k_decay"])
                 for epoch in range(len(recording.expect(key)))]  # fmt: skip
        recording.check(key, torch.tensor(rates, dtype=torch.float64))
    steps, lr = recording.input("in/onecycle_steps_lr").tolist()
    course = [one_cycle(step, max_lr=lr, total_steps=int(steps), final_divisor=config["final_div_factor"])
              for step in range(len(recording.expect("out/onecycle")))]  # fmt: skip
    recording.check("out/onecycle", torch.tensor([each.lr for each in course], dtype=torch.float64))
    recording.check("out/onecycle_beta1", torch.tensor([each.beta1 for each in course], dtype=torch.float64))
