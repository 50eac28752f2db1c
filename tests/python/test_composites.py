"""Ops of ATen that are several of the table's (csrc/composites.cpp), and gradients through them, against the
host's result. Where every part has a kernel, nothing may run on the host."""

import copy

import pytest
import torch
import torch.nn.functional as F

import djinn

A = lambda: torch.randn(4, 6)  # noqa: E731
P = lambda: torch.rand(4, 6) + 0.5  # noqa: E731
I = lambda: torch.randint(-5, 6, (4, 6))  # noqa: E731,E741

CASES = [
    ("var_mean", lambda a: torch.var_mean(a, 1), A),
    ("std", lambda a: a.std(0, keepdim=True), A),
    ("std_all", lambda a: a.std(), A),
    ("div_floor", lambda a, b: torch.div(a, b, rounding_mode="floor"), A, P),
    ("pow_of_number", lambda a: 2.0 ** a, A),
    ("pow_of_one", lambda a: 2 ** a.sum(), A),
    ("pow_of_whole", lambda a: 2 ** a.abs(), I),
    ("isneginf", lambda a: torch.isneginf(a.log()), lambda: torch.tensor([0.0, 1.0, float("inf")])),
    ("isposinf", lambda a: torch.isposinf(a), lambda: torch.tensor([0.0, float("-inf"), float("inf")])),
    ("addcmul", lambda a, b, c: torch.addcmul(a, b, c, value=0.5), A, A, A),
    ("addcdiv", lambda a, b, c: torch.addcdiv(a, b, c, value=-2), A, A, P),
    ("addcmul_", lambda a, b, c: a.clone().addcmul_(b, c, value=0.5), A, A, A),
    ("addcdiv_", lambda a, b, c: a.clone().addcdiv_(b, c, value=-2), A, A, P),
    ("lerp", lambda a, b: torch.lerp(a, b, 0.1), A, A),
    ("lerp_far", lambda a, b: torch.lerp(a, b, 0.75), A, A),
    ("lerp_", lambda a, b: a.clone().lerp_(b, 0.1), A, A),
    ("lerp_far_", lambda a, b: a.clone().lerp_(b, 1.0), A, A),
    ("glu", lambda a: F.glu(a), A),
    ("glu_first", lambda a: F.glu(a, 0), A),
    ("roll", lambda a: a.roll(1, 0), A),
    ("roll_two", lambda a: a.roll((-3, 8), (0, 1)), A),
    ("roll_flat", lambda a: a.roll(5), A),
    ("roll_nothing", lambda a: a.roll(4, 0), A),
    ("roll_empty", lambda a: a[:0].roll(2, 0), A),
    ("weight_norm", lambda a, b: torch._weight_norm(a, b[:, :1], 0), A, P),
    ("nll", lambda a, b: F.nll_loss(a, b[:, 0].abs()), A, I),
    ("nll_sum", lambda a, b: F.nll_loss(a, b[:, 0].abs(), reduction="sum"), A, I),
    ("nll_none", lambda a, b: F.nll_loss(a, b[:, 0].abs(), reduction="none"), A, I),
    ("nll_one", lambda a, b: F.nll_loss(a[0], b[0, 0].abs()), A, I),
    ("nll_ignored", lambda a, b: F.nll_loss(a, torch.where(b[:, 0] > 0, b[:, 0], -100)), A,
     lambda: torch.tensor([[3], [-1], [0], [5]])),
    ("nll_weighted", lambda a, b, w: F.nll_loss(a, b[:, 0].abs(), weight=w[0]), A, I, P),
    ("cross_entropy", lambda a, b: F.cross_entropy(a, b[:, 0].abs()), A, I),
]


