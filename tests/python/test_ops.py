"""Every op of the table through PyTorch's own front door, against the host's result."""

import pytest
import torch
import torch.nn.functional as F

import djinn

A = lambda: torch.randn(4, 6)  # noqa: E731
P = lambda: torch.rand(4, 6) + 0.5  # noqa: E731
I = lambda: torch.randint(-5, 6, (4, 6))  # noqa: E731,E741
B = lambda: torch.rand(4, 6) > 0.5  # noqa: E731

# (name, function of the operands, makers of the operands)
CASES = [
    ("add", lambda a, b: a + b, A, A),
    ("add_alpha", lambda a, b: torch.add(a, b, alpha=0.5), A, A),
    ("add_scalar", lambda a: a + 3, A),
    ("add_broadcast", lambda a, b: a + b[:, :1], A, A),
    ("add_int_float", lambda a, b: a + b, I, A),
    ("add_int_real_scalar", lambda a: a + 1.5, I),
    ("sub", lambda a, b: a - b, A, A),
    ("rsub", lambda a: 1 - a, A),
    ("mul", lambda a, b: a * b, A, A),
    ("mul_int", lambda a, b: a * b, I, I),
    ("mul_bool", lambda a, b: a * b, B, B),
    ("div", lambda a, b: a / b, A, P),
    ("div_int", lambda a: a / 2, I),
    ("floor_divide", lambda a: a // 2, I),
    ("remainder", lambda a: a % 3, I),
    ("pow_scalar", lambda a: a ** 3, A),
    ("pow", lambda a, b: a ** b, P, A),
    ("neg", lambda a: -a, A),
    ("abs", lambda a: a.abs(), A),
    ("maximum", lambda a, b: torch.maximum(a, b), A, A),
    ("minimum", lambda a, b: torch.minimum(a, b), I, I),
    ("clamp", lambda a: a.clamp(-0.5, 0.5), A),
    ("clamp_min", lambda a: a.clamp_min(0.1), A),
    ("clamp_max", lambda a: a.clamp(max=0.1), A),
    ("exp", lambda a: a.exp(), A),
    ("log", lambda a: a.log(), P),
    ("sqrt", lambda a: a.sqrt(), P),
    ("rsqrt", lambda a: a.rsqrt(), P),
    ("reciprocal", lambda a: a.reciprocal(), P),
    ("sin", lambda a: a.sin(), A),
    ("cos", lambda a: a.cos(), A),
    ("tanh", lambda a: a.tanh(), A),
    ("erf", lambda a: a.erf(), A),
    ("sigmoid", lambda a: a.sigmoid(), A),
    ("relu", lambda a: a.relu(), A),
    ("silu", lambda a: F.silu(a), A),
    ("gelu", lambda a: F.gelu(a), A),
    ("gelu_tanh", lambda a: F.gelu(a, approximate="tanh"), A),
    ("eq", lambda a, b: a == b, I, I),
    ("ne_scalar", lambda a: a != 2, I),
    ("lt", lambda a, b: a < b, A, A),
    ("le", lambda a, b: a <= b, I, I),
    ("gt_scalar", lambda a: a > 0, A),
    ("ge", lambda a, b: a >= b, A, A),
    ("isnan", lambda a: (a.log()).isnan(), A),
    ("logical_not", lambda a: a.logical_not(), I),
    ("logical_and", lambda a, b: torch.logical_and(a, b), I, B),
    ("logical_or", lambda a, b: torch.logical_or(a, b), B, I),
    ("bitwise_not", lambda a: ~a, B),
    ("bitwise_and", lambda a, b: a & b, B, B),
    ("bitwise_or", lambda a, b: a | b, I, I),
    ("bitwise_xor", lambda a, b: a ^ b, I, I),
    ("where", lambda c, a, b: torch.where(c, a, b), B, A, A),
    ("where_scalar", lambda c, a: torch.where(c, a, 0.0), B, A),
    ("masked_fill", lambda a, c: a.masked_fill(c, -1.0), A, B),
    ("to_float", lambda a: a.to(torch.float32), I),
    ("to_int", lambda a: (a * 10).to(torch.int64), A),
    ("to_bool", lambda a: a.bool(), I),
    ("clone_transposed", lambda a: a.t().clone(), A),
    ("contiguous", lambda a: a.t().contiguous(), A),
    ("sum", lambda a: a.sum(), A),
    ("sum_dim", lambda a: a.sum(1, keepdim=True), A),
    ("sum_bool", lambda a: a.sum(0), B),
    ("mean", lambda a: a.mean(), A),
    ("mean_dim", lambda a: a.mean((0, 1)), A),
    ("amax", lambda a: a.amax(1), A),
    ("amin", lambda a: a.amin(0, keepdim=True), A),
    ("max", lambda a: a.max(), A),
    ("min", lambda a: a.min(), I),
    ("max_dim", lambda a: a.max(1), A),
    ("min_dim", lambda a: a.min(0), A),
    ("any", lambda a: a.any(), B),
    ("any_dim", lambda a: a.any(1), B),
    ("all", lambda a: a.all(), B),
    ("all_dim", lambda a: a.all(0, keepdim=True), B),
    ("prod", lambda a: a.prod(1), P),
    ("norm", lambda a: torch.linalg.vector_norm(a, dim=1, keepdim=True), A),
    ("normalize", lambda a: F.normalize(a, dim=1), A),
    ("argmax", lambda a: a.argmax(), A),
    ("argmax_dim", lambda a: a.argmax(1), A),
    ("argmin_dim", lambda a: a.argmin(0, keepdim=True), A),
    ("cumsum", lambda a: a.cumsum(1), A),
    ("cumsum_int", lambda a: a.cumsum(0), I),
    ("var", lambda a: a.var(1), A),
    ("mm", lambda a, b: a @ b.t(), A, A),
    ("addmm", lambda a, b: torch.addmm(b[:, :4], a, b.t(), beta=0.5, alpha=2), A, A),
    ("bmm", lambda a, b: torch.bmm(a[None], b.t()[None]), A, A),
    ("baddbmm", lambda a, b: torch.baddbmm(a[None, :, :4], a[None], b.t()[None]), A, A),
    ("matmul_batched", lambda a, b: a.expand(3, 4, 6) @ b.t(), A, A),
    ("linear", lambda a, b: F.linear(a, b), A, A),
    ("linear_bias", lambda a, b: F.linear(a, b, b[:, 0]), A, A),
    ("layer_norm", lambda a, b: F.layer_norm(a, (6,), b[0], b[1]), A, A),
    ("layer_norm_plain", lambda a: F.layer_norm(a, (6,)), A),
    ("softmax", lambda a: a.softmax(1), A),
    ("softmax_0", lambda a: a.softmax(0), A),
    ("log_softmax", lambda a: a.log_softmax(1), A),
    ("embedding", lambda a, b: F.embedding(b.abs() % 4, a), A, I),
    ("index_select", lambda a: a.index_select(1, torch.tensor([5, 0], device=a.device)), A),
    ("gather", lambda a, b: a.gather(1, b.abs()), A, I),
    ("index", lambda a, b: a[b[:, 0].abs() % 4], A, I),
    ("index_two", lambda a: a[torch.tensor([[0], [3]], device=a.device),
                              torch.tensor([1, 2], device=a.device)], A),
    ("index_host", lambda a: a[torch.tensor([0, 2])], A),
    ("index_mask", lambda a, c: a[c], A, B),
    ("index_mask_rows", lambda a, c: a[c[:, 0]], A, B),
    ("index_put_mask", lambda a, c: a.clone().index_put_((c,), torch.zeros((), device=a.device)), A, B),
    ("scatter", lambda a, b: a.scatter(1, b.abs(), 1.0), A, lambda: torch.randint(0, 6, (4, 1))),
    ("cat", lambda a, b: torch.cat([a, b, a[:1]]), A, A),
    ("cat_1", lambda a, b: torch.cat([a, b], 1), A, A),
    ("stack", lambda a, b: torch.stack([a, b], 1), A, A),
    ("tril", lambda a: a.tril(), A),
    ("triu", lambda a: a.triu(1), A),
    ("isin", lambda a: torch.isin(a, torch.tensor([1, 2], device=a.device)), I),
    ("topk", lambda a: a.topk(3), A),
    ("repeat", lambda a: a.repeat(2, 1, 3), A),
    ("flip", lambda a: a.flip(1), A),
    ("ones_like", lambda a: torch.ones_like(a) + a, A),
    ("new_full", lambda a: a.new_full((2, 3), 7), I),
    ("rank_0", lambda a: a.sum() * a.max(), A),
    ("empty_tensor", lambda a: torch.cat([a[:0], a]), A),
]


@pytest.mark.filterwarnings("error:.*djinn's table.*:RuntimeWarning")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_op(mode, case):
    name, function, *makers = case
    operands = [maker() for maker in makers]
    expected = function(*operands)
    given = function(*[operand.to("djinn") for operand in operands])
    for want, got in zip(*[r if isinstance(r, tuple) else (r,) for r in (expected, given)]):
        assert got.device.type == "djinn"
        assert got.shape == want.shape and got.dtype == want.dtype
        torch.testing.assert_close(got.cpu(), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", [None, "bool", "float"])
def test_attention(mode, causal, mask):
    if causal and mask:
        pytest.skip("PyTorch itself refuses a mask beside is_causal")
    q, k, v = torch.randn(3, 2, 4, 5, 8)
    given = {"bool": torch.rand(2, 1, 5, 5) > 0.3, "float": torch.randn(2, 1, 5, 5), None: None}[mask]
    if mask == "bool":
        given[..., 0] = True
    want = F.scaled_dot_product_attention(q, k, v, attn_mask=given, is_causal=causal)
    before = djinn.stats()["ops"]
    got = F.scaled_dot_product_attention(
        q.to("djinn"), k.to("djinn"), v.to("djinn"),
        attn_mask=None if given is None else given.to("djinn"), is_causal=causal)
    assert djinn.stats()["ops"] == before + 1
    torch.testing.assert_close(got.cpu(), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shared", [(2, 1), (1, 4), (1, 1)])
def test_attention_with_shared_keys(mode, shared):
    """Multi-query: one head of keys and values for all heads of queries, without enable_gqa."""
    q, k, v = torch.randn(2, 4, 5, 8), torch.randn(*shared, 7, 8), torch.randn(*shared, 7, 8)
    want = F.scaled_dot_product_attention(q, k, v)
    got = F.scaled_dot_product_attention(q.to("djinn"), k.to("djinn"), v.to("djinn"))
    torch.testing.assert_close(got.cpu(), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [
    lambda d: torch.ones(3, 4, device=d), lambda d: torch.zeros(3, 4, dtype=torch.int64, device=d),
    lambda d: torch.full((2, 2), 1.5, device=d), lambda d: torch.arange(7, device=d),
    lambda d: torch.arange(1, 2, 0.25, device=d), lambda d: torch.arange(5, 0, -2, device=d),
    lambda d: torch.scalar_tensor(2.0, device=d), lambda d: torch.full((), True, device=d),
])
def test_creation_is_one_op(mode, make):
    before = djinn.stats()["ops"]
    made = make("djinn")
    assert djinn.stats()["ops"] == before + 1
    want = make("cpu")
    assert made.dtype == want.dtype
    assert torch.equal(made.cpu(), want)


def test_linear_is_one_op(mode):
    x, w, b = (torch.randn(*s).to("djinn") for s in ((2, 3, 8), (4, 8), (4,)))
    before = djinn.stats()["ops"]
    F.linear(x, w, b)
    assert djinn.stats()["ops"] == before + 1


def test_unknown_op_runs_on_the_host_with_one_warning(mode):
    name = {"local": "hypot", "local_remote": "copysign", "remote": "nextafter"}[mode]  # one warning a process
    function, x = getattr(torch, name), torch.randn(3, 3)
    remote = x.to("djinn")
    with pytest.warns(RuntimeWarning, match=f"aten::{name}") as caught:
        got = function(function(remote, remote), remote)
    assert len(caught) == 1 and got.device.type == "djinn"
    torch.testing.assert_close(got.cpu(), function(function(x, x), x))


def test_in_place_keeps_the_category(mode):
    with pytest.raises(RuntimeError, match="can't be cast"):
        torch.ones(3, dtype=torch.int64, device="djinn").add_(1.5)


def test_convolution_runs_on_the_host(mode):
    x, w = torch.randn(1, 3, 8, 8), torch.randn(4, 3, 3, 3)
    got = F.conv2d(x.to("djinn"), w.to("djinn"))
    torch.testing.assert_close(got.cpu(), F.conv2d(x, w))


def test_random_numbers_follow_the_seed(mode):
    torch.manual_seed(3)
    want = torch.randn(4)
    torch.manual_seed(3)
    assert torch.equal(torch.randn(4, device="djinn").cpu(), want)


def test_autograd_through_linear(mode):
    x, w = torch.randn(2, 4), torch.randn(3, 4, requires_grad=True)
    F.linear(x, w).relu().sum().backward()
    remote = w.detach().to("djinn").requires_grad_()
    F.linear(x.to("djinn"), remote).relu().sum().backward()
    torch.testing.assert_close(remote.grad.cpu(), w.grad)
