"""SVQ: the short form is the long one, keeps nothing too long, and never holds a weight for every token and code."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from svq.models.configs import QuantizerConfig
from svq.models.sparse import SVQ, Control, first_codebook, perplexity, usage_perplexity

FORMS = [{}, {"hidden_relu": False}, {"nonlinear": False}, {"codebook_size": 5}, {"freeze_codebook": True},
         {"freeze_projection": True}]  # fmt: skip


def _svq(**options):
    torch.manual_seed(1)
    return SVQ(QuantizerConfig(**{"codebook_size": 300, "middle": 12} | options), 6)


def _latent(dtype=torch.float32, frames=2):
    return torch.randn(frames, 6, 5, 7, dtype=dtype, generator=torch.Generator().manual_seed(2))


class _Largest(TorchDispatchMode):
    """Remembers how many values the largest tensor has that is made."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.numel = max([self.numel, *(leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor))])
        return out


@pytest.mark.parametrize("options", FORMS, ids=str)
def test_both_forms_agree_in_outputs_and_gradients(options):
    short = _svq(**options).double()
    long = copy.deepcopy(short)
    results = []
    for svq, form in ((short, SVQ.folded), (long, lambda svq, x: svq.unfolded(x, chunk=13)[0])):
        x = _latent(torch.float64).requires_grad_()
        values = form(svq, x)
        (values * torch.linspace(-1, 2, values.numel(), dtype=torch.float64).view_as(values)).sum().backward()
        results.append([values, x.grad, *(value.grad for value in svq.parameters())])
    for found, expected in zip(*results, strict=True):
        assert (found is None) == (expected is None)
        if found is not None:
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12 * float(expected.detach().abs().max()))
    frozen = {name for name, value in short.named_parameters() if value.grad is None}
    assert frozen == ({"codebook"} if options.get("freeze_codebook") else
                      {"hidden.weight", "hidden.bias", "codes.weight", "codes.bias"}
                      if options.get("freeze_projection") else set())  # fmt: skip


def test_without_its_relu_the_whole_is_one_affine_map():
    svq = _svq(hidden_relu=False).double()
    a, b = _latent(torch.float64), _latent(torch.float64).flip(-1)
    zero = svq(torch.zeros_like(a)).values
    torch.testing.assert_close(
        svq(2 * a - 3 * b).values - zero, 2 * (svq(a).values - zero) - 3 * (svq(b).values - zero)
    )


@pytest.mark.parametrize("codes", [500, 5000])
def test_no_tensor_of_tokens_times_codes_is_made(codes):
    svq, x = _svq(codebook_size=codes), _latent(frames=40).requires_grad_()
    with _Largest() as seen:
        svq(x).values.square().sum().backward()
    tokens = 40 * 5 * 7
    assert seen.numel == max(codes * 12, tokens * 12) < tokens * codes / 10


def test_the_long_form_holds_one_chunk_of_weights_at_a_time():
    svq, x = _svq(out_relu=True), _latent(frames=40).requires_grad_()
    with _Largest() as seen:
        values, _ = svq.unfolded(x, chunk=50)
        values.square().sum().backward()
    assert seen.numel == 50 * 300


@pytest.mark.parametrize("chunk", [1, 7, None])
def test_chunks_change_nothing(chunk):
    svq, x = _svq(out_relu=True).double(), _latent(torch.float64)
    whole = torch.relu(svq.codes(torch.relu(svq.hidden(x.permute(0, 2, 3, 1)))))
    torch.testing.assert_close(svq.unfolded(x, chunk=chunk)[0], (whole @ svq.codebook).permute(0, 3, 1, 2))
    torch.testing.assert_close(torch.cat(list(svq.code_weights(x, chunk=chunk))), whole.reshape(-1, 300))


def test_a_penalty_on_the_weights_is_their_mean_magnitude():
    svq, x = _svq(sparsity=0.5), _latent()
    values, loss, _ = svq(x)
    weights = torch.cat(list(svq.code_weights(x)))
    torch.testing.assert_close(loss, 0.5 * weights.abs().mean())
    torch.testing.assert_close(values, svq.folded(x), rtol=1e-4, atol=1e-4)
    loss.backward()
    assert float(svq.codes.weight.grad.abs().sum()) > 0
    assert svq.codebook.grad is None
    assert float(_svq()(x).loss) == 0.0


