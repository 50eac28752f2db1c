"""The main job: MiniLM and GPT-2 through transformers, against local PyTorch."""

import os
import subprocess
import sys

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

import generate
import semantic_search

import djinn

SENTENCES = [
    "Call me Ishmael.",
    "It was a bright cold day in April, and the clocks were striking thirteen.",
    "A much longer sentence, with many more words than the others have, so that padding and the "
    "attention mask are put to use on everything that is shorter than this one.",
    "Yes.",
]


def test_minilm_embeddings(mode, minilm_path):
    tokenizer = AutoTokenizer.from_pretrained(minilm_path)
    local = AutoModel.from_pretrained(minilm_path).eval()
    remote = djinn.from_pretrained(AutoModel, minilm_path)
    want = semantic_search.embed(local, semantic_search.tokenise(tokenizer, SENTENCES, "cpu"))
    got = semantic_search.embed(remote, semantic_search.tokenise(tokenizer, SENTENCES, "djinn"))
    assert (got.cpu() - want).abs().max().item() < 1e-5


def test_minilm_warm_requests(mode, minilm_path):
    """One message each way a request, plans hit, and nothing but ids and masks goes up."""
    if mode == "local":
        pytest.skip("no messages in mode local")
    tokenizer = AutoTokenizer.from_pretrained(minilm_path)
    remote = djinn.from_pretrained(AutoModel, minilm_path)
    batch = semantic_search.tokenise(tokenizer, SENTENCES, "djinn")
    for _ in range(2):
        semantic_search.embed(remote, batch).cpu()
    before = djinn.stats()
    semantic_search.embed(remote, batch).cpu()
    after = djinn.stats()
    done = {name: after[name] - before[name] for name in after}
    assert done["plan_misses"] == 0 and done["plan_resizes"] == 0 and done["plan_hits"] == done["segments"]
    assert done["messages_out"] == done["messages_in"] == done["requests"] <= 2
    assert done["bytes_up"] < 16384 and done["program_bytes"] == 0


def test_moved_model_equals_loaded_one(mode, minilm_path):
    tokenizer = AutoTokenizer.from_pretrained(minilm_path)
    moved = AutoModel.from_pretrained(minilm_path).eval().to("djinn")
    loaded = djinn.from_pretrained(AutoModel, minilm_path)
    batch = semantic_search.tokenise(tokenizer, SENTENCES, "djinn")
    assert torch.equal(semantic_search.embed(moved, batch).cpu(), semantic_search.embed(loaded, batch).cpu())


def compare_generation(path, tokens):
    local = AutoModelForCausalLM.from_pretrained(path).eval()
    remote = djinn.from_pretrained(AutoModelForCausalLM, path)
    ids = generate.prompt(local.config.vocab_size)
    want = generate.generate(local, ids, tokens)
    ticker = generate.Ticker(djinn)
    got = generate.generate(remote, ids.to("djinn"), tokens, ticker)
    assert torch.equal(got.sequences.cpu(), want.sequences)
    for step, (a, b) in enumerate(zip(want.logits, got.logits)):
        assert (a - b.cpu()).abs().max().item() < 1e-4, f"step {step}"
    return want.sequences[0, ids.shape[1]:].tolist(), ticker


def test_small_gpt2(mode, small_gpt2_path):
    tokens, ticker = compare_generation(small_gpt2_path, 24)
    assert len(set(tokens)) >= 12
    # put() first with the prompt, then a token a call: from the second step on every plan is known
    assert ticker.misses[-1] == ticker.misses[3]


def test_gpt2_124m(mode, gpt2_path):
    if mode != "remote":
        pytest.skip("the small one covers the other modes")
    tokens, ticker = compare_generation(gpt2_path, 64)
    assert len(set(tokens)) >= 32
    assert ticker.misses[-1] == ticker.misses[3]


