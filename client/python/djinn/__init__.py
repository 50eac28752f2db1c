"""Djinn: the GPUs of a cluster as one PyTorch device.

    import djinn
    djinn.connect()                        # or DJINN_ADDRESS, or at the first use
    model.to("djinn"); x.to("djinn")       # plain PyTorch from here on
    djinn.from_pretrained(AutoModel, path) # the rank reads the weights, this process does not

Results are refs; they move when touched: .cpu(), .item(), print().
"""

import atexit
import json
import os
import sys
import threading

import torch  # noqa: F401  (its libraries must be loaded before the shim)

try:
    from . import _C
except ImportError as error:
    raise ImportError(
        f"the shim of djinn does not fit Python {'.'.join(map(str, sys.version_info[:3]))} with torch "
        f"{torch.__version__}: it was built for others; docs/install.md says how to build it for yours "
        f"({error})") from error
from . import _device, _ghost, _state
from ._errors import (  # noqa: F401
    AuthError, BusyError, CancelledError, ConnectError, CorruptError, DeadlineError, DtypeError, Error,
    FileError, InvalidError, LimitError, OutOfMemoryError, PeerDiedError, ProtocolError, ResourceError,
    ShapeError, StaleError, UnsupportedError, VersionError,
)
from ._ghost import from_pretrained, load_safetensors  # noqa: F401
from ._snapshot import snapshot  # noqa: F401

MODES = ("local", "local_remote", "remote", "zero_copy")
_lock = threading.RLock()


def _choose_mode(address, mode):
    mode = mode or os.environ.get("DJINN_EXECUTION_MODE") or None
    if mode is None:
        return "remote" if address or os.environ.get("DJINN_ADDRESS") else "local_remote"
    if mode not in MODES:
        raise InvalidError(f"execution mode {mode}: one of {', '.join(MODES)}", -1)
    return mode


def connect(address=None, mode=None, token=None, deadline_ms=0):
    """Connects this process; an earlier connection is closed and its tensors become unusable.

    mode: "remote" (a server at `address` or DJINN_ADDRESS; over tcp where the mode is asked for, over the
    fastest lane that both sides share where an address alone chose it), "local_remote" (a private server on this
    machine, the default without an address), "local" (the recorded graph replayed by PyTorch here) or
    "zero_copy" (RDMA; says why where there is none). DJINN_EXECUTION_MODE is the default.
    """
    with _lock:
        forced = mode or os.environ.get("DJINN_EXECUTION_MODE")
        mode = _choose_mode(address, mode)
        disconnect()
        if mode == "local":
            _C.connect_local()
        elif mode == "local_remote":
            _connect_private(deadline_ms)
        else:
            _C.connect(address, token, mode if forced else "", deadline_ms)
            _state.address, _state.token = address, token
        _state.mode = mode


def _connect_private(deadline_ms):
    from ._server import PrivateServer

    server = PrivateServer()
    try:
        _C.connect(server.address, server.token, "local_remote", deadline_ms)
    except BaseException:
        server.stop()
        raise
    _state.server, _state.address, _state.token = server, server.address, server.token


def disconnect():
    """Ends the session (memory on the rank is returned) and the private server, if any."""
    with _lock:
        _C.disconnect()
        server, _state.server, _state.mode = _state.server, None, None
        _state.address = _state.token = None
        if server is not None:
            server.stop()


def mode():
    """The execution mode of the connection; None while there is none."""
    return _state.mode


def stats():
    """Counters of the connection as a dict (see djinn_stats_t in client/djinn.h)."""
    return _C.stats()


def bucket(size):
    """The size to pad `size` to, so that few lengths, and so few plans, serve many.

    By DJINN_PLAN_BUCKETS: the next power of two (the default), the next of a list, or the size itself.
    """
    return _C.bucket(size)


def info():
    """The server's description of itself, as `djinn info --json` prints it; None in mode local."""
    _C.alive()
    if _state.mode == "local":
        return None
    return json.loads(_C.info(_state.address, _state.token))


def segment_use():
    """One line a serving rank: what its segments hold. Empty in mode local."""
    described = info()
    return [
        f"rank {rank['rank']}: text {_size(rank['text_bytes'])} in {rank['text_entries']} weights, "
        f"data {_size(rank['data_bytes'])}, stack {_size(rank['stack_bytes'])}, "
        f"{rank['sessions']} sessions"
        for rank in (described["ranks"] if described else [])
        if rank["role"] == "worker" or len(described["ranks"]) == 1
    ]


def _size(count):
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"


def flush():
    """Sends what this thread has recorded; does not wait."""
    _C.flush()


def synchronize():
    """Sends what this thread has recorded and waits until the rank has run it."""
    _C.synchronize()


def boundary():
    """Splits fingerprints here; sends nothing. Called for you at the end of a module's call."""
    _C.boundary()


def is_alive():
    """Raises why not, if the rank does not answer any more."""
    _C.alive()
    return True


_device.install()
_ghost.install()
atexit.register(disconnect)