def _changed(svq, how):
    with torch.no_grad():
        if how == "in place":
            svq.codes.bias.add_(1.0)
        elif how == "by an averaging library":
            torch._foreach_lerp_([svq.codebook.data], [torch.ones_like(svq.codebook)], 0.5)
        elif how == "by loading":
            svq.load_state_dict({name: value + 1 for name, value in svq.state_dict().items()})
        elif how == "by an optimiser":
            optimiser = torch.optim.Adam(svq.parameters())
            for value in svq.parameters():
                value.grad = torch.ones_like(value)
            optimiser.step()


@pytest.mark.parametrize("how", ["in place", "by an averaging library", "by loading", "by an optimiser"])
def test_what_is_kept_in_evaluation_is_forgotten_when_parameters_change(how):
    svq, x = _svq().eval(), _latent()
    with torch.no_grad():
        first = svq.fold()
        assert svq.fold() is first
        before = svq(x).values
        _changed(svq, how)
        after = svq(x).values
        assert svq.fold() is not first
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, svq.unfolded(x)[0], rtol=1e-4, atol=1e-3)


def test_what_is_kept_in_evaluation_is_not_used_in_training_or_with_gradients():
    svq, x = _svq().eval(), _latent()
    with torch.no_grad():
        kept = svq.fold()
    assert svq.fold() is not kept
    svq(x).values.sum().backward()
    assert float(svq.codes.weight.grad.abs().sum()) > 0
    svq.train()
    with torch.no_grad():
        assert svq.fold() is not svq.fold()
    svq.eval()
    assert svq._kept is None


def test_sums_over_codes_keep_their_digits_under_autocast():
    svq, x = _svq(codebook_size=4000), _latent()
    exact = svq.fold()
    with torch.autocast("cpu", torch.bfloat16):
        rounded, values = svq.fold(), svq(x).values.detach().float()
    assert rounded.matrix.dtype == torch.float32
    assert torch.equal(rounded.matrix, exact.matrix) and torch.equal(rounded.offset, exact.offset)
    torch.testing.assert_close(values, svq(x).values, rtol=0.02, atol=0.02 * float(values.abs().max()))


@pytest.mark.parametrize("init", ["normal", "random", "kaiming", "xavier", "sparse", "trunc", "orthogonal"])
def test_first_codebooks(init):
    torch.manual_seed(0)
    book = first_codebook(2000, 20, init)
    if init == "kaiming":
        assert 0.99 * math.sqrt(6 / 20) < float(book.abs().max()) <= math.sqrt(6 / 20)
    elif init == "xavier":
        bound = math.sqrt(2) * math.sqrt(6 / 2020)
        assert 0.99 * bound < float(book.abs().max()) <= bound
    elif init == "sparse":
        assert [int((column == 0).sum()) for column in book.T] == [1800] * 20
    elif init == "orthogonal":
        torch.testing.assert_close(book.T @ book, torch.eye(20), rtol=0, atol=1e-5)
    else:
        assert float(book.std()) == pytest.approx(0.88 if init == "trunc" else 1.0, abs=0.12)
        assert (float(book.abs().max()) <= 2.0) == (init == "trunc")


def test_usage_is_that_of_all_weights_at_once():
    svq, x = _svq(codebook_size=40), 3 * _latent()
    weights = torch.cat(list(svq.code_weights(x))).double()
    distance = ((weights - weights.mean()) / weights.std()).abs()
    expected = []
    for threshold in (1.0, 2.0):
        share = (distance > threshold).sum(0) / (distance > threshold).sum()
        expected.append(float(torch.exp(-(share * (share + 1e-10).log()).sum())))
    assert usage_perplexity(svq, x, thresholds=(1.0, 2.0), chunk=9) == pytest.approx(expected, rel=1e-6)
    assert 1.0 < expected[1] < 40.0
    assert perplexity(torch.zeros(4)) == 0.0


@pytest.mark.parametrize("options", [{}, {"hidden_relu": False}, {"nonlinear": False}], ids=str)
def test_the_control_can_be_every_svq(options):
    svq = _svq(**options).double()
    control = Control(svq.config, 6).double()
    fold = svq.fold()
    with torch.no_grad():
        if svq.hidden is not None:
            control.hidden.load_state_dict(svq.hidden.state_dict())
        control.out.weight.copy_(fold.matrix)
        control.out.bias.copy_(fold.offset)
    x = _latent(torch.float64)
    values, loss, _ = control(x)
    torch.testing.assert_close(values, svq(x).values, rtol=1e-12, atol=1e-12)
    assert float(loss) == 0.0