def test_sentence_transformers(mode, minilm_path):
    """Another library's own pipeline, unchanged but for the device's name."""
    from sentence_transformers import SentenceTransformer

    want = SentenceTransformer(minilm_path, device="cpu").encode(SENTENCES)
    got = SentenceTransformer(minilm_path, device="djinn").encode(SENTENCES)
    assert abs(got - want).max() < 1e-5


def test_sampling_with_a_growing_cache(mode, small_gpt2_path):
    """The dynamic cache grows by cat, and multinomial runs on the host with the host's generator."""
    local = AutoModelForCausalLM.from_pretrained(small_gpt2_path).eval()
    remote = djinn.from_pretrained(AutoModelForCausalLM, small_gpt2_path)
    ids, drawn = generate.prompt(local.config.vocab_size), []
    for model, given in ((local, ids), (remote, ids.to("djinn"))):
        torch.manual_seed(5)
        drawn.append(model.generate(given, max_new_tokens=12, do_sample=True, pad_token_id=0).tolist())
    assert drawn[0] == drawn[1]


def test_tied_weights_stay_tied(mode, small_gpt2_path):
    remote = djinn.from_pretrained(AutoModelForCausalLM, small_gpt2_path)
    assert remote.lm_head.weight is remote.transformer.wte.weight


GHOST = """
import sys
sys.path[:0] = [{python!r}, {examples!r}]
import torch, djinn, generate
from transformers import AutoModelForCausalLM
from transformers.models.gpt2 import modeling_gpt2
djinn.connect({address!r}, mode="remote", token={token!r})
torch.ones(4, device="djinn").cpu()
before = generate.resident_mib()
model = djinn.from_pretrained(AutoModelForCausalLM, {path!r})
generate.generate(model, generate.prompt(model.config.vocab_size).to("djinn"), 4)
print(before, generate.resident_mib(), generate.resident_mib(peak=True))
"""


def test_no_weight_byte_passes_the_client(server, gpt2_path):
    """523 MB of weights; the client's resident set grows by code and bookkeeping only."""
    import conftest

    code = GHOST.format(python=os.path.join(conftest.BUILD, "python"), address=server.address,
                        examples=os.path.join(conftest.ROOT, "examples"), token=server.token, path=gpt2_path)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    before, after, peak = map(float, ran.stdout.split()[-3:])
    assert peak - before < 100, ran.stdout
    assert after - before < 100, ran.stdout


SECOND = """
import sys
sys.path[:0] = [{python!r}, {examples!r}]
import djinn, semantic_search
from transformers import AutoModel, AutoTokenizer
djinn.connect({address!r}, mode="remote", token={token!r})
model = djinn.from_pretrained(AutoModel, {path!r})
tokenizer = AutoTokenizer.from_pretrained({path!r})
batch = semantic_search.tokenise(tokenizer, ["One sentence.", "And another, somewhat longer one."], "djinn")
semantic_search.embed(model, batch).cpu()
text = [(rank["text_entries"], rank["text_bytes"]) for rank in djinn.info()["ranks"] if rank["sessions"]]
print("counted", djinn.stats()["plan_misses"], djinn.stats()["plan_hits"], text)
"""


def test_second_client_shares_weights_and_plans(minilm_path):
    """One worker: the second client's weights are the first one's, and its first batch hits plans."""
    import conftest
    from djinn import _server

    own = _server.PrivateServer(ranks=1)
    try:
        code = SECOND.format(python=os.path.join(conftest.BUILD, "python"), address=own.address, token=own.token,
                             examples=os.path.join(conftest.ROOT, "examples"), path=minilm_path)
        lines = []
        for _ in range(2):
            ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
            assert ran.returncode == 0, ran.stderr
            lines.append(ran.stdout.split("counted ")[1].split(maxsplit=2))
    finally:
        own.stop()
    first, second = lines
    assert int(first[0]) > 0 and int(second[0]) == 0 and int(second[1]) > 0
    assert first[2] == second[2]  # as many weights and bytes of Text with the second client as with the first
