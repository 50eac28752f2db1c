#!/usr/bin/env python3
"""Captures graphs of real architectures through the frontend, into tests/graphs/*.djs.

    tests/graphs/export.py [--out FOLDER] [--keep-going] [NAME ...]     all, or those named
    tests/graphs/export.py --list

Every graph is what `model.to("djinn")` and plain PyTorch record (mode local): random weights, sizes as
published where memory holds them, else fewer layers or words. Each capture is a process of its own, one at a
time. labels.csv holds the ground truth, and not the files, so that nothing that reads a graph can look it up.
TEST_BUILD names the build tree, else build/release.
"""

import argparse
import csv
import os
import resource
import subprocess
import sys
import time
import warnings

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BUILD = os.environ.get("TEST_BUILD") or os.path.join(ROOT, "build", "release")
MEMORY_BYTES = 12 << 30  # of address space, most of it reserved only
SECONDS = 300


def record(name, out):
    """In the capture's own process."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    sys.path.insert(0, os.path.join(BUILD, "python"))
    import torch

    import djinn
    import known  # noqa: F401
    import new  # noqa: F401
    import registry

    torch.manual_seed(0)
    djinn.connect(mode="local")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model, step = registry.CAPTURES[name].make()
        djinn.synchronize()
        before = djinn.stats()
        with djinn.snapshot(os.path.join(out, name + ".djs"), name=name, model=model):
            kept = step()
    after = djinn.stats()
    hosted = sorted({str(w.message).split(" ")[0] for w in told if "runs on the host" in str(w.message)})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    size = os.path.getsize(os.path.join(out, name + ".djs"))
    print(f"{name}: {after['ops'] - before['ops']} ops in {after['segments'] - before['segments']} programs, "
          f"{size} bytes, {peak} MiB at most" + (f", on the host: {', '.join(hosted)}" if hosted else ""))
    del kept


def run(name, out):
    started = time.monotonic()
    ran = subprocess.run([sys.executable, os.path.abspath(__file__), "--one", name, "--out", out],
                         timeout=SECONDS, capture_output=True, text=True)
    if ran.returncode != 0:
        print(f"{name}: FAILED\n" + "\n".join(ran.stderr.splitlines()[-8:]), flush=True)
        return False
    print(f"{ran.stdout.strip()}, {time.monotonic() - started:.0f} s", flush=True)
    return True


def write_labels(captures, out):
    with open(os.path.join(out, "labels.csv"), "w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["file", "architecture", "phase", "set"])
        for name, one in captures.items():
            if os.path.exists(os.path.join(out, name + ".djs")):
                rows.writerow([name + ".djs", one.architecture, one.phase, one.group])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", default=HERE)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("names", nargs="*", metavar="NAME")
    chosen = parser.parse_args()
    if chosen.one:
        return record(chosen.one, chosen.out)
    import known  # noqa: F401
    import new  # noqa: F401
    import registry

    captures = registry.CAPTURES
    unknown = [name for name in chosen.names if name not in captures]
    if unknown:
        parser.error(f"no capture is called {unknown[0]}; see --list")
    if chosen.list:
        for name, one in captures.items():
            print(f"{name:24}{one.phase:16}{one.group:8}{one.architecture}")
        return 0
    good = [run(name, chosen.out) for name in chosen.names or captures]
    write_labels(captures, chosen.out)
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
