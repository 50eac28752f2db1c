"""Several threads of one process: each records its own segment, tensors pass between them."""

import threading
from concurrent.futures import ThreadPoolExecutor

import torch

import djinn


def test_threads_record_independently(mode):
    def work(seed):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(16, 16, generator=generator)
        remote = x.to("djinn")
        for _ in range(50):
            remote = (remote @ remote).tanh() + seed
            x = (x @ x).tanh() + seed
        torch.testing.assert_close(remote.cpu(), x, rtol=1e-4, atol=1e-4)
        return seed

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(8))) == list(range(8))


def test_a_tensor_passes_between_threads(mode):
    made = {}

    def make():
        made["x"] = torch.ones(4, device="djinn") * 3

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    assert (made["x"] + 1).tolist() == [4, 4, 4, 4]


def test_a_thread_that_ends_leaves_nothing(mode):
    djinn.synchronize()
    before = djinn.stats()["storages"]

    def work():
        for _ in range(20):
            (torch.ones(8, device="djinn") * 2).cpu()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert djinn.stats()["storages"] == before


def test_flush_sends_and_boundary_does_not(mode):
    djinn.synchronize()
    before = djinn.stats()
    x = torch.ones(4, device="djinn")
    djinn.boundary()
    y = x + 1
    assert djinn.stats()["requests"] == before["requests"]
    djinn.flush()
    after = djinn.stats()
    assert after["requests"] == before["requests"] + 1
    assert after["segments"] == before["segments"] + 2
    assert y.tolist() == [2, 2, 2, 2]


def test_what_nobody_holds_is_not_computed(mode):
    """A result that died before it was sent leaves no storage behind."""
    djinn.synchronize()
    before = djinn.stats()["storages"]
    x = torch.ones(64, device="djinn")
    for _ in range(100):
        x + 1
    djinn.synchronize()
    assert djinn.stats()["storages"] == before + 1
