"""Every failure is a Python exception of its own type, and names what, which limit, what next."""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time

import pytest
import torch

import conftest
import djinn
from djinn import _server


def run_client(code, **environment):
    """In a process of its own: the connection of this one is in use."""
    prefix = f"import sys; sys.path.insert(0, {os.path.join(conftest.BUILD, 'python')!r})\nimport torch, djinn\n"
    ran = subprocess.run([sys.executable, "-c", prefix + code], capture_output=True, text=True, timeout=120,
                         env={**os.environ, **environment})
    return ran.stdout + ran.stderr


def test_shapes_that_do_not_fit(mode):
    with pytest.raises((djinn.ShapeError, RuntimeError)) as caught:
        torch.ones(3, 4, device="djinn") @ torch.ones(3, 4, device="djinn")
    assert "3" in str(caught.value) and "4" in str(caught.value)
    assert torch.ones(2, device="djinn").sum().item() == 2


def test_shape_error_is_typed(mode):
    with pytest.raises(djinn.ShapeError, match="add"):
        torch.add(torch.ones(3, device="djinn"), torch.ones(4, device="djinn"))


def test_mixed_devices_are_refused(mode):
    with pytest.raises(RuntimeError, match="same device"):
        torch.ones(3, device="djinn") + torch.ones(3)


def test_complex_numbers_are_refused(mode):
    with pytest.raises(TypeError, match="convert on the host"):
        torch.ones(3, dtype=torch.complex64).to("djinn")


def test_missing_server():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = "127.0.0.1:%d" % free.getsockname()[1]
    out = run_client(f"djinn.connect({address!r}, mode='remote', token='0' * 64)")
    assert "djinn._errors.ConnectError" in out and address in out


def test_wrong_token(server):
    out = run_client(f"djinn.connect({server.address!r}, mode='remote', token='ab' * 32)")
    assert "djinn._errors.AuthError" in out and "token" in out


def test_malformed_token(server):
    out = run_client(f"djinn.connect({server.address!r}, mode='remote', token='not a token')")
    assert "djinn._errors." in out and "token" in out


def test_unknown_mode():
    out = run_client("djinn.connect(mode='everywhere')")
    assert "djinn._errors.InvalidError" in out and "local_remote" in out


def test_zero_copy_says_why_not(server):
    out = run_client(f"djinn.connect({server.address!r}, mode='zero_copy', token={server.token!r})")
    assert "djinn._errors.UnsupportedError" in out and "RDMA" in out


def test_something_else_on_the_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = "127.0.0.1:%d" % listener.getsockname()[1]
        started = time.monotonic()
        out = run_client(f"djinn.connect({address!r}, mode='remote', token='0' * 64)", DJINN_CONNECT_MS="500ms")
    assert "djinn._errors." in out and "Error" in out
    assert time.monotonic() - started < 30


def test_tensor_of_a_closed_connection():
    out = run_client("djinn.connect(mode='local'); x = torch.ones(3, device='djinn'); x.cpu()\n"
                     "djinn.connect(mode='local')\n"
                     "try: print(x + 1)\nexcept djinn.Error as error: print('typed', error)")
    assert "typed" in out and "connection" in out


