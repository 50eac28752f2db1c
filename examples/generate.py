"""Text generation: GPT-2 (124M) through transformers' generate() with a static cache, on Djinn's ranks.

    djinn-run -n 3 -- python examples/generate.py --check

The weights are seeded random numbers, saved once as safetensors, and the rank reads them from there: no
weight byte passes this process. A GPT-2 fresh from its initialiser repeats one token for ever, which
hides mistakes; so the blocks' matrices are enlarged until the next token depends on all before it.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time

import torch

HERE = os.path.dirname(os.path.abspath(__file__))
DEFAULT = os.path.join(HERE, "..", "build", "gpt2-124m-seed0")
PROMPT_SEED, PROMPT_TOKENS = 1, 16
BLOCK_SCALE = 4.0  # at 768 features


def save_checkpoint(folder, small):
    from transformers import GPT2Config, GPT2LMHeadModel

    shape = dict(n_layer=2, n_head=4, n_embd=64, vocab_size=500) if small else {}
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(bos_token_id=0, eos_token_id=None, **shape))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".h." in name and parameter.dim() == 2:
                parameter.mul_(BLOCK_SCALE * (768 / model.config.n_embd) ** 0.5)
    partial = f"{folder}.{os.getpid()}"
    model.save_pretrained(partial)
    try:
        os.rename(partial, folder)
    except OSError:  # another process has made it meanwhile
        shutil.rmtree(partial)
        if not os.path.exists(os.path.join(folder, "model.safetensors")):
            raise


def ensure_checkpoint(folder, small=False):
    """Made in a process of its own, so that this one never holds the weights."""
    if not os.path.exists(os.path.join(folder, "model.safetensors")):
        print(f"saving seeded weights to {folder}", flush=True)
        command = [sys.executable, os.path.abspath(__file__), "--save", folder] + ["--small"] * small
        subprocess.run(command, check=True)
    return folder


def prompt(vocabulary):
    generator = torch.Generator().manual_seed(PROMPT_SEED)
    return torch.randint(0, vocabulary, (1, PROMPT_TOKENS), generator=generator)


def generate(model, ids, tokens, streamer=None):
    return model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False, pad_token_id=0,
        cache_implementation="static", return_dict_in_generate=True, output_logits=True, streamer=streamer,
    )


class Ticker:
    """A streamer for generate(): notes when each token came, and the plans missed by then."""

    def __init__(self, djinn):
        self.djinn, self.times, self.misses = djinn, [], []

    def put(self, value):
        self.times.append(time.perf_counter())
        self.misses.append(self.djinn.stats()["plan_misses"])

    def end(self):
        pass


def resident_mib(peak=False):
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith("VmHWM:" if peak else "VmRSS:"):
                return int(line.split()[1]) / 1024
    return 0.0


def check(folder, ids, tokens, remote):
    from transformers import AutoModelForCausalLM

    local_model = AutoModelForCausalLM.from_pretrained(folder).eval()
    before = time.perf_counter()
    local = generate(local_model, ids, tokens)
    seconds = time.perf_counter() - before
    worst = max((a - b.cpu()).abs().max().item() for a, b in zip(local.logits, remote.logits))
    same = torch.equal(local.sequences, remote.sequences.cpu())
    print(f"local PyTorch: {seconds / tokens * 1e3:.1f} ms a token; largest difference of any logit of any "
          f"step {worst:.2e}; tokens {'equal' if same else 'DIFFER'}")
    if not same or worst > 1e-4:
        raise SystemExit("generation differs from local PyTorch")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default=DEFAULT, help="folder of the model; made if absent")
    parser.add_argument("--small", action="store_true", help="a model of two layers, for a quick look")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--check", action="store_true", help="compare with local PyTorch")
    parser.add_argument("--save", metavar="FOLDER", help="save the seeded weights and end")
    options = parser.parse_args()
    if options.save:
        return save_checkpoint(options.save, options.small)

    import djinn
    from transformers import GPT2LMHeadModel  # here, so that what it costs is not counted below

    folder = ensure_checkpoint(os.path.normpath(options.checkpoint + ("-small" * options.small)),
                               options.small)
    weight_mib = os.path.getsize(os.path.join(folder, "model.safetensors")) / 2**20
    djinn.connect()
    base = resident_mib()
    before = time.perf_counter()
    model = djinn.from_pretrained(GPT2LMHeadModel, folder)
    djinn.synchronize()
    print(f"mode {djinn.mode()}: {weight_mib:.0f} MiB of weights loaded by the rank in "
          f"{time.perf_counter() - before:.2f} s; this process grew by {resident_mib() - base:.1f} MiB")
    ids = prompt(model.config.vocab_size)
    generate(model, ids.to("djinn"), 3)  # plans are made here
    warm = djinn.stats()
    ticker = Ticker(djinn)
    out = generate(model, ids.to("djinn"), options.tokens, ticker)
    tokens = out.sequences[0, ids.shape[1]:].tolist()
    stats = {name: value - warm[name] for name, value in djinn.stats().items()}
    steps = [b - a for a, b in zip(ticker.times[1:], ticker.times[2:])]
    print(" ".join(map(str, tokens)))
    print(f"{len(set(tokens))} distinct tokens of {len(tokens)}; {sum(steps) / len(steps) * 1e3:.1f} ms a "
          f"token; misses after step 2: {ticker.misses[-1] - ticker.misses[2]}")
    print(f"{stats['requests']} requests, {stats['plan_hits']} plan hits, {stats['plan_misses']} misses, "
          f"{stats['bytes_up']} bytes up, {stats['bytes_down']} down; peak resident {resident_mib(True):.0f} "
          f"MiB")
    if options.check:
        check(folder, ids, options.tokens, out)


if __name__ == "__main__":
    main()
