#!/usr/bin/env python3
"""Which functions of gpu/cuda have run on a GPU, and which never have: the list in docs/cuda.md.

    tests/tools/cuda_functions.py --write             puts the list into docs/cuda.md
    tests/tools/cuda_functions.py --check             fails when it is not up to date
    tests/tools/cuda_functions.py --seen GPU DIR LOG  notes what ran: a build with --coverage left its
                                                      .gcda files under DIR, and LOG is the rank's or the
                                                      test's log at cuda=debug, which names device functions

What ran is kept in benchmarks/results/gpu/ran.csv (function, file, GPU). A run on the simulator does not count.
"""

import argparse
import csv
import glob
import json
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RAN = os.path.join(ROOT, "benchmarks", "results", "gpu", "ran.csv")
PAGE = os.path.join(ROOT, "docs", "cuda.md")
BEGIN, END = "<!-- never run on a GPU: written by tests/tools/cuda_functions.py -->", "<!-- end of the list -->"
DEFINITION = re.compile(r"^(?!typedef|struct|enum|union|return|else)[A-Za-z_][\w\s\*]*?\b(\w+)\(", re.M)
KERNEL = re.compile(r"\bDJ_KERNEL\((\w+)\s*,")


def functions_of(path):
    """Names defined in a C file, in order: a line that begins with a type and a name, and whose parameters are
    followed by a line that is '{'."""
    with open(path) as file:
        text = file.read()
    text = re.sub(r"/\*.*?\*/", lambda match: "\n" * match.group().count("\n"), text, flags=re.S)
    names = []
    for match in DEFINITION.finditer(text):
        depth, at = 0, match.end() - 1
        while at < len(text):
            depth += {"(": 1, ")": -1}.get(text[at], 0)
            at += 1
            if depth == 0:
                break
        if re.match(r"\s*\n\{", text[at:at + 8]) and match.group(1) not in names:
            names.append(match.group(1))
    return names


def expansions(path):
    """Kernels that a .cu file defines, macros expanded: the preprocessor is asked, with DJ_KERNEL left as it is."""
    words = ["cpp", "-x", "c++", "-P", "-w", "-nostdinc", "-I", ROOT, path]
    with open(path) as file:
        text = file.read()
    # Only this file's own lines: what it includes defines no kernel.
    text = re.sub(r"^\s*#\s*include.*$", "", text, flags=re.M)
    out = subprocess.run([*words[:-1], "-"], input=text, capture_output=True, text=True, timeout=60)
    return [name for name in dict.fromkeys(KERNEL.findall(out.stdout))]


def everything():
    """(file, function) of all there is, device functions included."""
    found = []
    for path in sorted(glob.glob(os.path.join(ROOT, "gpu", "cuda", "*.c"))):
        found += [(os.path.relpath(path, ROOT), name) for name in functions_of(path)]
    for path in sorted(glob.glob(os.path.join(ROOT, "gpu", "cuda", "kernels", "*.cu"))):
        found += [(os.path.relpath(path, ROOT), name) for name in expansions(path)]
    return found


def ran():
    if not os.path.exists(RAN):
        return set()
    with open(RAN, newline="") as file:
        return {(row["file"], row["function"]) for row in csv.DictReader(file)}


def page_list():
    done, all_of_it = ran(), everything()
    left = [(path, name) for path, name in all_of_it if (path, name) not in done]
    lines = [BEGIN, f"{len(all_of_it) - len(left)} of {len(all_of_it)} functions have run on a GPU. These never have:", ""]
    for path in dict.fromkeys(path for path, _ in left):
        names = ", ".join(f"`{name}`" for file, name in left if file == path)
        lines.append(f"- `{path}`: {names}")
    return "\n".join(lines + [END])


def page_with_list():
    with open(PAGE) as file:
        text = file.read()
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        sys.exit(f"{PAGE} has no place for the list: it stands between '{BEGIN}' and '{END}'")
    return text, before + page_list() + after


def covered(folder):
    """Functions with an execution count in the .gcda files under folder."""
    names = set()
    for data in glob.glob(os.path.join(folder, "**", "*.gcda"), recursive=True):
        out = subprocess.run(["gcov", "--json-format", "--stdout", data], capture_output=True, text=True,
                             cwd=os.path.dirname(data), timeout=120)
        for line in out.stdout.splitlines():
            for file in json.loads(line).get("files", []):
                names |= {function["name"] for function in file["functions"] if function["execution_count"] > 0}
    return names


def note_seen(gpu, folder, log):
    names = covered(folder)
    with open(log) as file:
        names |= set(re.findall(r"device function (\w+)", file.read()))
    rows = [(path, name) for path, name in everything() if name in names and (path, name) not in ran()]
    os.makedirs(os.path.dirname(RAN), exist_ok=True)
    new = not os.path.exists(RAN)
    with open(RAN, "a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(["file", "function", "gpu"])
        writer.writerows([path, name, gpu] for path, name in rows)
    print(f"{len(rows)} functions more have run on a GPU")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--write", action="store_true")
    chosen.add_argument("--check", action="store_true")
    chosen.add_argument("--seen", nargs=3, metavar=("GPU", "DIR", "LOG"))
    options = parser.parse_args()
    if options.seen:
        return note_seen(*options.seen)
    text, wanted = page_with_list()
    if options.check and text != wanted:
        sys.exit("docs/cuda.md lists other functions than gpu/cuda has: run tests/tools/cuda_functions.py --write")
    if options.write and text != wanted:
        with open(PAGE, "w") as file:
            file.write(wanted)


if __name__ == "__main__":
    main()