def write_safetensors(path, header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return str(path)


def entry(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


BAD_FILES = {
    "empty": lambda p: open(p, "wb").close() or str(p),
    "header_past_end": lambda p: write_safetensors(p, {"a": entry([2], 0, 8)}, bytes(8), length=1 << 40),
    "header_cut": lambda p: write_safetensors(p, {"a": entry([2], 0, 8)}, b"", length=4096),
    "not_json": lambda p: write_safetensors(p, b"{]", bytes(8)),
    "not_object": lambda p: write_safetensors(p, b"[1]", bytes(8)),
    "data_cut": lambda p: write_safetensors(p, {"a": entry([1000], 0, 4000)}, bytes(8)),
    "size_lies": lambda p: write_safetensors(p, {"a": entry([3], 0, 8)}, bytes(8)),
    "offsets_reversed": lambda p: write_safetensors(p, {"a": entry([2], 8, 0)}, bytes(8)),
    "shape_overflows": lambda p: write_safetensors(p, {"a": entry([1 << 62, 1 << 62], 0, 8)}, bytes(8)),
    "negative": lambda p: write_safetensors(p, {"a": entry([-2], 0, 8)}, bytes(8)),
    "unknown_type": lambda p: write_safetensors(p, {"a": entry([2], 0, 8, "Q9")}, bytes(8)),
}


@pytest.mark.parametrize("bad", BAD_FILES)
def test_bad_file(mode, bad, tmp_path):
    path = BAD_FILES[bad](tmp_path / f"{bad}.safetensors")
    with pytest.raises(Exception) as caught:
        djinn.load_safetensors(path)
    if mode != "local":
        assert isinstance(caught.value, djinn.Error)
    assert torch.ones(2, device="djinn").sum().item() == 2


def test_missing_file(mode, tmp_path):
    with pytest.raises(djinn.FileError, match="nothing.safetensors"):
        djinn.load_safetensors(str(tmp_path / "nothing.safetensors"))


def test_good_file(mode, tmp_path):
    from safetensors.torch import save_file

    want = {"a": torch.randn(3, 5), "b": torch.arange(4), "c": torch.tensor([True, False]), "d": torch.randn(())}
    save_file(want, str(tmp_path / "good.safetensors"))
    got = djinn.load_safetensors(str(tmp_path / "good.safetensors"))
    assert got.keys() == want.keys()
    for name, tensor in want.items():
        assert got[name].dtype == tensor.dtype and torch.equal(got[name].cpu(), tensor)


def test_connects_at_first_use():
    out = run_client("print(torch.ones(2, device='djinn').sum().item(), djinn.mode())")
    assert "2.0 local_remote" in out


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, None])
def test_no_private_server_outlives_its_owner(how):
    code = ("import djinn._state\ndjinn.connect(mode='local_remote')\n"
            "print(djinn._state.server.process.pid, flush=True)\nsys.stdin.readline()")
    prefix = f"import sys; sys.path.insert(0, {os.path.join(conftest.BUILD, 'python')!r})\nimport torch, djinn\n"
    owner = subprocess.Popen([sys.executable, "-c", prefix + code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             text=True)
    server_pid = int(owner.stdout.readline())
    assert is_running(server_pid)
    owner.send_signal(how) if how else owner.communicate("\n", timeout=20)
    owner.wait(20)
    end = time.monotonic() + 10
    while is_running(server_pid) and time.monotonic() < end:
        time.sleep(0.02)
    assert not is_running(server_pid)


DEATH = """
djinn.connect({address!r}, mode="remote", token={token!r})
x = torch.ones(4, device="djinn")
print(x.cpu(), "ready", flush=True)
sys.stdin.readline()
import time
started = time.monotonic()
try:
    while time.monotonic() - started < 10:
        (x + 1).cpu()
except djinn.PeerDiedError as error:
    print("typed after", time.monotonic() - started, error, flush=True)
djinn.connect({address!r}, mode="remote", token={token!r})
print("again", torch.ones(3, device="djinn").sum().item(), flush=True)
"""


def test_death_of_a_worker():
    """Typed error within 2 s, the other rank serves on, the dead one returns."""
    own = _server.PrivateServer(ranks=3)
    described = ask(own)
    workers = {r["pid"] for r in described["ranks"] if r["role"] == "worker"}
    prefix = f"import sys; sys.path.insert(0, {os.path.join(conftest.BUILD, 'python')!r})\nimport torch, djinn\n"
    client = subprocess.Popen([sys.executable, "-c", prefix + DEATH.format(address=own.address, token=own.token)],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert "ready" in client.stdout.readline()
        busy = wait_for(own, lambda ranks: [r["pid"] for r in ranks if r["role"] == "worker" and r["sessions"]])
        os.kill(busy[0], signal.SIGKILL)
        out, _ = client.communicate("\n", timeout=60)
        assert "typed after" in out, out
        assert float(out.split("typed after")[1].split()[0]) < 2.0
        assert "again 3.0" in out, out
        back = wait_for(own, lambda ranks: [r for r in ranks if r["role"] == "worker" and r["pid"] not in workers])
        assert back
    finally:
        client.kill()
        own.stop()


def ask(server):
    from djinn import _C

    return json.loads(_C.info(server.address, server.token))


def wait_for(server, wanted, seconds=10):
    """What `wanted` finds in the server's description, asked for until it finds something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = wanted(ask(server)["ranks"])
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not seen within {seconds} s: {ask(server)}")


END = """
djinn.connect({address!r}, mode="remote", token={token!r})
x = torch.ones(4, device="djinn")
print(x.cpu(), "ready", flush=True)
sys.stdin.readline()
try:
    while True:
        (x + 1).cpu()
except djinn.CancelledError as error:
    print("typed", error, flush=True)
"""


def test_a_server_that_ends_says_so():
    """Another exception than a death's, with the sentence."""
    own = _server.PrivateServer(ranks=2)
    prefix = f"import sys; sys.path.insert(0, {os.path.join(conftest.BUILD, 'python')!r})\nimport torch, djinn\n"
    client = subprocess.Popen([sys.executable, "-c", prefix + END.format(address=own.address, token=own.token)],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert "ready" in client.stdout.readline()
        client.stdin.write("\n")
        client.stdin.flush()
        own.stop()
        out, _ = client.communicate(timeout=60)
        assert "typed" in out and "the server is ending" in out, out
    finally:
        client.kill()
        own.stop()
