"""Views alias, writes through them are seen everywhere, and neither copies."""

import copy
import pickle

import pytest
import torch

import djinn

STEPS = [
    ("row", lambda x: x[1].fill_(7)),
    ("column", lambda x: x[:, 2].add_(1)),
    ("transposed", lambda x: x.t().mul_(2)),
    ("reshaped", lambda x: x.view(2, 12)[1].zero_()),
    ("strided", lambda x: x[::2, 1::2].sub_(3)),
    ("chain", lambda x: x.view(2, 2, 6).transpose(0, 1)[1].relu_()),
    ("self_copy", lambda x: x[0].copy_(x[3])),
    ("from_host", lambda x: x[2].copy_(torch.arange(6.0))),
    ("setitem", lambda x: x.__setitem__((slice(None), 0), 9.0)),
    ("setitem_tensor", lambda x: x.__setitem__(1, torch.ones(6, device=x.device))),
    ("unsqueezed", lambda x: x.unsqueeze(0).squeeze(0)[3].neg_()),
    ("split", lambda x: x.split(3, 1)[1].mul_(0)),
    ("out", lambda x: torch.add(x[0], x[1], out=x[2])),
    ("index_copy", lambda x: x.index_copy_(0, torch.tensor([2, 0], device=x.device), x[:2].clone())),
    ("index_put", lambda x: x.__setitem__(torch.tensor([0, 3], device=x.device), -1.0)),
    ("masked", lambda x: x.masked_fill_(x > 0, 0.5)),
]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step[0])
def test_write_through_view(mode, step):
    base = torch.randn(4, 6)
    remote = base.to("djinn")
    also = remote.view(-1)
    step[1](base)
    step[1](remote)
    torch.testing.assert_close(remote.cpu(), base)
    torch.testing.assert_close(also.cpu(), base.view(-1))


def test_all_in_one_segment(mode):
    base = torch.randn(4, 6)
    remote = base.to("djinn")
    for _, step in STEPS:
        step(base)
        step(remote)
    torch.testing.assert_close(remote.cpu(), base)


def test_a_view_records_nothing(mode):
    x = torch.randn(4, 6).to("djinn")
    before = djinn.stats()["ops"]
    views = [x.t(), x[1], x[:, ::2], x.view(24), x.unsqueeze(0), x.expand(3, 4, 6), x.permute(1, 0),
             x.detach(), x.narrow(1, 2, 2), x.reshape(2, 12)]
    assert djinn.stats()["ops"] == before
    assert all(view.untyped_storage()._cdata == x.untyped_storage()._cdata for view in views)


@pytest.mark.parametrize("view", [
    lambda x: x.t(), lambda x: x[1:, 2:], lambda x: x[::2, ::3], lambda x: x[:, 3], lambda x: x.expand(2, 4, 6),
    lambda x: x[2, 2], lambda x: x[4:], lambda x: x.view(2, 2, 6).permute(2, 0, 1),
])
def test_fetch_of_a_view(mode, view):
    base = torch.randn(4, 6)
    assert torch.equal(view(base.to("djinn")).cpu(), view(base))


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
                                   torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_round_trip_of_types(mode, dtype):
    x = (torch.randn(3, 5) * 10).to(dtype)
    assert torch.equal(x.to("djinn").cpu(), x)
    assert torch.equal(x.t().to("djinn").cpu(), x.t())


def test_touching_moves(mode):
    x = torch.arange(6.0).view(2, 3).to("djinn")
    assert x[1, 2].item() == 5.0 and float(x.sum()) == 15.0 and bool(x[0, 1])
    assert x.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert "device='djinn:0'" in repr(x) and "5." in repr(x)
    assert x.cpu().numpy().shape == (2, 3)


def test_print_is_one_request(mode):
    x = torch.randn(10, 10).to("djinn") + 1
    before = djinn.stats()["requests"]
    repr(x)
    assert djinn.stats()["requests"] == before + 1


def test_resize_and_set(mode):
    x = torch.arange(4.0).to("djinn")
    x.resize_(6)[4:] = 9
    assert x.tolist() == [0, 1, 2, 3, 9, 9]
    y = torch.empty(0, device="djinn")
    y.set_(x)
    y[0] = 5
    assert x[0].item() == 5


def test_pickle_and_deepcopy(mode):
    x = torch.randn(3, 4).to("djinn")
    for y in (pickle.loads(pickle.dumps(x)), copy.deepcopy(x)):
        assert y.device == x.device and torch.equal(y.cpu(), x.cpu())
        assert y.untyped_storage()._cdata != x.untyped_storage()._cdata


def test_save_and_load(mode, tmp_path):
    x = torch.randn(3, 4).to("djinn")
    torch.save({"x": x, "view": x[1]}, tmp_path / "x.pt")
    back = torch.load(tmp_path / "x.pt")
    back["x"][1] = 7
    assert back["view"].tolist() == [7, 7, 7, 7]


def test_large_tensor_by_rendezvous(mode):
    x = torch.randn(1 << 20)
    assert torch.equal(x.to("djinn").cpu(), x)
    assert torch.equal((x.to("djinn") * 2).view(1024, 1024).t().cpu(), (x * 2).view(1024, 1024).t())


def test_module_to_keeps_ties_and_values(mode):
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
            self.b.weight = self.a.weight
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x):
            self.count += 1
            return self.b(self.a(x))

    local = Tied()
    remote = copy.deepcopy(local).to("djinn")
    assert remote.a.weight is remote.b.weight and remote.a.weight.device.type == "djinn"
    x = torch.randn(2, 4)
    with torch.no_grad():
        torch.testing.assert_close(remote(x.to("djinn")).cpu(), local(x))
        remote(x.to("djinn"))
        assert remote.count.item() == 2
        remote.a.weight.mul_(2)  # a weight is sealed: the first write gives the session its own
        local.a.weight.mul_(2)
        torch.testing.assert_close(remote(x.to("djinn")).cpu(), local(x))
    back = remote.to("cpu")
    assert torch.equal(back.a.weight, local.a.weight)
