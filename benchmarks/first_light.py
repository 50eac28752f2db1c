"""The figures of the first milestone, measured in alternation on one machine.

    build/venv/bin/python benchmarks/first_light.py [--rounds 15] [--only exec,minilm,gpt2,ready] [--out DIR]

Prints a markdown table of medians and spreads and writes every sample to DIR/*.csv. Each pair alternates
A B A B: two processes wait on pipes and are told in turn to run once, so both see the same machine. Local
PyTorch is eager, with as many threads as the rank has kernel threads.
"""

import argparse
import csv
import os
import re
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
BATCH, LENGTH, PROMPT, STEPS = 32, 32, 16, 8


# ---- the two sides of a model pair, each a process of its own ----

def minilm_side(device, djinn):
    import torch
    from transformers import AutoModel

    sys.path.insert(0, os.path.join(ROOT, "examples"))
    from semantic_search import embed, find_model

    load = djinn.from_pretrained if djinn else (lambda kind, path: kind.from_pretrained(path))
    model = load(AutoModel, find_model()).eval()
    model = model if djinn else model.to(device)
    generator = torch.Generator().manual_seed(3)
    batch = {
        "input_ids": torch.randint(1000, 30000, (BATCH, LENGTH), generator=generator),
        "attention_mask": torch.ones(BATCH, LENGTH, dtype=torch.int64),
    }
    batch["attention_mask"][::3, LENGTH * 3 // 4:] = 0

    def once():
        return embed(model, {name: value.to(device) for name, value in batch.items()}).cpu()

    return once


def gpt2_side(device, djinn, compiled=False):
    import torch
    from transformers import AutoModelForCausalLM, StaticCache

    sys.path.insert(0, os.path.join(ROOT, "examples"))
    from generate import DEFAULT, ensure_checkpoint, prompt

    folder = ensure_checkpoint(os.path.normpath(DEFAULT))
    load = djinn.from_pretrained if djinn else (lambda kind, path: kind.from_pretrained(path))
    model = load(AutoModelForCausalLM, folder).eval()
    model = model if djinn else model.to(device)
    if compiled:
        model.forward = torch.compile(model.forward, mode="reduce-overhead", fullgraph=True)
    ids = prompt(model.config.vocab_size).to(device)
    total = PROMPT + 64
    state = {}

    @torch.no_grad()
    def start():
        state["cache"] = StaticCache(config=model.config, max_cache_len=total)
        logits = model(ids, past_key_values=state["cache"], use_cache=True).logits
        state["token"], state["at"] = logits[:, -1:].argmax(-1), PROMPT

    @torch.no_grad()
    def step():
        position = torch.full((1, 1), state["at"], dtype=torch.int64).to(device)
        logits = model(state["token"], past_key_values=state["cache"], use_cache=True,
                       position_ids=position).logits
        state["token"], state["at"] = logits[:, -1:].argmax(-1), state["at"] + 1
        return state["token"].cpu()

    def once():
        if "at" not in state or state["at"] + STEPS >= total:
            start()
            step()
            if djinn:
                djinn.synchronize()
        before = time.perf_counter()
        for _ in range(STEPS):
            step()
        return (time.perf_counter() - before) / STEPS

    return once


def run_side(workload, side, threads):
    import torch

    torch.set_num_threads(threads)
    djinn = None
    if side == "remote":
        import djinn
        djinn.connect()
    once = {"minilm": minilm_side, "gpt2": gpt2_side}[workload]("djinn" if djinn else "cpu", djinn)
    for _ in range(3):
        once()
    print("ready", flush=True)
    for _ in sys.stdin:
        stats = djinn.stats() if djinn else {}
        before = time.perf_counter()
        inner = once()
        seconds = inner if isinstance(inner, float) else time.perf_counter() - before
        after = djinn.stats() if djinn else {}
        parts = [str(after[k] - stats[k]) for k in ("run_ns", "queue_ns", "planning_ns")] if djinn else []
        print(seconds, *parts, flush=True)


class Side:
    def __init__(self, workload, side, threads):
        words = [sys.executable, os.path.abspath(__file__), "--side", workload, side, str(threads)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        while line and line.strip() != "ready":
            line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the {side} side of {workload} did not start")

    def once(self):
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return [float(word) for word in self.process.stdout.readline().split()]

    def end(self):
        self.process.stdin.close()
        self.process.wait(30)


# ---- measurements ----

def bound_of_median(ratios):
    """95% bounds of the median by the binomial rule on order statistics."""
    ordered, n = sorted(ratios), len(ratios)
    below = max(0, int(n / 2 - 0.98 * n ** 0.5 + 0.5) - 1)
    return ordered[below], ordered[n - 1 - below]


def write_csv(out, name, header, rows):
    os.makedirs(out, exist_ok=True)
    with open(os.path.join(out, name + ".csv"), "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def measure_pair(workload, rounds, threads, out):
    local, remote = Side(workload, "local", threads), Side(workload, "remote", threads)
    rows = []
    for _ in range(rounds):
        rows.append(local.once() + remote.once())
    local.end()
    remote.end()
    write_csv(out, workload, ["local_s", "remote_s", "run_ns", "queue_ns", "planning_ns"], rows)
    ratios = [row[1] / row[0] for row in rows]
    low, high = bound_of_median(ratios)
    share = STEPS if workload == "gpt2" else 1
    run_ms, queue_ms = (statistics.median(row[i] for row in rows) / share / 1e6 for i in (2, 3))
    local_ms, remote_ms = (statistics.median(row[i] for row in rows) * 1e3 for i in (0, 1))
    what = "GPT-2 decode step" if workload == "gpt2" else f"MiniLM, {BATCH} sentences of {LENGTH}"
    print(f"| {what}, {threads} threads | {remote_ms:.2f} ms | {local_ms:.2f} ms | "
          f"{statistics.median(ratios):.2f} ({low:.2f}–{high:.2f}) | 1.0 |")
    print(f"| – of that: on the rank {run_ms:.2f} ms, waiting there {queue_ms:.3f} ms, client and wire "
          f"{remote_ms - run_ms - queue_ms:.2f} ms | | | | |", flush=True)


def djinn_exec(tcp):
    env = dict(os.environ, DJINN_EXECUTION_MODE="remote" if tcp else "")
    words = [program("djinn-run"), "-n", "1", "--", program("djinn_exec"), "-f", "-i", "20000"]
    text = subprocess.run(words, env=env, capture_output=True, text=True, timeout=120, check=True).stdout
    found = {line.split()[0]: float(line.split()[3]) for line in text.splitlines()
             if re.match(r"(null|add/64)\s", line)}
    return [found["null"], found["add/64"]]


def ucx_latency(tcp):
    """Median round trip of an 8 byte active message between two processes: twice the tool's latency."""
    env = dict(os.environ, UCX_TLS="tcp" if tcp else "posix,self,tcp", UCX_NET_DEVICES="lo")
    words = ["ucx_perftest", "-t", "ucp_am_lat", "-s", "8", "-n", "50000", "-w", "2000", "-p", "13399"]
    server = subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            client = subprocess.run(words[:1] + ["127.0.0.1"] + words[1:] + ["-f"], env=env,
                                    capture_output=True, text=True, timeout=60)
            numbers = re.findall(r"^(?:Final:)?\s+\d+\s+([\d.]+)", client.stdout, re.M)
            if numbers:
                return 2 * float(numbers[-1])
    finally:
        server.kill()
        server.wait()
    raise SystemExit("ucx_perftest gave no figure: " + client.stderr)


def measure_exec(rounds, out):
    for tcp, goals in ((False, (1.5, 2.5)), (True, (14, 16))):
        rows = []
        for _ in range(rounds):
            rows.append([ucx_latency(tcp)] + djinn_exec(tcp))
        lane = "tcp" if tcp else "shm"
        write_csv(out, "exec_" + lane, ["ucx_am_8B_us", "null_us", "add_us"], rows)
        ucx, null, add = (statistics.median(row[i] for row in rows) for i in range(3))
        spread = [f"{min(row[i] for row in rows):.2f}–{max(row[i] for row in rows):.2f}" for i in (1, 2)]
        print(f"| null request, {lane} | {null:.2f} µs ({spread[0]}) | UCX AM 8 B: {ucx:.2f} µs | "
              f"{null / ucx:.2f} | {goals[0]} µs |")
        print(f"| tiny graph (two 16-float tensors, add), {lane} | {add:.2f} µs ({spread[1]}) | "
              f"UCX AM 8 B: {ucx:.2f} µs | {add / ucx:.2f} | {goals[1]} µs |", flush=True)


def measure_ready(rounds, out):
    rows = []
    for _ in range(rounds):
        text = subprocess.run([program("djinn-run"), "-n", "9", "--", "true"], capture_output=True,
                              text=True, timeout=60, check=True)
        rows.append([float(re.search(r"ranks ready in ([\d.]+) s", text.stdout + text.stderr).group(1))])
    write_csv(out, "ready", ["nine_ranks_ready_s"], rows)
    times = [row[0] for row in rows]
    print(f"| nine ranks ready | {statistics.median(times):.3f} s ({min(times):.3f}–{max(times):.3f}) | – | "
          f"– | 0.3 s |", flush=True)


def program(name):
    home = os.environ.get("DJINN_HOME", os.path.join(ROOT, "build", "release"))
    return os.path.join(home, "bin", name)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", default="exec,minilm,gpt2,ready")
    parser.add_argument("--out", default=os.path.join(HERE, "results", "first_light"))
    parser.add_argument("--side", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        return run_side(options.side[0], options.side[1], int(options.side[2]))
    sys.stdout.reconfigure(line_buffering=True)
    print("| what | Djinn | peer | ratio (95% bound) | goal |\n| --- | --- | --- | --- | --- |")
    for name in options.only.split(","):
        if name == "exec":
            measure_exec(options.rounds, options.out)
        elif name == "ready":
            measure_ready(options.rounds, options.out)
        else:
            measure_pair(name, options.rounds, options.threads, options.out)


if __name__ == "__main__":
    main()
