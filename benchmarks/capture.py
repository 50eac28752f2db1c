"""What recording one op costs the calling thread, from Python's front door, beside PyTorch's own eager op on
the host for the same 8 x 8 operands.

    build/venv/bin/python benchmarks/capture.py [--ops 2000] [--rounds 9]

Nothing is sent inside the timed part; mode local, so no server is needed. Prints medians of the rounds.
"""

import argparse
import statistics
import time

import torch
import torch.nn.functional as F

import djinn


def cases(device):
    x, y, w = (torch.randn(8, 8).to(device) for _ in range(3))
    b = torch.randn(8).to(device)
    heads = torch.randn(1, 2, 8, 8).to(device)
    return {
        "x + y": lambda: x + y,
        "x * 2.0": lambda: x * 2.0,
        "x.add_(y)": lambda: x.add_(y),
        "linear": lambda: F.linear(x, w, b),
        "softmax": lambda: x.softmax(-1),
        "layer_norm": lambda: F.layer_norm(x, (8,), b, b),
        "attention": lambda: F.scaled_dot_product_attention(heads, heads, heads),
        "cat": lambda: torch.cat([x, y]),
        "ones": lambda: torch.ones(8, 8, device=device),
        "x.view(64)": lambda: x.view(64),
    }


def measure(call, ops, rounds, flush):
    times = []
    for _ in range(rounds):
        flush()
        before = time.perf_counter()
        for _ in range(ops):
            call()
        times.append((time.perf_counter() - before) / ops * 1e6)
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ops", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    djinn.connect(mode="local")
    torch.set_num_threads(1)
    host, remote = cases("cpu"), cases("djinn")
    print("| op | recorded, µs | eager on the host, µs |\n| --- | --- | --- |")
    with torch.no_grad():
        for name in host:
            recorded = measure(remote[name], options.ops, options.rounds, djinn.synchronize)
            eager = measure(host[name], options.ops, options.rounds, lambda: None)
            print(f"| `{name}` | {recorded:.2f} | {eager:.2f} |", flush=True)


if __name__ == "__main__":
    main()
