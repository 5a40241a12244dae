#!/usr/bin/env python3
"""Thread-safety analysis and clang-tidy over our .cc files, with a cache: a file whose content, headers of ours and
configuration are unchanged since it last passed is not looked at again.

    tests/tidy/clang_checks.py --build build/dev [--jobs N] [--cache DIR] [FILE.cc ...]
"""
import argparse
import concurrent.futures
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
OURS = ("scheduler/", "workers/", "services/", "tests/")


def read(path):
    with open(path, "rb") as f:
        return f.read()


def digest(path, seen):
    """Hash of a file and of every header of ours that it includes, directly or not."""
    if path in seen:
        return b""
    seen.add(path)
    text = read(path)
    parts = [hashlib.sha256(text).digest()]
    for name in re.findall(rb'#include\s+"([^"]+)"', text):
        header = os.path.join(ROOT, name.decode())
        if os.path.isfile(header):
            parts.append(digest(header, seen))
    return b"".join(parts)


def commands(build):
    for entry in json.loads(read(os.path.join(build, "compile_commands.json"))):
        path = os.path.relpath(os.path.join(entry["directory"], entry["file"]), ROOT)
        if path.startswith(OURS):
            yield path, entry


def syntax_command(entry):
    """The file's own flags for clang, without output, launcher and what clang 14 does not know."""
    words = shlex.split(entry["command"])
    while words and not re.search(r"(^|/)(c\+\+|g\+\+)[^/]*$", words[0]):
        words.pop(0)
    keep, skip = [], False
    for word in words[1:]:
        if skip:
            skip = False
        elif word in ("-o", "-MF", "-MT", "-MQ"):
            skip = True
        elif word not in ("-c", "-MD", "-Werror", "-Wno-error=tsan", "-Wno-maybe-uninitialized"):
            keep.append(word)
    return ["clang++-14", "-fsyntax-only", "-Wthread-safety", "-Werror=thread-safety", "-w", *keep]


def check(path, entry, build, cache):
    configs = [".clang-tidy"] + (["tests/.clang-tidy"] if path.startswith("tests/") else [])
    key = hashlib.sha256(digest(os.path.join(ROOT, path), set()) +
                         b"".join(read(os.path.join(ROOT, config)) for config in configs) +
                         read(os.path.abspath(__file__)) + entry["command"].encode()).hexdigest()
    stamp = os.path.join(cache, key)
    if os.path.exists(stamp):
        return path, ""
    out = ""
    for command in (syntax_command(entry), ["clang-tidy-14", "--quiet", "-p", build, path]):
        run = subprocess.run(command, cwd=entry["directory"] if command[0].startswith("clang++") else ROOT,
                             capture_output=True, text=True)
        if run.returncode != 0:
            out += run.stdout + run.stderr
    if not out:
        with open(stamp, "w", encoding="utf-8"):
            pass
    return path, out


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--cache", default=os.path.join(ROOT, "build", "clang-checks"))
    parser.add_argument("files", nargs="*")
    options = parser.parse_args()
    os.makedirs(options.cache, exist_ok=True)
    wanted = [(path, entry) for path, entry in commands(options.build)
              if not options.files or path in options.files]
    bad = 0
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        futures = [pool.submit(check, path, entry, options.build, options.cache) for path, entry in wanted]
        for done, future in enumerate(concurrent.futures.as_completed(futures), 1):
            path, out = future.result()
            if out:
                bad += 1
                print(f"{path}:\n{out}", flush=True)
            if sys.stderr.isatty():
                print(f"\r{done}/{len(wanted)} ", end="", file=sys.stderr, flush=True)
    print(f"clang checks: {len(wanted)} files, {bad} with findings")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
