"""djinn.snapshot(), and what fingerprints promise: the same model recorded by two processes has the same one, other
weights share its plans, other sequence lengths share its structure."""

import os
import subprocess
import sys
import time

import pytest
import torch

import conftest
import djinn

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


class Reader:
    """Programs of a snapshot: (structure, sizes, scalars, names); the layout is planner/snapshot.h's."""

    def __init__(self, path):
        with open(path, "rb") as file:
            self.data, self.at = file.read(), 5
        assert self.data[:5] == b"DJSN\x01"
        self.name, self.phase = self.text(), self.byte()
        self.ops = [(self.text(), self.text()) for _ in range(self.varint())]
        self.programs = [self.program() for _ in range(self.varint())]
        assert self.at == len(self.data) - 16

    def byte(self):
        self.at += 1
        return self.data[self.at - 1]

    def varint(self):
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def take(self, size):
        self.at += size
        return self.data[self.at - size:self.at]

    def text(self):
        return self.take(self.varint()).decode()

    def program(self):
        structure, sizes = self.take(self.varint()), self.take(self.varint())
        scalars = self.take(8 * self.varint())
        return structure, sizes, scalars, {self.varint(): self.text() for _ in range(self.varint())}


def small_gpt2(seed):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    config = GPT2Config(n_layer=2, n_head=4, n_embd=64, vocab_size=300, bos_token_id=0, eos_token_id=0)
    return GPT2LMHeadModel(config).eval()


def test_a_call_writes_what_is_recorded_now(mode, tmp_path):
    x = torch.randn(3, 4).to("djinn")
    y = (x + 1) * 2
    djinn.snapshot(tmp_path / "now.djs")
    before = djinn.stats()
    now = Reader(tmp_path / "now.djs")
    assert now.name == "now" and now.phase == 0
    assert [name for name, _ in now.ops] == ["aten::add.Tensor", "aten::mul.Tensor"]
    assert len(now.programs) == 1
    assert djinn.stats()["requests"] == before["requests"]
    assert torch.equal(y.cpu(), (x.cpu() + 1) * 2)  # the recording went on


def test_nothing_recorded_is_no_program(mode, tmp_path):
    djinn.synchronize()
    djinn.snapshot(tmp_path / "none.djs")
    assert Reader(tmp_path / "none.djs").programs == []


def test_a_block_collects_all_that_leaves(mode, tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)).to("djinn")
    x = torch.randn(3, 4).to("djinn")
    before = x.sin()
    with torch.no_grad(), djinn.snapshot(tmp_path / "block.djs", phase="vision", model=model):
        y = model(x)
        y.cpu()
        z = y.exp()
    z = z.cos()
    block = Reader(tmp_path / "block.djs")
    assert block.phase == 3
    assert [name for name, _ in block.ops] == ["aten::linear", "aten::relu", "aten::exp"]
    assert [len(program[3]) for program in block.programs] == [4, 0]
    assert set(block.programs[0][3].values()) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert torch.equal(before.cpu(), x.cpu().sin()) and z.shape == (3, 2)


def test_mistakes_have_a_type(mode, tmp_path):
    with pytest.raises(djinn.FileError):
        djinn.snapshot(tmp_path / "missing" / "a.djs")
    with pytest.raises(djinn.InvalidError, match="prefill, decode"):
        djinn.snapshot(tmp_path / "a.djs", phase="prefil")
    with djinn.snapshot(tmp_path / "a.djs"):
        with pytest.raises(djinn.BusyError):
            with djinn.snapshot(tmp_path / "b.djs"):
                pass
    with pytest.raises(ZeroDivisionError):
        with djinn.snapshot(tmp_path / "c.djs"):
            1 / 0
    with djinn.snapshot(tmp_path / "c.djs"):  # the failed block has ended
        torch.ones(2, device="djinn").cpu()
    assert len(Reader(tmp_path / "c.djs").programs) == 1


RECORD = """
import sys
sys.path[:0] = [{python!r}, {tests!r}]
import torch, djinn
import test_snapshots as t
djinn.connect(mode="local")
for _ in range({noise}):
    torch.ones(3, device="djinn").add(1).cpu()
model = t.small_gpt2({seed}).to("djinn")
ids = torch.arange(10)[None].to("djinn")
with torch.no_grad(), djinn.snapshot({path!r}, name="gpt2"):
    out = model(ids, use_cache=False).logits
"""


def test_two_processes_record_the_same(tmp_path):
    """With other weights, other hash seeds and other work before: byte for byte the same programs."""
    files = []
    for seed in (1, 2):
        path = str(tmp_path / f"{seed}.djs")
        code = RECORD.format(python=os.path.join(conftest.BUILD, "python"), tests=os.path.dirname(__file__),
                             noise=seed * 3, seed=seed, path=path)
        subprocess.run([sys.executable, "-c", code], check=True, timeout=300,
                       env={**os.environ, "PYTHONHASHSEED": str(seed)})
        files.append(Reader(path))
    assert len(files[0].programs[-1][0]) > 500
    for a, b in zip(files[0].programs, files[1].programs, strict=True):
        assert a == b


def text_of_at_least(count):
    """What the ranks hold in Text, once it is that much: a worker's counters reach rank 0 with its next report."""
    deadline = time.monotonic() + 10
    while True:
        held = sum(rank["text_bytes"] for rank in djinn.info()["ranks"])
        if held >= count or time.monotonic() > deadline:
            return held
        time.sleep(0.05)


def test_other_weights_share_plans_and_not_text(mode):
    if mode == "local":
        pytest.skip("no plans in mode local")
    ids, outs, held = torch.arange(12)[None], [], 0
    for seed in (1, 2):
        local = small_gpt2(seed)
        with torch.no_grad():
            want = local(ids, use_cache=False).logits
            remote = local.to("djinn")
            given = ids.to("djinn")
            djinn.synchronize()
            before = djinn.stats()
            out = remote(given, use_cache=False).logits
            assert (out.cpu() - want).abs().max().item() < 1e-4
        after = djinn.stats()
        outs.append((want, remote))
        weights = sum(p.numel() * 4 for p in set(remote.parameters()))
        grown = held + weights // 2  # ones and zeros alone are the same in both
        held = text_of_at_least(grown)
        assert held >= grown
        if seed == 2:
            assert after["plan_misses"] == before["plan_misses"]
            assert after["plan_hits"] > before["plan_hits"]
    assert not torch.allclose(outs[0][0], outs[1][0])


def test_sequence_lengths_share_a_structure(mode, minilm_path, tmp_path):
    from transformers import AutoModel

    model = djinn.from_pretrained(AutoModel, minilm_path)
    seen, stats = [], []
    for length in (32, 40):
        ids, mask = torch.arange(2 * length).reshape(2, length), torch.ones(2, length, dtype=torch.long)
        ids, mask = ids.to("djinn"), mask.to("djinn")
        djinn.synchronize()
        stats.append(djinn.stats())
        with torch.no_grad(), djinn.snapshot(tmp_path / f"{length}.djs"):
            hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
        djinn.synchronize()
        stats.append(djinn.stats())
        assert hidden.shape[1] == length
        seen.append(Reader(tmp_path / f"{length}.djs").programs)
    for short, long in zip(*seen, strict=True):
        assert short[0] == long[0]
    assert any(short[1] != long[1] for short, long in zip(*seen))
    if mode != "local":
        assert stats[3]["plan_misses"] == stats[2]["plan_misses"]
        assert stats[3]["plan_resizes"] > stats[2]["plan_resizes"]
