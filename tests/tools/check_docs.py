#!/usr/bin/env python3
"""What can be checked of the pages: links lead somewhere, files named in the house map are there, the list of
statuses is the header's, and every room is on the map."""

import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ROOMS = ["runtime/base", "planner", "comm", "gpu", "gpu/host", "runtime", "launcher", "client",
         "client/python", "tests", "benchmarks", "examples", "scripts", "docs",
         "packaging"]
problems = []


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


def pages():
    found = ["README.md", "CONTRIBUTING.md", "examples/data/README.md"]
    return found + [f"docs/{name}" for name in sorted(os.listdir(os.path.join(ROOT, "docs")))
                    if name.endswith(".md")]


def check_links(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", read(page)):
        if re.match(r"[a-z]+:", target) or target.startswith("#"):
            continue
        path, _, anchor = target.partition("#")
        full = os.path.normpath(os.path.join(ROOT, os.path.dirname(page), path))
        if not os.path.exists(full):
            problems.append(f"{page}: link to {target}, which is not there")


def check_map():
    text = read("docs/architecture.md")
    for name in re.findall(r"`([a-z_]+/[\w./*-]*)`", text):
        parent, last = os.path.split(os.path.join(ROOT, name.rstrip("/")))
        pattern = re.compile(re.escape(last).replace(r"\*", ".*") + "$")
        if not os.path.isdir(parent) or not any(pattern.match(found) for found in os.listdir(parent)):
            problems.append(f"docs/architecture.md: {name} is not there")
    for room in ROOMS:
        if f"`{room}/`" not in text:
            problems.append(f"docs/architecture.md: the room {room}/ is not on the map")


def check_statuses():
    header = dict(re.findall(r"X\((\w+), (-?\d+), \"", read("runtime/base/status.h")))
    page = dict(re.findall(r"^\| `(\w+)` \| (-?\d+) \|", read("docs/errors.md"), re.M))
    for name in sorted(set(header) | set(page)):
        if header.get(name) != page.get(name):
            problems.append(f"docs/errors.md: {name} is {page.get(name)}, in status.h {header.get(name)}")
    classes = set(re.findall(r"^class (\w+)", read("client/python/djinn/_errors.py"), re.M))
    for name in re.findall(r"\| `(\w*Error)` \|", read("docs/errors.md")):
        if name not in classes:
            problems.append(f"docs/errors.md: there is no {name} in _errors.py")


def main():
    for page in pages():
        check_links(page)
    check_map()
    check_statuses()
    for problem in problems:
        print(problem)
    return 1 if problems else 0


sys.exit(main())
