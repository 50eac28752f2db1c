"""djinn.bucket() pads by the setting, and padded lengths share a plan."""

import os
import subprocess
import sys

import djinn
import torch

CODE = "import djinn; djinn.connect(mode='local'); print([djinn.bucket(n) for n in (0, 1, 33, 64, 65, 513)])"


def buckets(setting):
    env = dict(os.environ)
    env.pop("DJINN_PLAN_BUCKETS", None)
    if setting is not None:
        env["DJINN_PLAN_BUCKETS"] = setting
    return subprocess.run([sys.executable, "-c", CODE], env=env, capture_output=True, text=True, timeout=120)


def test_the_setting():
    assert buckets(None).stdout.strip() == "[0, 1, 64, 64, 128, 1024]"
    assert buckets("none").stdout.strip() == "[0, 1, 33, 64, 65, 513]"
    assert buckets("64,128,512").stdout.strip() == "[0, 1, 64, 64, 128, 513]"


def test_a_bad_setting_is_named():
    ended = buckets("64,32")
    assert ended.returncode != 0
    assert "they must rise" in ended.stderr


def test_padded_lengths_share_a_plan(mode):
    def run(length):
        x = torch.zeros(djinn.bucket(length), 8)
        x[:length] = 1
        return torch.relu(x.to("djinn") * 2).sum().item()

    assert run(33) == 33 * 16
    before = djinn.stats()
    assert run(50) == 50 * 16
    after = djinn.stats()
    assert after["plan_misses"] == before["plan_misses"]
    assert after["plan_resizes"] == before["plan_resizes"]