def close(got, want):
    assert got.device.type == "djinn" and got.shape == want.shape and got.dtype == want.dtype
    torch.testing.assert_close(got.cpu(), want, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("error:.*runs on the host.*:RuntimeWarning")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_composite(mode, case):
    _, function, *makers = case
    operands = [maker() for maker in makers]
    expected = function(*operands)
    given = function(*[operand.to("djinn") for operand in operands])
    for want, got in zip(*[r if isinstance(r, tuple) else (r,) for r in (expected, given)], strict=True):
        close(got, want)


@pytest.mark.filterwarnings("ignore:.*has no kernel.*:RuntimeWarning")
def test_division_towards_zero(mode):
    for a, b in ((A(), P()), (I(), torch.full((4, 6), 2))):
        close(torch.div(a.to("djinn"), b.to("djinn"), rounding_mode="trunc"), torch.div(a, b, rounding_mode="trunc"))


@pytest.mark.filterwarnings("ignore:.*has no kernel.*:RuntimeWarning")
@pytest.mark.parametrize("align", [False, True])
def test_a_line_made_longer(mode, align):
    a = torch.randn(2, 3, 5)
    want = F.interpolate(a, size=9, mode="linear", align_corners=align)
    close(F.interpolate(a.to("djinn"), size=9, mode="linear", align_corners=align), want)


GRADIENTS = [
    ("relu", lambda a: a.relu()),
    ("tanh", lambda a: a.tanh()),
    ("sigmoid", lambda a: a.sigmoid()),
    ("silu", lambda a: F.silu(a)),
    ("gelu", lambda a: F.gelu(a)),
    ("gelu_tanh", lambda a: F.gelu(a, approximate="tanh")),
    ("softmax", lambda a: a.softmax(1)),
    ("log_softmax", lambda a: a.log_softmax(0)),
    ("roll", lambda a: a.roll(1, 1)),
    ("nll", lambda a: F.nll_loss(a, torch.arange(4, device=a.device))),
    ("nll_ignored", lambda a: F.nll_loss(a, torch.tensor([0, -100, 2, 5], device=a.device))),
    ("nll_weighted", lambda a: F.nll_loss(a, torch.arange(4, device=a.device), reduction="sum",
                                          weight=torch.arange(1.0, 7, device=a.device))),
    ("nll_none", lambda a: F.nll_loss(a, torch.arange(4, device=a.device), reduction="none")),
]


@pytest.mark.filterwarnings("error:.*runs on the host.*:RuntimeWarning")
@pytest.mark.parametrize("case", GRADIENTS, ids=lambda case: case[0])
def test_gradient(mode, case):
    a = A().requires_grad_()
    b = a.detach().to("djinn").requires_grad_()
    want = case[1](a)
    got = case[1](b)
    upstream = torch.randn(want.shape)
    want.backward(upstream)
    got.backward(upstream.to("djinn"))
    close(b.grad, a.grad)


@pytest.mark.filterwarnings("ignore:.*has no kernel.*:RuntimeWarning")
@pytest.mark.parametrize("running", [True, False])
def test_batch_norm(mode, running):
    local = torch.nn.BatchNorm2d(3, track_running_stats=running)
    remote = copy.deepcopy(local).to("djinn")
    for training in (True, False, True):
        x = torch.randn(2, 3, 4, 5)
        local.train(training)
        remote.train(training)
        torch.testing.assert_close(remote(x.to("djinn")).cpu(), local(x), rtol=1e-4, atol=1e-5)
    if running:
        torch.testing.assert_close(remote.running_mean.cpu(), local.running_mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(remote.running_var.cpu(), local.running_var, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*has no kernel.*:RuntimeWarning")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_gradient(mode, training, affine):
    local = torch.nn.BatchNorm2d(3, affine=affine).train(training)
    if affine:
        with torch.no_grad():
            local.weight.copy_(torch.rand(3) + 0.5)
    local.running_mean.copy_(torch.randn(3))
    remote = copy.deepcopy(local).to("djinn")
    x, upstream = torch.randn(2, 3, 4, 5).requires_grad_(), torch.randn(2, 3, 4, 5)
    y = x.detach().to("djinn").requires_grad_()
    local(x).backward(upstream)
    remote(y).backward(upstream.to("djinn"))
    torch.testing.assert_close(y.grad.cpu(), x.grad, rtol=1e-4, atol=1e-5)
    for a, b in zip(local.parameters(), remote.parameters()):
        torch.testing.assert_close(b.grad.cpu(), a.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("error:.*runs on the host.*:RuntimeWarning")
@pytest.mark.parametrize("make", [
    lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    lambda p: torch.optim.AdamW(p, lr=0.01, foreach=False),
])
def test_training_stays_on_the_rank(mode, make):
    """Five steps of an MLP: the same losses as on the host, and one program a step from the second on."""
    local = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 5))
    remote = copy.deepcopy(local).to("djinn")
    x, y = torch.randn(8, 6), torch.randint(0, 5, (8,))
    given, labels, losses = x.to("djinn"), y.to("djinn"), []
    for model, inputs, targets in ((local, x, y), (remote, given, labels)):
        optimizer = make(model.parameters())
        for _ in range(5):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs), targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert max(abs(a - b) for a, b in zip(losses[:5], losses[5:])) < 1e-4
    for a, b in zip(local.parameters(), remote.parameters()):
        torch.testing.assert_close(b.detach().cpu(), a.detach(), rtol=1e-4, atol=1e-5)
    assert losses[9] < losses[5]
    if mode != "local":
        assert djinn.stats()["plan_misses"] > 0
